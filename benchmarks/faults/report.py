"""From observations to cells, and from cells to the Markdown table.

A cell is put together from what was observed: pieces of text, counts and times. The cells of
several runs of the same fault are merged where they differ in numbers only: counts as a range,
times as their median. Otherwise all are named.
"""

from __future__ import annotations

import os
import platform
import signal
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_start_method
from typing import TypeAlias

import pools
from catalogue import GROUPS, Fault
from observer import GRACE, Observation

BEGIN = "<!-- faults: begin -->"
END = "<!-- faults: end -->"

NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Seconds:
    """A time."""

    value: float


@dataclass(frozen=True)
class Count:
    """So many of something."""

    number: int
    noun: str
    plural: str = ""


Part: TypeAlias = str | Count | Seconds
Cell: TypeAlias = tuple[Part, ...]


# ---- One observation ----------------------------------------------------------------------------


def cell_of(seen: Observation) -> Cell:
    """Say what was observed."""
    offered = seen.event("not offered")
    if offered is not None:
        return (offered["cell"],)
    cell: list[Part] = []
    for clause in (*_main(seen), *_what_is_left(seen)):
        cell += [", ", *clause] if cell else clause
    return tuple(cell)


def _main(seen: Observation) -> Iterator[Cell]:
    if seen.hung_in not in (None, "close", "exit"):
        yield ("hangs",)
        return
    yield from SPECIAL.get(seen.fault, _jobs)(seen)
    after = seen.event("after")
    if after is not None and after["outcome"] != "works":
        yield ("then hangs" if after["outcome"] == "hangs" else "then unusable",)
    failed = seen.event("close failed")
    if failed is not None:
        yield (f"then {failed['by']} at its close",)
    if seen.hung_in is not None:
        yield ("then does not close" if seen.hung_in == "close" else "then does not exit",)
    elif seen.exit_code and seen.injected is None and SPECIAL.get(seen.fault) is not _exit:
        yield (_ending(seen.exit_code),)


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _jobs(seen: Observation) -> Iterator[Cell]:
    jobs = seen.event("jobs")
    if jobs is None:
        yield ("ends without any result",)
        return
    if jobs["results"] or not (jobs["errors"] or jobs["unended"]):
        yield (Count(jobs["results"], "result", "results"),)
    if jobs["wrong"]:
        yield (Count(jobs["wrong"], "wrong result", "wrong results"),)
    for name, count in sorted(jobs["errors"].items()):
        yield (Count(count, name),)
    if jobs["unended"]:
        yield (Count(jobs["unended"], "never ended"),)
    else:
        yield (Seconds(jobs["seconds"]),)


def _printed(seen: Observation) -> Iterator[Cell]:
    if seen.lines:
        yield (Count(seen.lines, "line printed", "lines printed"),)


def _what_is_left(seen: Observation) -> Iterator[Cell]:
    if seen.left:
        yield (Count(len(seen.left), "process left", "processes left"),)
    if seen.shared:
        yield (Count(len(seen.shared), "file left in /dev/shm", "files left in /dev/shm"),)
    if seen.temporary:
        yield (Count(len(seen.temporary), "temporary file left", "temporary files left"),)


# ---- Where it is not only the jobs that count


def _stop(seen: Observation) -> Iterator[Cell]:
    meanwhile, jobs = seen.event("meanwhile"), seen.event("jobs")
    if meanwhile is not None and jobs is not None:
        yield (Count(meanwhile["results"], "result meanwhile", "results meanwhile"),)
        yield (Count(jobs["results"] - meanwhile["results"], "after it"),)
        if not (jobs["errors"] or jobs["wrong"] or jobs["unended"]):
            return
    yield from _jobs(seen)


def _death(seen: Observation) -> Iterator[Cell]:
    if seen.gone_after is not None and not seen.shared:
        yield ("nothing left after ", Seconds(seen.gone_after))


def _interrupt(seen: Observation) -> Iterator[Cell]:
    interrupted = seen.event("interrupted")
    if interrupted is None or seen.injected is None:
        yield ("no KeyboardInterrupt",)
    else:
        yield (f"{interrupted['by']} after ", Seconds(interrupted["at"] - seen.injected))
    yield from _printed(seen)


