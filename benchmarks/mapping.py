"""``Pool.map`` over a range."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

from harness import Options, Row, Skipped, Target, alternate, check

import libpool

ITEMS = 100_000


def f(x: int) -> int:
    """Do next to nothing."""
    return x + 1


def measure(kind: Callable[[int], Any], name: str, options: Options, count: int) -> float:
    """Time one map through a new pool, and close it."""
    with kind(options.workers) as pool:
        pool.map(f, range(count // 10))
        gc.collect()
        start = perf_counter()
        answer = pool.map(f, range(count))
        seconds = perf_counter() - start
        pool.close()
        pool.join()
    check(answer, list(range(1, count + 1)), name)
    return seconds


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with ``multiprocessing.Pool``, whose interface it is."""
    count = options.count(ITEMS)
    name = "multiprocessing.Pool"
    yield alternate(
        Row(f"Pool.map(f, range({count:,}))", name, target=Target(2)),
        partial(measure, multiprocessing.Pool, name, options, count),
        partial(measure, libpool.Pool, "libpool.Pool", options, count),
        options.rounds,
    )
