"""`fsp` and `python -m fsp_dynamics`: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command and return its exit code. Ctrl-C while the command line is still being
    loaded is one line too.
    """
    try:
        from fsp_dynamics.cli import main as run
    except KeyboardInterrupt:
        print("fsp: stopped", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