def _exit(seen: Observation) -> Iterator[Cell]:
    leaving = seen.event("leaving")
    if leaving is not None and seen.ended is not None and seen.exit_code is not None:
        yield (f"{_ending(seen.exit_code)} after ", Seconds(seen.ended - leaving["at"]))
    if seen.counts.get("started"):
        yield (Count(seen.counts.get("finished", 0), "job finished", "jobs finished"),)
    yield from _printed(seen)


def _fork(seen: Observation) -> Iterator[Cell]:
    child = seen.event("child")
    if child is not None and child["code"] is None:
        yield ("the child hangs",)
    elif child is not None and child["code"]:
        yield (f"the child ends with {_ending(child['code'])}",)
    yield from _printed(seen)
    yield from _jobs(seen)


SPECIAL: dict[str, Callable[[Observation], Iterator[Cell]]] = {
    "stop": _stop,
    "host-kill": _death,
    "host-kill-idle": _death,
    "host-kill-submit": _death,
    "host-stop-kill": _death,
    "host-term": _death,
    "ctrl-c-map": _interrupt,
    "ctrl-c-result": _interrupt,
    "exit-open": _exit,
    "exit-running": _exit,
    "fork": _fork,
}


# ---- Several runs -------------------------------------------------------------------------------


def merged(cells: Sequence[Cell]) -> str:
    """Merge the cells of several runs of the same fault, the most frequent first."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(map(_kind, cell)), []).append(cell)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return "; or ".join("".join(map(_written, zip(*group))) for group in ordered)


def _kind(part: Part) -> str:
    return part.noun if isinstance(part, Count) else part if isinstance(part, str) else "seconds"


def _written(parts: tuple[Part, ...]) -> str:
    """Write the same part of several cells."""
    first = parts[0]
    if isinstance(first, str):
        return first
    if isinstance(first, Seconds):
        return format_seconds(statistics.median(x.value for x in parts if isinstance(x, Seconds)))
    numbers = [part.number for part in parts if isinstance(part, Count)]
    low, high = min(numbers), max(numbers)
    amount = f"{low}" if low == high else f"{low}–{high}"
    return f"{amount} {first.noun if high == 1 or not first.plural else first.plural}"


def format_seconds(value: float) -> str:
    """Write a time with one or two digits that matter."""
    if value >= 1:
        return f"{value:.1f} s"
    milliseconds = value * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 1 else "<1 ms"


# ---- The document -------------------------------------------------------------------------------

Cells = dict[tuple[str, str], str]
"""By fault and pool."""


def document_part(cells: Cells, runs: int, limit: float) -> str:
    """Write what stands between the markers."""
    lines = [BEGIN, "", *_how(runs, limit), ""]
    for heading, faults in GROUPS.items():
        rows = [fault for fault in faults if any(key[0] == fault.name for key in cells)]
        if rows:
            lines += [f"### {heading}", "", *table(rows, cells), ""]
            lines += [*(f"- **{fault.title}**: {fault.meaning}" for fault in rows), ""]
    return "\n".join([*lines, END])


def table(faults: Iterable[Fault], cells: Cells) -> Iterator[str]:
    """Yield the lines of one table."""
    names = [name for name in pools.SUBJECTS if any(key[1] == name for key in cells)]
    yield f"| what goes wrong | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for fault in faults:
        row = (cells.get((fault.name, name), "") for name in names)
        yield f"| {fault.title} | {' | '.join(row)} |"


def _how(runs: int, limit: float) -> Iterator[str]:
    versions = ", ".join(f"{name} {value}" for name, value in about().items())
    yield (
        f"Made with {versions}. {pools.WORKERS} workers; {runs} runs of each fault. A job that has "
        f"not ended after {limit:g} s has *never ended*; a process that is still there {GRACE:g} s "
        "after the host's end is *left*."
    )


def about() -> dict[str, str]:
    """Versions of everything that the table is about, and what else it depends on."""
    found = {
        platform.python_implementation(): platform.python_version(),
        "Linux": platform.release().split("-")[0],
        "start method": get_start_method(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    for kind in pools.SUBJECTS.values():
        if kind.requires:
            try:
                found[kind.requires] = version(kind.requires)
            except PackageNotFoundError:
                found[kind.requires] = NOT_INSTALLED
    return found


def replaced(text: str, part: str) -> str:
    """Put `part` between the markers of a document."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks {BEGIN} or {END}")
    return before + part + after
