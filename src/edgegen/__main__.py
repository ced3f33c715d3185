"""``python -m edgegen``: the command line."""

from edgegen.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
