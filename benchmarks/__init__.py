"""Speed, measured side by side in one run. `make bench`, `fsp bench` (`python -m benchmarks`);
never part of the tests.

counting   multiplications of a sample, from sizes alone          learners   everybody who learns, behind one call
twin       backpropagation by hand on our kernels                 training   whole chunks of epochs side by side
euler      explicit Euler on our kernels                          scaling    cost against width, depth, batch, threads; memory
machine    what it was measured on, and the peak of its cores     report     tables, JSON, picture        suite   all of it
"""
