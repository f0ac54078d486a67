"""How fast: the only modules that import numba. Arrays and numbers in, arrays and numbers out; no
checks, no messages, no classes but NamedTuples (but for what surrounds the kernels, named last).

`registers`, `vectors`, `tiles`, `turned_tiles` and `panels` are products with weights that are kept
in panels; `team` is threads that run one kernel together; `status` the status of a sample.
`broyden`, `loop_arrays`, `loop_relaxation` and `loop_phases` compute the equilibria of a loop,
`loop_weights`, `loop_optimiser` and `loop_learning` train it; `layer_relaxation` and
`layer_learning` do so for a reciprocal network. `field`, `step_arrays`, `steps` and `relax`
integrate in time, each sample with its own step, with `exponential` for smooth activations;
`units` and `anderson` are the elementwise part of a pass and the mixing of passes; `products` adds
updates to weights in place, `loop_products` multiplies along a loop. `heed` is what a kernel's
caller listens to, `heed_compiler` the same while a kernel is compiled.

`apart` compiles kernels apart from those that call them, `views` are matrices in one array.
`disk_cache`, `cache_places` and `cache_turns` keep on disk what Numba compiles, `compile_watch`
tells of it while it lasts, `thread_number` is how many threads there are.
"""
