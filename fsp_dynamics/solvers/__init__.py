"""How a network comes to rest: one protocol (`equilibrium.Solver`), several ways.

===============  ==========================================================================================
solver           take it when
===============  ==========================================================================================
``fixed_point``  the equilibrium is all that counts (training): a handful of passes, no time axis
``numba_ode``    the path in time counts, or a fixed point does not come to rest: compiled, samples in parallel
``reference``    you want to read, extend or check: the same methods in plain NumPy
===============  ==========================================================================================
"""
