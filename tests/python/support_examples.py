"""Code blocks of Markdown pages, and what they promise to print."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|needs): (?P<what>.*?) -->\n)?"
    r"```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language that can run here.

    A comment in the line before a block says what it ``needs``, a Python module, or why it is
    ``not run``.
    """
    return [
        match["code"]
        for match in _BLOCK.finditer(page.read_text())
        if match["language"] == language and _can_run(match["mark"], match["what"])
    ]


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks: a C++ lambda looks like a link."""
    return _BLOCK.sub("", page.read_text())


def marked(page: Path) -> list[str]:
    """Return the reasons for which Python blocks of a page are never run."""
    found = _BLOCK.finditer(page.read_text())
    return [m["what"] for m in found if m["mark"] == "not run" and m["language"] == "python"]


def _can_run(mark: str | None, what: str | None) -> bool:
    if mark == "needs":
        return importlib.util.find_spec(str(what)) is not None
    return mark is None


def promised(code: str) -> list[str]:
    """Return what the code says that it prints: ``# prints X`` or ``/* prints X */``."""
    return re.findall(r"(?:#|/\*) prints (.*?)(?: \*/)?$", code, re.MULTILINE)


def run(*command: object, folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a folder for at most a minute, with `text` as its standard input."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=folder, input=text, capture_output=True, text=True, timeout=60, check=False
    )
