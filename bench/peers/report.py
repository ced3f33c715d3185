"""`python bench/peers/report.py RESULTS.json`: the Markdown of results, and their plots beside it.

With `--print` nothing is written and the Markdown goes to standard output.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a program: the package is the folder's parent's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
if TYPE_CHECKING:
    from peers.record import Results


def write(results: Results, stem: Path) -> list[Path]:
    """Files beside ``stem``, with their suffixes."""
    from peers.plot import draw
    from peers.tables import markdown

    text = stem.with_suffix(".md")
    text.write_text(markdown(results), encoding="utf-8")
    return [text, *draw(results, stem)]


def main() -> int:
    from peers.record import Results
    from peers.tables import markdown

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="one file, or parts of one table")
    parser.add_argument("--print", action="store_true", dest="show", help="write nothing")
    asked = parser.parse_args()
    parts = [Results.load(path) for path in asked.results]
    whole = Results(
        created=parts[0].created,
        quick=any(part.quick for part in parts),
        machine=parts[0].machine,
        works=tuple(work for part in parts for work in part.works),
    )
    if asked.show:
        print(markdown(whole), end="")
        return 0
    for path in write(whole, asked.results[0].with_suffix("")):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
