"""How fast: the only rooms that import numba. Arrays and numbers in, arrays and numbers out; no
checks, no messages.

`vectors`, `tiles`, `turned_tiles` and `panels` are products with weights that are kept in panels;
`team` is threads that walk through one kernel together. `broyden`, `loop_rest`, `loop_phases` and
`loop_learning` bring a loop to rest and train it; `layer_sweeps` and `layer_learning` do so for a
reciprocal network. `field`, `steps` and `relax` walk through time, each sample with a step of its
own, with `exponential` for smooth activations; `units` and `mixing` are the elementwise work of a
pass and the extrapolation between passes; `products` adds updates to weights in place.
"""
