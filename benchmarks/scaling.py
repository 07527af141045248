"""What the model of docs/scaling.md needs, measured, and compared with it: ``./dev scaling``.

    ./dev scaling            measure, and show
    ./dev scaling --plot     also write docs/scaling.md, docs/performance.md and the chart
    ./dev scaling --redraw   write these from docs/scaling.json, without measuring

All that is measured is the best of many repetitions: on a machine that does something else as well,
the others are about that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import model
from document import DOCS
from model import Costs, Handover, Machine
from native import build_folder
from run import about

Figures = dict[str, Any]

PLAYS = (("lone", 1), ("burst", 1), ("burst", 8))
ROUNDS = 5
LENGTHS = (0, 1_000, 10_000, 100_000)
WORKERS = (1, 2)

# ns from core to core as published for machines of this kind, see docs/scaling.md.
PUBLISHED = {
    8: (25.0, "one L3 cache"),
    16: (110.0, "chiplets of a socket"),
    32: (110.0, "chiplets of a socket"),
    64: (110.0, "chiplets of a socket"),
    128: (200.0, "two sockets"),
}

MARKS = ("<!-- begin: made by ./dev scaling --plot -->", "<!-- end: scaling -->")


# ---- Measuring ----


def run(program: str, *arguments: object) -> list[list[str]]:
    """Run one of the programs in c/: its lines, cut at tabs."""
    file = next(build_folder().rglob(f"benchmarks/c/{program}"), None)
    if file is None:
        raise RuntimeError(f"benchmarks/c/{program} has not been built")
    command = [str(file), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def measure() -> Figures:
    """Measure and count everything."""
    rounds = [measure_round() for _ in range(ROUNDS)]
    return {"about": about(), "lines": count_lines(), "rounds": rounds}


def count_lines() -> dict[str, list[list[str | float]]]:
    """Count hand-overs in each of the plays."""
    return {
        f"{play} {workers}": [
            [side, line, float(moves), float(claims), fields]
            for side, line, moves, claims, fields in run("lines", play, workers)
        ]
        for play, workers in PLAYS
    }


def measure_round() -> Figures:
    """Measure what a hand-over costs now, and what the pool does now."""
    machine: dict[str, float] = {}
    for _, _, kind, value, _ in run("machine"):
        # Of several pairs of cores the slowest decides.
        machine[kind] = max(machine.get(kind, 0.0), float(value))
    cycle = {name: float(value) for name, value in run("cycle", "burst", 1, 200_000)}
    measured = {}
    for workers in WORKERS:
        for length in LENGTHS:
            # Short enough to be left alone by others for once, among so many times.
            jobs = max(20, min(2_000, 2_000_000 // (length + 1)))
            rows = run("throughput", workers, jobs, length, 100)
            columns = ([float(each) for each in column] for column in zip(*rows))
            best = dict(zip(("burst", "alone", "drain"), map(min, columns)))
            measured[f"{workers} {length}"] = best
    return {"machine": machine, "cycle": cycle, "measured": measured}


# ---- What follows ----


def handovers(figures: Figures, play: str) -> list[Handover]:
    """Return the lines of a play."""
    return [Handover(*row) for row in figures["lines"][play]]


def costs_of(figures: Figures, turn: Figures) -> Costs:
    """Return what a job costs, by one round's clock."""
    plays = (handovers(figures, play) for play in ("lone 1", "burst 1", "burst 8"))
    return model.costs(turn["cycle"], *plays)


def machine_of(turn: Figures) -> Machine:
    """Return what this machine asked for a hand-over in a round."""
    return Machine(turn["machine"]["round trip"] / 2, turn["machine"]["streamed"])


def fastest(figures: Figures) -> Figures:
    """Return the round in which a job that does nothing took the least, on its own."""
    return min(figures["rounds"], key=lambda turn: turn["measured"]["1 0"]["alone"])


def machine_like(figures: Figures, cores: int) -> Machine:
    """Return what a machine of so many cores asks, by what is published."""
    latency, _ = PUBLISHED[cores]
    return Machine(latency, machine_of(fastest(figures)).streamed)


