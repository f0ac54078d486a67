"""Learners: what learns, under one name each (naming), and how they compare (table)."""
