"""Speed, compared in one run: `make bench`, `fsp bench` (`python -m benchmarks`). Not part of the
tests.

counting    multiplications per sample, from the sizes alone
twin        backpropagation written on our own kernels
euler       explicit Euler on our own kernels
learners    all methods behind one interface
training    whole chunks of epochs, one method after the other
scaling     cost against width, depth, batch and threads; memory
machine     the machine and the peak performance of its cores
report      tables, JSON, figure
suite       all of these
screens     what a command shows in a terminal, second by second (not in suite)
"""
