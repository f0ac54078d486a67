"""Rate networks as a family: their configuration, what it describes, and their trainer."""
