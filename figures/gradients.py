"""The update of eq. 14 compared with the true gradient, and the sources of their difference.

python figures/gradients.py [--train ...]        the same as: fsp figure gradients [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "gradients", *sys.argv[1:]]))
