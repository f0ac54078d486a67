"""The angles of figure 3 where they can be seen: inside the subspace that the product of the
others has rank in.

python figures/subspace.py [--train ...]        the same as: fsp figure subspace [--train ...]
"""

import sys

from fsp_dynamics.cli import main

if __name__ == "__main__":
    sys.exit(main(["figure", "subspace", *sys.argv[1:]]))
