"""Many small jobs: 20,000 submits, then all the results."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from contenders import PEERS, THREADS, Contender, against, warmed
from harness import Options, Row, Skipped, Target, check
from jobs import f

JOBS = 20_000
OBJECTS = ((1, 2, "abc"), {"a": 1, "b": 2.5, "c": "three", "d": None, "e": [5]})

NUMBERS_TARGETS = {THREADS.name: Target(10, 15)}
OBJECTS_TARGETS = {THREADS.name: Target(5, 10)}


def measure_numbers(contender: Contender, options: Options, count: int) -> float:
    """Time ``[x.result() for x in [submit(f, i) for i in range(count)]]``."""
    with warmed(contender, options.workers, f) as session:
        start = perf_counter()
        answer = session.numbers(f, count)
        seconds = perf_counter() - start
    check(answer, list(range(count)), contender.name)
    return seconds


def measure_objects(contender: Contender, options: Options, count: int) -> float:
    """Time the same with a tuple and a dict as arguments."""
    arguments: list[tuple[Any, ...]] = [OBJECTS] * count
    with warmed(contender, options.workers, f) as session:
        session.burst(f, arguments[:100])
        gc.collect()
        start = perf_counter()
        answer = session.burst(f, arguments)
        seconds = perf_counter() - start
    check(answer, [OBJECTS[0]] * count, contender.name)
    return seconds


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with every peer that is installed."""
    yield from against(
        PEERS,
        lambda jobs: f"{jobs:,} × submit(f, i), then all results",
        measure_numbers,
        NUMBERS_TARGETS,
        options,
        JOBS,
    )
    yield from against(
        PEERS,
        lambda jobs: f"{jobs:,} × submit(f, (1, 2, 'abc'), dict of five), then all results",
        measure_objects,
        OBJECTS_TARGETS,
        options,
        JOBS,
    )
