"""Source lines of functions that are in no file: cells of notebooks, input of a REPL.

Tracebacks and warnings are made in the worker, and show the lines that `linecache` has there.
"""

from __future__ import annotations

import linecache
import os
from types import CodeType
from typing import NamedTuple

__all__ = ["Lines", "lines_of", "remember"]


class Lines(NamedTuple):
    """Some lines of one source."""

    filename: str
    first: int
    """The number of the first line, from 1."""
    lines: list[str]


def lines_of(code: CodeType) -> Lines | None:
    """The lines of a function that only this process has; None where there are none such."""
    filename = code.co_filename
    entry = linecache.cache.get(filename)
    if entry is None or len(entry) != 4 or os.path.exists(filename):
        return None
    first = code.co_firstlineno
    return Lines(filename, first, entry[2][first - 1 : _last_line(code)])


def _last_line(code: CodeType) -> int:
    numbers = [number for _, _, number in code.co_lines() if number is not None]
    numbers += [_last_line(inner) for inner in code.co_consts if isinstance(inner, CodeType)]
    return max(numbers, default=code.co_firstlineno)


def remember(found: Lines) -> None:
    """Let `linecache` have these lines."""
    filename, first, lines = found
    entry = linecache.cache.get(filename)
    known = list(entry[2]) if entry is not None and len(entry) == 4 else []
    known += ["\n"] * (first - 1 + len(lines) - len(known))
    known[first - 1 : first - 1 + len(lines)] = lines
    # No time of modification: there is no file to compare with.
    linecache.cache[filename] = sum(map(len, known)), None, known, filename
