"""Figure 3 of the paper: the angle of each matrix of the loop to the product of the others.

python figures/alignment.py [--train ...]        the same as: fsp figure alignment [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "alignment", *sys.argv[1:]]))