def compared(figures: Figures) -> list[tuple[str, float, float, float]]:
    """Return what was predicted for this machine and measured: what, from, to, measured (ns).

    Each round is compared with the prediction of that round, since neighbours on the machine, and
    where a hypervisor puts it, change what a hand-over costs. Shown is the round in the middle.
    """
    rounds = [list(_compared(figures, turn)) for turn in figures["rounds"]]
    middle = []
    for rows in zip(*rounds):
        ordered = sorted(rows, key=lambda row: _excess(*row[1:]))
        middle.append(ordered[len(ordered) // 2])
    return middle


def _compared(figures: Figures, turn: Figures) -> Iterator[tuple[str, float, float, float]]:
    cost, machine, measured = costs_of(figures, turn), machine_of(turn), turn["measured"]
    trip = model.round_trip(cost, machine)
    alone = min(measured["1 0"]["alone"], measured["2 0"]["alone"])
    yield "one job at a time, does nothing", trip, trip, alone
    best, worst = model.ring_time(cost, machine)
    yield "taking jobs that wait from the ring, 1 worker", best, best, measured["1 0"]["drain"]
    yield "taking jobs that wait from the ring, 2 workers", best, worst, measured["2 0"]["drain"]
    for key, each in measured.items():
        workers, length = map(int, key.split())
        low, high = model.throughput(cost, machine, workers, length, figures["about"]["cores"])
        what = f"many jobs of {duration(length)}" if length else "many jobs that do nothing"
        plural = "s" if workers > 1 else ""
        yield f"{what}, {workers} worker{plural}", 1e9 / high, 1e9 / low, each["burst"]


def _excess(low: float, high: float, measured: float) -> float:
    return measured / max(low, min(measured, high)) - 1


# ---- Writing ----


def duration(nanoseconds: float) -> str:
    """Write a time with two or three digits."""
    for unit, size in (("ms", 1e6), ("µs", 1e3), ("ns", 1.0)):
        if nanoseconds >= size or unit == "ns":
            return f"{nanoseconds / size:.3g} {unit}"
    raise AssertionError


def span(low: float, high: float) -> str:
    """Write a range, or one number where there is one."""
    first, last = duration(low), duration(high)
    return first if first == last else f"{first} – {last}"


def rate(low: float, high: float) -> str:
    """Write jobs per second."""
    low, high = low / 1e6, high / 1e6
    first, last = f"{low:.2g}", f"{high:.2g}"
    return f"{last} million" if first == last else f"{first} – {last} million"


def deviation(low: float, high: float, measured: float) -> str:
    """Write how far the measured time is from the range that was predicted."""
    excess = _excess(low, high, measured)
    return f"{excess:+.0%}" if excess or low == high else "within"


def lines_tables(figures: Figures) -> Iterator[str]:
    """Yield the tables of docs/performance.md: the lines that move, and what a move costs."""
    yield _circumstances(figures)
    yield ""
    trips = [turn["machine"]["round trip"] for turn in figures["rounds"]]
    yield (
        f"A cache line goes to the other core and back in **{span(min(trips), max(trips))}**, so a "
        f"hand-over takes {span(min(trips) / 2, max(trips) / 2)}. Where many lines in a row come "
        f"from the other core, each takes {_range(figures, 'streamed')}. `FUTEX_WAKE` with "
        f"somebody who sleeps takes {_range(figures, 'wake')}."
    )
    titles = {
        "lone 1": "One job at a time, the worker spins",
        "burst 1": "Many jobs, one worker",
        "burst 8": "Many jobs, 8 workers that take turns",
    }
    for play, title in titles.items():
        found = handovers(figures, play)
        total = sum(each.count for each in found)
        yield f"\n### {title}: {total:.3g} hand-overs for each job\n"
        yield "| line | what is in it | host: moves | claims | workers: moves | claims |"
        yield "|---|---|---|---|---|---|"
        for line in dict.fromkeys(each.line for each in found):
            sides = {each.side: each for each in found if each.line == line}
            fields = ", ".join(
                f"`{each}`" for each in next(iter(sides.values())).fields.split(", ")
            )
            cells = [line, fields]
            for side in ("host", "workers"):
                one = sides.get(side)
                cells += [f"{one.moves:.3g}", f"{one.claims:.3g}"] if one else ["0", "0"]
            yield f"| {' | '.join(cells)} |"


def model_tables(figures: Figures) -> Iterator[str]:
    """Yield the tables of docs/scaling.md."""
    turn = fastest(figures)
    cost, here = costs_of(figures, turn), machine_of(turn)
    yield _circumstances(figures)
    yield "\n### What a job costs\n"
    yield "| | instructions | hand-overs | on this machine |"
    yield "|---|---|---|---|"
    alone = cost.submit + cost.run + cost.collect
    trip = duration(model.round_trip(cost, here))
    near = "waited for"
    count = f"{cost.alone:.3g} {near}"
    yield f"| one job at a time, both sides | {duration(alone)} | {count} | {trip} |"
    for who, own, far, close, time in (
        ("the host", cost.submit + cost.collect, cost.host, cost.host_near, model.host_time),
        ("a worker", cost.run, cost.worker, cost.worker_near, model.worker_time),
    ):
        count = f"{far:.3g} streamed – {close:.3g} {near}"
        yield f"| many jobs, {who} | {duration(own)} | {count} | {span(*time(cost, here))} |"
    ring = span(*model.ring_time(cost, here))
    yield f"| many jobs, the ring between workers | – | up to {cost.ring:.3g} {near} | {ring} |"

    yield "\n### Predicted and measured on this machine\n"
    yield "| what | predicted, for a job | measured | measured against predicted |"
    yield "|---|---|---|---|"
    for what, low, high, measured in compared(figures):
        off = deviation(low, high, measured)
        yield f"| {what} | {span(low, high)} | {duration(measured)} | {off} |"

    yield "\n### Predicted for larger machines\n"
    yield (
        "| cores | latency of a hand-over | jobs that do nothing, a second | of 10 µs | of 100 µs "
        "| workers are busy for 90% with jobs of | |"
    )
    yield "|---|---|---|---|---|---|---|"
    for cores, (latency, why) in PUBLISHED.items():
        there = machine_like(figures, cores)
        workers = cores - 1
        cells = [f"{cores}", f"{latency:.0f} ns ({why})"]
        for length in (0, 10_000, 100_000):
            cells.append(rate(*model.throughput(cost, there, workers, length)))
        best, worst = model.enough(cost, there, workers)
        cells += [f"{duration(best)} at best", f"{duration(worst)} at worst"]
        yield f"| {' | '.join(cells)} |"


def _range(figures: Figures, kind: str) -> str:
    found = [turn["machine"][kind] for turn in figures["rounds"]]
    return span(min(found), max(found))


def _circumstances(figures: Figures) -> str:
    about = figures["about"]
    return (
        f"{about['date']}: {about['processor']}, {about['cores']} cores, Linux {about['kernel']}, "
        f"libpool {about['libpool']}; the best of many; load average {about['load']} before it."
    )


def draw(figures: Figures, folder: Path) -> Path:
    """Draw what the model predicts for jobs of some lengths. Returns the file."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scaling"})
    from matplotlib import pyplot

    cost = costs_of(figures, fastest(figures))
    cores = list(PUBLISHED)
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    colours = ("#c1121f", "#1d4e89", "#2a9d8f", "#e09f3e")
    for colour, length in zip(colours, (1_000, 10_000, 30_000, 100_000)):
        found = [
            model.throughput(cost, machine_like(figures, each), each - 1, length) for each in cores
        ]
        low, high = zip(*found)
        axes.plot(cores, low, marker="o", markersize=4, color=colour, label=duration(length))
        axes.fill_between(cores, low, high, color=colour, alpha=0.15, linewidth=0)
        ideal = [(each - 1) * 1e9 / length for each in cores]
        axes.plot(cores, ideal, linestyle="--", linewidth=0.8, color=colour)
    axes.set(title="Predicted: many jobs of one host", xlabel="cores", ylabel="jobs per second")
    axes.set(xscale="log", yscale="log", ylim=(3e4, 2e7))
    axes.set_xscale("log", base=2)
    axes.set_xticks(cores, [str(each) for each in cores])
    axes.grid(which="major", alpha=0.3)
    figure.legend(frameon=False, loc="outside right upper", title="length of a job")
    file = folder / "scaling-cores.svg"
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    # A line that ends in a blank is what its SVG writer makes, and what reviews complain about.
    file.write_text("".join(f"{line.rstrip()}\n" for line in file.read_text().splitlines()))
    return file


def write(figures: Figures, folder: Path) -> list[Path]:
    """Write the tables into both pages. Returns the files."""
    written = []
    for name, lines in (
        ("performance.md", lines_tables(figures)),
        ("scaling.md", model_tables(figures)),
    ):
        page = folder / name
        before, begin, rest = page.read_text().partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        if not begin or not end:
            raise RuntimeError(f"{name} does not have the marks between which the tables stand")
        page.write_text(before + begin + "\n\n" + "\n".join(lines) + "\n\n" + end + after)
        written.append(page)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Compare the model of docs/scaling.md with this machine."
    )
    parser.add_argument("--plot", action="store_true", help="write docs/ and the chart")
    parser.add_argument("--redraw", action="store_true", help="write them from what was measured")
    parsed = parser.parse_args(arguments)
    file = DOCS / "scaling.json"
    figures = json.loads(file.read_text()) if parsed.redraw else measure()
    for line in (*lines_tables(figures), "", *model_tables(figures)):
        print(line)
    if parsed.plot:
        file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if parsed.plot or parsed.redraw:
        for written in (draw(figures, DOCS), *write(figures, DOCS)):
            print(f"wrote docs/{written.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
