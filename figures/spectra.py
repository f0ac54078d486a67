"""Stability of the equilibria: eigenvalues of the field, gain of the loop, settle time.

python figures/spectra.py [--train ...]        the same as: fsp figure spectra [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "spectra", *sys.argv[1:]]))
