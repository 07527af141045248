"""Faults: what becomes of the jobs when something goes wrong, with libpool and with other pools.

    ./dev faults                        everything; writes docs/reliability.md
    ./dev faults kill segfault          some faults, which are printed only
    ./dev faults --pools libpool.Pool   some pools
    ./dev faults --json faults.json     with all details

Each fault happens in a program of its own, which is watched from outside, and is killed with all
its processes when it hangs. The exit code is 0 whatever was observed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import report
from catalogue import FAULTS, Fault
from observer import Observation, observe
from pools import SUBJECTS, installed

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PR_SET_CHILD_SUBREAPER = 36


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./dev faults",
        description="Compare what pools do when something goes wrong.",
        epilog=f"faults: {', '.join(FAULTS)}; pools: {', '.join(SUBJECTS)}",
    )
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="default: all of them")
    parser.add_argument("--pools", metavar="NAME,...", help="default: all of them")
    parser.add_argument("--runs", type=int, default=3, help="of each fault (default: 3)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="until a job has never ended (default: 10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all observations to FILE")
    parser.add_argument(
        "--print", action="store_true", help="leave the document as it is, also after a full run"
    )
    options = parser.parse_args(arguments)
    options.pools = options.pools.split(",") if options.pools else list(SUBJECTS)
    options.faults = options.faults or list(FAULTS)
    for names, known in ((options.faults, FAULTS), (options.pools, SUBJECTS)):
        unknown = sorted(set(names) - set(known))
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)} (there are: {', '.join(known)})")
    if options.runs < 1 or options.seconds <= 0:
        parser.error("--runs and --seconds must be more than 0")
    return options


def adopt_orphans() -> None:
    """Become the parent of all processes whose parent dies, so that none stays as a zombie."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """Show a progress bar if stderr is a terminal and tqdm is installed."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            with tqdm(total=total, leave=False) as bar:
                yield lambda what: (bar.set_description(what), bar.update())
            return
    yield lambda what: None


def observe_all(options: argparse.Namespace) -> Iterator[tuple[Fault, str, list[Observation]]]:
    """Yield the observations of each fault and pool, as they come."""
    present = [name for name in options.pools if installed(name)]
    with progress(len(options.faults) * len(present) * options.runs) as step:
        for name in options.faults:
            for pool in options.pools:
                seen = []
                for _ in range(options.runs if pool in present else 0):
                    step(f"{name}, {pool}")
                    seen.append(observe(FAULTS[name], pool, options.seconds))
                yield FAULTS[name], pool, seen


def say(line: str) -> None:
    """Print a line, above the progress bar if one is shown."""
    if sys.stderr.isatty() and "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line)
    else:
        print(line, flush=True)


def write_json(file: Path, options: argparse.Namespace, seen: Iterable[Observation]) -> None:
    """Write everything that was observed."""
    content = {
        "about": report.about(),
        "seconds": options.seconds,
        "observations": [asdict(each) for each in seen],
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults. Returns the exit code."""
    options = parse(arguments)
    adopt_orphans()
    cells: report.Cells = {}
    everything: list[Observation] = []
    for fault, pool, seen in observe_all(options):
        cell = report.merged([report.cell_of(each) for each in seen]) or report.NOT_INSTALLED
        cells[fault.name, pool] = cell
        everything += seen
        say(f"{fault.name:15} {pool:21} {cell}")
        if options.json is not None:  # every time: an interrupted run keeps what it has
            write_json(options.json, options, everything)

    part = report.document_part(cells, options.runs, options.seconds)
    complete = len(cells) == len(FAULTS) * len(SUBJECTS)
    if complete and not options.print:
        DOCUMENT.write_text(report.replaced(DOCUMENT.read_text(), part))
        print(f"written to {DOCUMENT.relative_to(DOCUMENT.parents[1])}")
    else:
        print(f"\n{part}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
