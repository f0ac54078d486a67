"""The angles of figure 3 inside the subspace of the product of the other matrices.

python figures/subspace.py [--train ...]        the same as: fsp figure subspace [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "subspace", *sys.argv[1:]]))
