"""What it means: how the matrices of a loop align (section V-B of the paper)."""
