"""Index the standard library of the running interpreter, serially and with a pool.

Every ``.py`` file below ``sysconfig.get_path('stdlib')`` is parsed with `ast`; for each one the
script counts lines, functions and classes and finds the deepest nesting. It prints the ten
largest modules, the totals, and the time taken serially and with ``libpool.Pool``, and checks
that both gave the same answer. ``site-packages`` and ``dist-packages`` lie below that folder on
some systems and are left out: what was installed there is not the standard library.

How the two times are made comparable: both runs call the same function on the same files in the
same order, all files are read once beforehand so that both find them in the page cache, both
begin after a garbage collection and run with the collector on, and the pool's time includes
making the pool and closing it.

The exit code is 0 when both runs agree and 1 when they do not.
"""

from __future__ import annotations

import argparse
import ast
import gc
import os
import platform
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import libpool

NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}

T = TypeVar("T")


class ModuleIndex(NamedTuple):
    """What the index knows about one file. `error` is empty for a file that parses."""

    name: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    nesting: int = 0
    error: str = ""


def find_modules(root: Path) -> list[str]:
    """List the ``.py`` files below `root`, largest first.

    Parameters
    ----------
    root : Path
        The folder to walk. Symbolic links to folders are not followed.

    Returns
    -------
    list of str
        Names relative to `root`. Largest first, because the job that starts last should be short:
        a long one would leave the other workers without work at the end.
    """
    sizes: dict[str, int] = {}
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in NOT_THE_LIBRARY]
        for file in files:
            path = Path(folder, file)
            if path.suffix == ".py" and path.is_file():
                sizes[path.relative_to(root).as_posix()] = path.stat().st_size
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def blocks_of(statement: ast.stmt) -> Iterator[tuple[list[ast.stmt], bool]]:
    """Yield the blocks of statements inside `statement`, each with whether it is nested deeper.

    The one that is not deeper is the ``if`` that stands for an ``elif``.
    """
    for field in ("body", "orelse", "finalbody"):
        block: list[ast.stmt] = getattr(statement, field, [])
        if block:
            chained = field == "orelse" and isinstance(statement, ast.If) and len(block) == 1
            is_elif = (
                chained
                and isinstance(block[0], ast.If)
                and block[0].col_offset == statement.col_offset
            )
            yield block, not is_elif
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body, True


def index_module(root: str, name: str) -> ModuleIndex:
    """Parse one file and count what is in it. This is the job that the pool runs.

    Parameters
    ----------
    root, name : str
        The folder, and the file relative to it.

    Returns
    -------
    ModuleIndex
        With `error` set, and only the lines counted, if the file can't be parsed (the standard
        library ships such files as test data: Python 2 code, wrong encodings).
    """
    source = Path(root, name).read_bytes()
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape sequence in test data
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        return ModuleIndex(name, lines, error=f"{type(error).__name__}: {reason}")

    functions = classes = nesting = 0
    waiting: list[tuple[list[ast.stmt], int]] = [(tree.body, 0)]
    while waiting:
        block, depth = waiting.pop()
        nesting = max(nesting, depth)
        for statement in block:
            functions += isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
            classes += isinstance(statement, ast.ClassDef)
            for inner, deeper in blocks_of(statement):
                waiting.append((inner, depth + deeper))
    return ModuleIndex(name, lines, functions, classes, nesting)


def progress(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """Show a progress bar if stderr is a terminal and tqdm is installed."""
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[T] = tqdm(items, what, total, leave=False, unit="file")
    return bar


def warm_page_cache(root: str, names: Sequence[str]) -> int:
    """Read every file once. Returns the number of bytes."""
    return sum(len(Path(root, name).read_bytes()) for name in progress(names, len(names), "read"))


def index_serially(root: str, names: Sequence[str]) -> tuple[list[ModuleIndex], float]:
    """Index all files in this process. Returns the index and the seconds taken."""
    gc.collect()
    start = time.perf_counter()
    index = [index_module(root, name) for name in progress(names, len(names), "serial")]
    return index, time.perf_counter() - start


def index_with_pool(
    root: str, names: Sequence[str], workers: int | None
) -> tuple[list[ModuleIndex], float]:
    """Index all files with a pool, one job for each. Returns the index and the seconds taken."""
    gc.collect()
    start = time.perf_counter()
    with libpool.Pool(workers) as pool:
        futures = [pool.submit(index_module, root, name) for name in names]
        index = [future.result() for future in progress(futures, len(names), "pool")]
    return index, time.perf_counter() - start


def print_index(index: Sequence[ModuleIndex]) -> None:
    """Print the ten largest modules, the totals, and the files that did not parse."""
    parsed = [module for module in index if not module.error]
    print(f"{'lines':>10}{'functions':>11}{'classes':>9}{'nesting':>9}  module")
    for module in sorted(parsed, key=lambda module: (-module.lines, module.name))[:10]:
        print(
            f"{module.lines:>10,}{module.functions:>11,}{module.classes:>9,}"
            f"{module.nesting:>9}  {module.name}"
        )
    print(
        f"{sum(module.lines for module in parsed):>10,}"
        f"{sum(module.functions for module in parsed):>11,}"
        f"{sum(module.classes for module in parsed):>9,}"
        f"{max((module.nesting for module in parsed), default=0):>9}"
        f"  all {len(parsed):,} modules that parse"
    )
    failed = [module for module in index if module.error]
    if failed:
        print(f"\n{len(failed)} files do not parse (test data, most likely):")
        for module in sorted(failed)[:5]:
            print(f"  {module.name}: {module.error}")
        if len(failed) > 5:
            print(f"  and {len(failed) - 5} more")


def positive(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Index the standard library serially and with libpool, and compare."
    )
    parser.add_argument(
        "--workers", type=positive, help="worker processes (default: one for each usable core)"
    )
    parser.add_argument("--limit", type=positive, help="index only the LIMIT largest files")
    options = parser.parse_args(arguments)

    workers = options.workers or libpool.cpu_count()
    root = sysconfig.get_path("stdlib")
    names = find_modules(Path(root))[: options.limit]
    size = warm_page_cache(root, names)
    print(
        f"Standard library of {platform.python_implementation()} {platform.python_version()}: "
        f"{len(names):,} files, {size / 1e6:.1f} MB\n"
    )

    serial_index, serial_seconds = index_serially(root, names)
    pool_index, pool_seconds = index_with_pool(root, names, workers)
    same = serial_index == pool_index

    print_index(pool_index)
    with_pool = f"{workers} worker{'s' if workers > 1 else ''}"
    print(f"\n{'serially':<16}{serial_seconds:>8.2f} s")
    print(f"{with_pool:<16}{pool_seconds:>8.2f} s")
    print(f"{'speed-up':<16}{serial_seconds / pool_seconds:>8.2f}")
    print(f"{'same answer':<16}{'yes' if same else 'NO':>8}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
