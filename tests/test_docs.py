"""The documentation is true: links lead somewhere, blocks run, generated pages are fresh."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The fragments a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    dead: list[str] = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        place, _, fragment = link.partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            dead.append(link)
    assert not dead, dead


def test_every_page_of_the_documentation_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES if page.parent.name == "docs"]
    missing = [name for name in missing if f"docs/{name}" not in readme]
    assert not missing, missing


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\nmake test " in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["cli", "devices", "families"])
def test_a_generated_page_is_what_the_commands_and_tables_say(page: str) -> None:
    script = ROOT / "docs" / f"generate_{page}.py"
    result = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def run_block(language: str, code: str, folder: Path) -> None:
    """Run a block in ``folder`` as a reader would, with this environment's programs first."""
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": programs + os.pathsep + os.environ["PATH"]}
    command = [sys.executable, "-c", code] if language == "python" else ["sh", "-euc", code]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"


def test_the_blocks_of_the_extension_guide_run_in_order(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "extend.md").read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} == {"python"}
    run_block("python", "\n".join(code for _, code in blocks), tmp_path)


@pytest.mark.real
def test_the_blocks_of_the_quickstart_and_of_beams_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear friend,\n\nIt is late. We walk home.\n")
    for name in ("quickstart", "beams"):
        blocks = BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
        assert {language for language, _ in blocks} <= {"sh", "python", "text"}
        for language, code in blocks:
            if language != "text":  # what a command prints
                run_block(language, code, tmp_path)
    assert (tmp_path / "bundles" / "en-pt" / "edgegen.json").is_file()
