"""Many more workers than cores: what those cost that have nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from contenders import LIBPOOL, MULTIPROCESSING, PROCESSES
from harness import Options, Row, Skipped, Target, alternate
from throughput import JOBS, measure_numbers

MANY, FEW = 64, 2


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare libpool with itself, and with other pools of as many workers."""
    count = options.count(JOBS)
    many, few = Options(options.rounds, MANY), Options(options.rounds, FEW)
    what = f"{count:,} × submit(f, i), then all results, {MANY} workers"
    own = partial(measure_numbers, LIBPOOL, many, count)
    yield alternate(
        Row(what, f"libpool, {FEW} workers", target=Target(0.5, 0.8)),
        partial(measure_numbers, LIBPOOL, few, count),
        own,
        options.rounds,
    )
    for contender in (MULTIPROCESSING, PROCESSES):
        yield alternate(
            Row(what, contender.name),
            partial(measure_numbers, contender, many, count),
            own,
            options.rounds,
        )
