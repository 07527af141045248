"""A large argument out and back: 8 MB of bytes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from contenders import PEERS, Contender, against, warmed
from harness import Options, Row, Skipped, check
from jobs import f

SIZE = 8_000_000


def measure(contender: Contender, options: Options, count: int) -> float:
    """Median of `count` round trips, after four untimed ones: the steady state."""
    data = bytes(range(256)) * (SIZE // 256)
    with warmed(contender, options.workers, f) as session:
        check(session.call(f, data), data, contender.name)
        session.round_trips(f, data, 3)
        return statistics.median(session.round_trips(f, data, count))


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with every peer that is installed. Threads copy nothing, so they show the limit."""
    what = f"{SIZE // 1_000_000} MB of bytes out and back"
    yield from against(PEERS, lambda _: what, measure, {}, options, 20)
