"""`python bench/peers`: the folder run as a program imports the package it is."""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    raise SystemExit(import_module("peers.command").main())
