"""What is learned: the two phases, the rules, the optimiser, mirror phases; and trajectories."""
