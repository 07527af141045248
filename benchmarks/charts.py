"""The charts of docs/performance.md: what is measured for them, and how they are drawn.

Each point is the median over the rounds. A round measures every pool once, in an order that rotates
from round to round. The band around a line reaches from the lowest to the highest round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from contenders import LIBPOOL, MULTIPROCESSING, PROCESSES, THREADS, Contender, warmed
from harness import Options, bar, check
from jobs import f, spin

CONTENDERS = (LIBPOOL, THREADS, MULTIPROCESSING, PROCESSES)
COLOURS = {"libpool": "#c1121f", "ideal": "#888888"}
OTHERS = ("#1d4e89", "#2a9d8f", "#e09f3e", "#6a4c93")

SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
WORKERS = (1, 2, 4, 8, 16, 32, 64)

LONG_ENOUGH = 0.1
"""Seconds for one sample, roughly."""


@dataclass(frozen=True)
class Chart:
    """What one chart shows.

    Attributes
    ----------
    name : str
        Of its file.
    title, x_label, y_label : str
        As drawn.
    points : tuple of float
        Where it is measured.
    measure : callable
        One sample: of a contender at a point.
    ideal : callable, optional
        The best that there can be at a point, given the number of workers.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    points: tuple[float, ...]
    measure: Callable[[Contender, Options, float], float]
    ideal: Callable[[float, int], float] | None = None


def trip(contender: Contender, options: Options, size: float) -> float:
    """Median time of a round trip of so many bytes, there and back."""
    data = b"x" * int(size)
    with warmed(contender, options.workers, f) as session:
        check(session.call(f, data), data, contender.name)
        estimate = statistics.median(session.round_trips(f, data, 5))
        count = max(3, min(options.count(2000), int(LONG_ENOUGH / estimate)))
        return statistics.median(session.round_trips(f, data, count))


def jobs_of_length(contender: Contender, options: Options, seconds: float) -> float:
    """Jobs per second, of jobs that keep a core busy for so long."""
    count = options.count(int(min(10_000, max(40, 4 * LONG_ENOUGH / seconds))))
    with warmed(contender, options.workers, f) as session:
        arguments = [(seconds,)] * count
        start = perf_counter()
        answer = session.burst(spin, arguments)
        elapsed = perf_counter() - start
    check(answer, [seconds] * count, contender.name)
    return count / elapsed


def jobs_by_workers(contender: Contender, options: Options, workers: float) -> float:
    """Jobs per second, of jobs that do nothing, with so many workers."""
    count = options.count(5000)
    with warmed(contender, int(workers), f) as session:
        start = perf_counter()
        answer = session.numbers(f, count)
        elapsed = perf_counter() - start
    check(answer, list(range(count)), contender.name)
    return count / elapsed


CHARTS = (
    Chart(
        "latency-payload",
        "One round trip: submit(f, data).result(), the data returned",
        "bytes",
        "seconds",
        SIZES,
        trip,
    ),
    Chart(
        "throughput-workers",
        "5,000 submits of a job that does nothing, then all results",
        "workers",
        "jobs per second",
        WORKERS,
        jobs_by_workers,
    ),
    Chart(
        "throughput-length",
        "Jobs that keep a core busy, submitted at once",
        "seconds that a job takes",
        "jobs per second",
        LENGTHS,
        jobs_of_length,
        ideal=lambda seconds, workers: workers / seconds,
    ),
)


def measured(options: Options) -> Iterator[dict[str, Any]]:
    """Measure each chart: its name, its points, and for each pool the samples at each."""
    for chart in CHARTS:
        series: dict[str, list[list[float]]] = {each.name: [] for each in CONTENDERS}
        for point in _shown(chart):
            for contender in CONTENDERS:
                series[contender.name].append([])
            for turn in range(options.rounds):
                first = turn % len(CONTENDERS)
                for contender in CONTENDERS[first:] + CONTENDERS[:first]:
                    sample = chart.measure(contender, options, point)
                    series[contender.name][-1].append(sample)
        yield {"name": chart.name, "points": chart.points, "series": series}


def _shown(chart: Chart) -> Iterable[float]:
    return bar(chart.points, chart.name)


def draw(data: dict[str, Any], workers: int, folder: Path) -> Path:
    """Draw one chart from what `measured` gave. Returns the file that it wrote."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": data["name"]})
    from matplotlib import pyplot

    (chart,) = (each for each in CHARTS if each.name == data["name"])
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    others = iter(OTHERS)
    for name, samples in data["series"].items():
        colour = COLOURS.get(name) or next(others)
        middle = [statistics.median(each) for each in samples]
        axes.plot(data["points"], middle, marker="o", markersize=4, color=colour, label=name)
        low, high = [min(each) for each in samples], [max(each) for each in samples]
        axes.fill_between(data["points"], low, high, color=colour, alpha=0.15, linewidth=0)
    if chart.ideal is not None:
        best = [chart.ideal(point, workers) for point in data["points"]]
        axes.plot(data["points"], best, linestyle="--", color=COLOURS["ideal"], label="ideal")
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    axes.set(xscale="log", yscale="log")
    if chart.points == WORKERS:
        axes.set_xscale("log", base=2)
        axes.set_xticks(WORKERS, [str(each) for each in WORKERS])
    axes.grid(which="major", alpha=0.3)
    figure.legend(frameon=False, loc="outside right upper")  # on no line
    file = folder / f"performance-{chart.name}.svg"
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    # A line that ends in a blank is what its SVG writer makes, and what reviews complain about.
    file.write_text("".join(f"{line.rstrip()}\n" for line in file.read_text().splitlines()))
    return file
