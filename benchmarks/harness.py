"""What the benchmark families share: rounds, medians, targets, the table.

A *row* compares libpool with one peer. A round measures both, one after the other, and the order
alternates from round to round. Nothing is compared with a figure from another run: speeds of a
machine drift within minutes, ratios taken in turn do not.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What the command line says about all families."""

    rounds: int = 5
    workers: int = 2
    quick: bool = False

    def count(self, number: int) -> int:
        """Scale a number of jobs: a tenth of it in a quick run, at least 1."""
        return max(1, number // 10) if self.quick else number


@dataclass(frozen=True)
class Target:
    """The ratio that a row should reach at least, and the one that is aimed at."""

    at_least: float
    aim: float | None = None

    def judge(self, ratio: float) -> str:
        """Say which of the two `ratio` meets."""
        return _judge("≥", (self.at_least, self.aim), ratio.__ge__, lambda x: f"{x:.3g}×")


@dataclass(frozen=True)
class Limit:
    """The most that libpool's own figure should be, in the row's unit, and what is aimed at."""

    at_most: float
    aim: float | None = None

    def judge(self, value: float, unit: str) -> str:
        """Say which of the two `value` meets."""
        return _judge("≤", (self.at_most, self.aim), value.__le__, lambda x: format_value(x, unit))


def _judge(
    sign: str,
    wanted: tuple[float, float | None],
    meets: Callable[[float], bool],
    shown: Callable[[float], str],
) -> str:
    target, aim = wanted
    text = f"target {sign}{shown(target)}: {'met' if meets(target) else 'NOT MET'}"
    if aim is not None:
        text += f", aim {shown(aim)}: {'met' if meets(aim) else 'not met'}"
    return text


@dataclass
class Row:
    """One comparison: the samples of both sides, one for each round. Less is better.

    Attributes
    ----------
    what : str
        What was measured.
    peer : str
        What libpool was compared with; empty where a figure stands for itself.
    unit : {"s", "B"}
        Seconds, or bytes.
    target : Target, optional
        For the ratio of the medians, peer / libpool.
    limit : Limit, optional
        For libpool's own median.
    """

    what: str
    peer: str = ""
    unit: str = "s"
    target: Target | None = None
    limit: Limit | None = None
    peer_samples: list[float] = field(default_factory=list)
    libpool_samples: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times less libpool takes: median of the peer / median of libpool."""
        if not self.peer_samples:
            return None
        own = statistics.median(self.libpool_samples)
        return statistics.median(self.peer_samples) / own if own > 0 else float("inf")

    @property
    def ratio_range(self) -> tuple[float, float] | None:
        """The lowest and the highest ratio of a single round."""
        pairs = zip(self.peer_samples, self.libpool_samples, strict=False)
        ratios = [peer / own if own > 0 else float("inf") for peer, own in pairs]
        return (min(ratios), max(ratios)) if ratios else None

    @property
    def verdict(self) -> str:
        """The target and whether it is met; empty where there is none."""
        if self.target is not None and self.ratio is not None:
            return self.target.judge(self.ratio)
        if self.limit is not None:
            return self.limit.judge(statistics.median(self.libpool_samples), self.unit)
        return ""

    def as_json(self, family: str) -> dict[str, Any]:
        """Everything about this row as plain values, samples included."""
        return {
            "family": family,
            "what": self.what,
            "peer": self.peer or None,
            "unit": self.unit,
            "peer_median": statistics.median(self.peer_samples) if self.peer_samples else None,
            "libpool_median": statistics.median(self.libpool_samples),
            "ratio": self.ratio,
            "ratio_range": self.ratio_range,
            "target": self.verdict or None,
            "peer_samples": self.peer_samples,
            "libpool_samples": self.libpool_samples,
        }


@dataclass(frozen=True)
class Skipped:
    """Something that was not measured, and why."""

    what: str
    reason: str


def alternate(
    row: Row,
    measure_peer: Callable[[], float],
    measure_libpool: Callable[[], float],
    rounds: int,
) -> Row:
    """Fill in the samples of `row`, one of each side a round, in alternating order."""
    for turn in bar(range(rounds), f"{row.what}, {row.peer}"):
        if turn % 2 == 0:
            row.peer_samples.append(measure_peer())
            row.libpool_samples.append(measure_libpool())
        else:
            row.libpool_samples.append(measure_libpool())
            row.peer_samples.append(measure_peer())
    return row


def bar(items: Iterable[T], what: str) -> Iterable[T]:
    """Show a progress bar if stderr is a terminal and tqdm is installed."""
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    shown: Iterable[T] = tqdm(items, what, leave=False)
    return shown


def say(line: str) -> None:
    """Print a line, above the progress bar if one is shown."""
    if sys.stderr.isatty() and "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line)
    else:
        print(line, flush=True)


def check(answer: object, expected: object, who: str) -> None:
    """Stop the run if a pool's answer is wrong: its speed would then mean nothing."""
    if answer != expected:
        raise RuntimeError(f"{who} gave a wrong answer")


def format_value(value: float, unit: str) -> str:
    """Write a time or a size with three digits and a fitting unit."""
    if unit == "s":
        for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if value >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value / 1e-9:.3g} ns"
    for scale, name in ((1e9, "GB"), (1e6, "MB"), (1e4, "kB")):
        if value >= scale:
            return f"{value / (1e3 if name == 'kB' else scale):.3g} {name}"
    return f"{value:.0f} B"


def format_samples(samples: list[float], unit: str) -> str:
    """Write the median, and half the distance from lowest to highest as a percentage of it."""
    if not samples:
        return ""
    median = statistics.median(samples)
    text = format_value(median, unit)
    if len(samples) > 1 and median > 0:
        text += f" ±{50 * (max(samples) - min(samples)) / median:.0f}%"
    return text


def format_ratio(row: Row) -> str:
    """Write the ratio of the medians and, in brackets, the range over the rounds."""
    if row.ratio is None or row.ratio_range is None:
        return ""
    low, high = row.ratio_range
    return f"{_number(row.ratio)}× ({_number(low)}–{_number(high)})"


def _number(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:,.0f}"


HEADINGS = ("peer", "takes", "libpool takes", "ratio", "")
WIDTHS = (22, 16, 16, 20, 0)


def table(rows: Iterable[Row | Skipped]) -> Iterator[str]:
    """Yield the lines of the table as the rows come, a heading wherever `what` changes."""
    what = None
    for row in rows:
        if row.what != what:
            what = row.what
            yield f"\n{what}"
            yield _line(HEADINGS)
        if isinstance(row, Skipped):
            yield f"  skipped: {row.reason}"
        else:
            yield _line(
                (
                    row.peer,
                    format_samples(row.peer_samples, row.unit),
                    format_samples(row.libpool_samples, row.unit),
                    format_ratio(row),
                    row.verdict,
                )
            )


def _line(cells: Iterable[str]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))
    return ("  " + " ".join(padded)).rstrip()
