"""``python -m edgegen``: the command line."""

from edgegen.cli import process

if __name__ == "__main__":
    raise SystemExit(process())
