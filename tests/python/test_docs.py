"""The code of the pages in docs/ runs as it stands there and prints what it says."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from support_examples import ROOT, blocks, marked, promised, prose, run

DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", DOCS / "tutorial.md"] + [
    page
    for folder in ("howto", "migration")
    for page in sorted((DOCS / folder).glob("*.md"))
    if page.name != "cpp.md"  # tests/cxx/documented.py runs what is there
]

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(DOCS).with_suffix("")) for page in PAGES]
)

# As a notebook does: each block by itself in __main__, which has no file.
CELLS = """
import json, sys
cells = json.load(sys.stdin)
for number, cell in enumerate(cells, 1):
    exec(compile(cell, f"<cell {number}>", "exec"), vars(sys.modules["__main__"]))
"""

THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def program(page: Path) -> tuple[str, list[str]]:
    """Return the page's blocks as one program, and what it is to print."""
    found = blocks(page, "python")
    assert found, f"{page.name} has no Python code"
    code = "\n\n".join(found)
    assert promised(code)
    return code, promised(code)


@every_page
def test_the_pages_code_runs_as_a_script(page: Path, tmp_path: Path) -> None:
    code, output = program(page)
    script = tmp_path / "example.py"
    script.write_text(code)
    finished = run(sys.executable, "-u", script, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == output


@every_page
def test_the_pages_code_runs_in_cells(page: Path, tmp_path: Path) -> None:
    _, output = program(page)
    cells = json.dumps(blocks(page, "python"))
    finished = run(sys.executable, "-u", "-c", CELLS, folder=tmp_path, text=cells)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == output


def test_the_tutorial_runs_in_a_notebook_whose_process_has_threads(tmp_path: Path) -> None:
    page = DOCS / "tutorial.md"
    cells = json.dumps(blocks(page, "python"))
    finished = run(sys.executable, "-u", "-c", THREAD + CELLS, folder=tmp_path, text=cells)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == program(page)[1]


def test_the_tutorial_can_be_typed_into_the_prompt(tmp_path: Path) -> None:
    code, output = program(DOCS / "tutorial.md")
    finished = run(sys.executable, "-i", "-q", "-u", "-", folder=tmp_path, text=code + "\n")
    assert "Error" not in finished.stderr
    assert finished.stdout.splitlines() == output


@every_page
def test_a_page_begins_with_a_program_of_its_own(page: Path, tmp_path: Path) -> None:
    first = blocks(page, "python")[0]
    script = tmp_path / "example.py"
    script.write_text(first)
    finished = run(sys.executable, "-u", script, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert promised(first)
    assert finished.stdout.splitlines() == promised(first)


def test_the_types_that_the_page_asserts_are_those_that_mypy_finds(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "example.py"
    script.write_text(program(DOCS / "howto" / "types.md")[0])
    strict = ("--strict", "--config-file", os.devnull, "--cache-dir", tmp_path / "cache")
    checked = run(sys.executable, "-m", "mypy", *strict, script, folder=tmp_path)
    assert checked.returncode == 0, checked.stdout


def test_few_blocks_are_not_run() -> None:
    assert sum(len(marked(page)) for page in PAGES) <= 3


def test_links_lead_to_files_and_headings() -> None:
    missing = []
    for page in sorted(DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            name, _, _ = target.partition("#")
            if "://" not in target and name and not (page.parent / name).exists():
                missing.append(f"{page.relative_to(DOCS)}: {target}")
    assert missing == []
