"""Errors of learned and fixed loop compared with equilibrium propagation, the exact gradient and
backpropagation.

python figures/errors.py [--train ...]        the same as: fsp figure errors [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "errors", *sys.argv[1:]]))
