"""How fast: the only rooms that import numba. Arrays and numbers in, arrays and numbers out; no checks, no messages.

`field`, `steps` and `relax` walk through time, each sample with a step of its own, with `exponential` for smooth activations; `units` and
`mixing` are the elementwise work of a pass and the extrapolation between passes; `products` adds updates to weights in place.
"""
