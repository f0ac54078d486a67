"""`python -m benchmarks [OPTIONS]`: the same as `fsp bench [OPTIONS]`."""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["bench", *sys.argv[1:]]))
