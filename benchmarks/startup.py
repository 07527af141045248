"""From nothing to the first result of a new pool."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from functools import partial
from time import perf_counter

from contenders import LIBPOOL, MULTIPROCESSING, PEERS, Contender
from harness import Options, Row, Skipped, Target, alternate, check

WHAT = "first result from a new pool"
TARGETS = {MULTIPROCESSING.name: Target(1)}


def f(x: object) -> object:
    """Do nothing."""
    return x


def measure(contender: Contender, options: Options, count: int) -> float:
    """Median time over `count` pools, each made anew; closing it is not part of the time."""
    times = []
    for _ in range(count):
        gc.collect()
        start = perf_counter()
        with contender.open(options.workers) as session:
            answer = session.call(f, 1)
            times.append(perf_counter() - start)
        check(answer, 1, contender.name)
    return statistics.median(times)


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with every peer that is installed."""
    for peer in PEERS:
        if not peer.installed:
            yield Skipped(WHAT, peer.why_not)
            continue
        yield alternate(
            Row(WHAT, peer.name, target=TARGETS.get(peer.name)),
            partial(measure, peer, options, options.count(10)),
            partial(measure, LIBPOOL, options, options.count(10)),
            options.rounds,
        )
