"""The update of eq. 14 beside the true gradient, and what keeps them apart.

python figures/gradients.py [--train ...]        the same as: fsp figure gradients [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "gradients", *sys.argv[1:]]))
