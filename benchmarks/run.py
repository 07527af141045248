"""Benchmarks: libpool against the pools that people use, in turn, in the same process.

    ./dev bench                         everything
    ./dev bench latency throughput      some families
    ./dev bench --json results.json     every sample, to keep
    ./dev bench --plot                  also the charts, and the tables of docs/performance.md
    ./dev bench --plot charts latency   only these anew, the rest as it was

The figures that count are the ratios; absolute times depend on the machine and the minute. The
exit code is 0 whether or not targets are met: on a machine that does something else as well, a
missed target proves nothing. It is 1 if a pool gave a wrong answer or failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arrays
import charts
import compute
import document
import latency
import mapping
import memory
import native
import neighbours
import payload
import replacement
import scale
import startup
import throughput
from contenders import versions
from harness import Options, Row, Skipped, table

import libpool

FAMILIES: dict[str, Callable[[Options], Iterator[Row | Skipped]]] = {
    "latency": latency.rows,
    "throughput": throughput.rows,
    "map": mapping.rows,
    "arrays": arrays.rows,
    "payload": payload.rows,
    "startup": startup.rows,
    "compute": compute.rows,
    "scale": scale.rows,
    "native": native.rows,
    "memory": memory.rows,
    "replacement": replacement.rows,
    "neighbours": neighbours.rows,
}
CHARTS = "charts"


@dataclass(frozen=True)
class Request:
    """What the command line asks for: families, what holds for all of them, and what to write."""

    families: list[str]
    options: Options
    json: Path | None
    plot: bool


def positive(text: str) -> int:
    """Read a whole number of at least 1 from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def parse(arguments: Sequence[str] | None) -> Request:
    """Read the command line."""
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
    parser.add_argument(
        "--plot",
        action="store_true",
        help=f"write what was measured to docs/, with charts; as a family these are {CHARTS!r}",
    )
    parsed = parser.parse_args(arguments)
    known = [*FAMILIES, *([CHARTS] if parsed.plot else [])]
    unknown = sorted(set(parsed.families) - set(known))
    if unknown:
        parser.error(f"no such family: {', '.join(unknown)} (there are: {', '.join(known)})")
    options = Options(parsed.rounds, parsed.workers, parsed.quick)
    return Request(parsed.families or known, options, parsed.json, parsed.plot)


def about() -> dict[str, Any]:
    """What a reader of the figures has to know about this machine, and when it was."""
    return {
        "libpool": libpool.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "kernel": platform.release().split("-")[0],
        "load": f"{os.getloadavg()[0]:.1f}",
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Return the processor's name, or at least its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def run_family(name: str, options: Options) -> tuple[list[Row], list[Skipped]]:
    """Run one family and print its table as it comes."""
    measured: list[Row] = []
    skipped: list[Skipped] = []

    def noted() -> Iterator[Row | Skipped]:
        for row in FAMILIES[name](options):
            if isinstance(row, Row):
                measured.append(row)
            else:
                skipped.append(row)
            yield row

    for line in table(noted()):
        print(line, flush=True)
    return measured, skipped


def run_charts(options: Options) -> list[dict[str, Any]]:
    """Measure what the charts show."""
    measured = []
    for chart in charts.measured(options):
        print(f"\nmeasured for the chart: {chart['name']}", flush=True)
        measured.append(chart)
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. Returns the exit code."""
    request = parse(arguments)
    options = request.options
    print(", ".join(f"{name} {value}" for name, value in about().items()), end="; ")
    print(f"{options.workers} workers, {options.rounds} rounds")
    if options.rounds < 5 or options.quick:
        print("Too few rounds or jobs for figures to rely on.")
    print("Medians; ± half the range; ratio of the medians (range over rounds): more is better.")

    results: list[dict[str, Any]] = []
    written: list[Path] = []
    kept = document.load()
    for name in request.families:
        circumstances = {"about": {**about(), "versions": versions()}, "options": vars(options)}
        if name == CHARTS:
            kept[CHARTS] = {**circumstances, "measured": run_charts(options)}
        else:
            measured, skipped = run_family(name, options)
            rows = [row.as_json(name) for row in measured]
            reasons = list(dict.fromkeys(each.reason for each in skipped))
            kept["families"][name] = {**circumstances, "rows": rows, "skipped": reasons}
            results += rows
        # After every family: an interrupted run keeps what it has.
        if request.json is not None:
            content = {**circumstances, "rows": results}
            request.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        if request.plot:
            order = [each for each in FAMILIES if each in kept["families"]]
            kept["families"] = {each: kept["families"][each] for each in order}
            document.keep(kept)
            written = document.write(document.load())
    for file in written:
        print(f"wrote docs/{file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
