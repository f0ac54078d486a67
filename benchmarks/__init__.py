"""Speed, as ratios measured side by side in one run. `make bench` (`python -m benchmarks`); never part of the tests."""
