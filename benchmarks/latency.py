"""One round trip: ``submit(f, 1).result()``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from contenders import PEERS, PROCESSES, THREADS, Contender, against, warmed
from harness import Options, Row, Skipped, Target, check
from jobs import f

TARGETS = {THREADS.name: Target(15, 25), PROCESSES.name: Target(50, 90)}


def measure(contender: Contender, options: Options, count: int) -> float:
    """Median time of `count` round trips through a new pool, after as many untimed tenths."""
    with warmed(contender, options.workers, f) as session:
        check(session.call(f, 1), 1, contender.name)
        session.round_trips(f, 1, count // 10 + 1)
        return statistics.median(session.round_trips(f, 1, count))


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with every peer that is installed."""
    what = "submit(f, 1).result(), median"
    yield from against(PEERS, lambda _: what, measure, TARGETS, options, 3000)
