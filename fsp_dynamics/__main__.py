"""`fsp` and `python -m fsp_dynamics`: the command line."""

from __future__ import annotations

from fsp_dynamics import streams


def main() -> int:
    """Run one command and return its exit code. Ctrl-C while the command line is still being
    loaded is one line too.
    """
    streams.open_missing()
    try:
        from fsp_dynamics.cli import main as run
    except KeyboardInterrupt:
        print("fsp: stopped", file=streams.stderr())
        return 130
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
