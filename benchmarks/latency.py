"""One round trip: ``submit(f, 1).result()``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial

from contenders import LIBPOOL, PEERS, PROCESSES, THREADS, Contender, warmed
from harness import Options, Row, Skipped, Target, alternate, check

WHAT = "submit(f, 1).result(), median"
TARGETS = {THREADS.name: Target(10, later=15), PROCESSES.name: Target(50)}


def f(x: object) -> object:
    """Do nothing."""
    return x


def measure(contender: Contender, options: Options, count: int) -> float:
    """Median time of `count` round trips through a new pool, after as many untimed tenths."""
    with warmed(contender, options.workers, f) as session:
        check(session.call(f, 1), 1, contender.name)
        session.round_trips(f, 1, count // 10 + 1)
        return statistics.median(session.round_trips(f, 1, count))


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with every peer that is installed."""
    count = options.count(3000)
    for peer in PEERS:
        if not peer.installed:
            yield Skipped(WHAT, peer.why_not)
            continue
        yield alternate(
            Row(WHAT, peer.name, target=TARGETS.get(peer.name)),
            partial(measure, peer, options, count),
            partial(measure, LIBPOOL, options, count),
            options.rounds,
        )
