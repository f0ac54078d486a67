"""`python -m fsp_dynamics`: the command line."""

from fsp_dynamics.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
