"""What changes: the two phases, the contrastive Hebbian update (eq. 14), the optimiser, the
training epoch; and trajectories.
"""
