"""What the network is: firing rates (`activations`), weights and constants (`network`), and the
equation (`rate`). Nothing here runs it.
"""
