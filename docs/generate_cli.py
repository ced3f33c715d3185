"""Writes docs/cli.md: the help page of every command, as the command line itself prints it.

python docs/generate_cli.py          write the page
python docs/generate_cli.py --check  exit 1 if the page is out of date
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
HEAD = """# The command line

Written by `make docs` from the help pages of the commands; edit those, not this page.
"""


def page() -> str:
    """The whole page. Every command is run with ``--help`` in a terminal ``WIDTH`` columns wide."""
    parts = [HEAD]
    for command, text in help_pages():
        parts.append(f"## `{' '.join(command)}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def help_pages() -> Iterator[tuple[list[str], str]]:
    """Each command's words and its help text: the program first, then commands in its order."""
    import typer.main
    from typer.testing import CliRunner

    from edgegen.cli import app

    runner = CliRunner()
    names = list(getattr(typer.main.get_command(app), "commands", {}))
    for words in [[], *[[name] for name in names]]:
        result = runner.invoke(app, [*words, "--help"], prog_name="edgegen")
        if result.exit_code != 0:
            raise SystemExit(f"edgegen {' '.join(words)} --help: {result.output}")
        lines = [line.rstrip() for line in result.output.strip("\n").splitlines()]
        yield ["edgegen", *words], "\n".join(lines).strip("\n")


def main(arguments: list[str]) -> int:
    """Write or check the page; the exit status."""
    # typer and rich read these when imported: the page must not depend on the terminal.
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        os.environ.pop(name, None)
    os.environ.update(
        {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    )
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE.name} is out of date: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
