"""Benchmarks: libpool against the pools that people use, in turn, in the same process.

    ./dev bench                         everything
    ./dev bench latency throughput      some families
    ./dev bench --json results.json     every sample, to keep

The figures that count are the ratios; absolute times depend on the machine and the minute. The
exit code is 0 whether or not targets are met: on a machine that does something else as well, a
missed target proves nothing. It is 1 if a pool gave a wrong answer or failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import arrays
import latency
import mapping
import memory
import native
import payload
import replacement
import startup
import throughput
from harness import Options, Row, Skipped, table

import libpool

FAMILIES: dict[str, Callable[[Options], Iterator[Row | Skipped]]] = {
    "latency": latency.rows,
    "arrays": arrays.rows,
    "throughput": throughput.rows,
    "map": mapping.rows,
    "startup": startup.rows,
    "payload": payload.rows,
    "memory": memory.rows,
    "replacement": replacement.rows,
    "native": native.rows,
}


def positive(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def parse(arguments: Sequence[str] | None) -> tuple[list[str], Options, Path | None]:
    """Read the command line: the families, what holds for all, and the file for the samples."""
    parser = argparse.ArgumentParser(
        description="Compare libpool with other pools.", epilog=f"families: {', '.join(FAMILIES)}"
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default: all of them")
    parser.add_argument("--rounds", type=positive, default=5, help="default and least sensible: 5")
    parser.add_argument("--workers", type=positive, default=2, help="for every pool (default: 2)")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the jobs: to see that everything works"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    parsed = parser.parse_args(arguments)
    unknown = sorted(set(parsed.families) - set(FAMILIES))
    if unknown:
        parser.error(f"no such family: {', '.join(unknown)} (there are: {', '.join(FAMILIES)})")
    options = Options(parsed.rounds, parsed.workers, parsed.quick)
    return parsed.families or list(FAMILIES), options, parsed.json


def about() -> dict[str, object]:
    """What a reader of the figures has to know about this machine."""
    return {
        "libpool": libpool.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen families. Returns the exit code."""
    families, options, file = parse(arguments)
    print(", ".join(f"{name} {value}" for name, value in about().items()), end="; ")
    print(f"{options.workers} workers, {options.rounds} rounds")
    if options.rounds < 5 or options.quick:
        print("Too few rounds or jobs for figures to rely on.")
    print("Medians; ± half the range; ratio of the medians (range over rounds): more is better.")

    results = []
    for family in families:
        measured: list[Row] = []
        for line in table(_kept(FAMILIES[family](options), measured)):
            print(line, flush=True)
        results += [row.as_json(family) for row in measured]
        if file is not None:  # after every family: an interrupted run keeps what it has
            content = {"about": about(), "options": vars(options), "rows": results}
            file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def _kept(rows: Iterator[Row | Skipped], measured: list[Row]) -> Iterator[Row | Skipped]:
    """Pass the rows through, and keep those that were measured."""
    for row in rows:
        if isinstance(row, Row):
            measured.append(row)
        yield row


if __name__ == "__main__":
    sys.exit(main())
