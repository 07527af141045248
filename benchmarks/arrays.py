"""A large array of numbers to a job, and its negative back; with and without shared memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

from contenders import LIBPOOL, PROCESSES, Contender
from harness import Options, Row, Skipped, Target, alternate, check
from jobs import negative, negative_to

import libpool

BYTES = 100_000_000


def measure_sent(contender: Contender, options: Options, count: int) -> float:
    """Median of `count` round trips of an array, after three untimed ones."""
    import numpy

    a = numpy.arange(BYTES // 8, dtype=float)
    with contender.open(options.workers) as session:
        check(bool((session.call(negative, a) == -a).all()), True, contender.name)
        session.round_trips(negative, a, 2)
        return statistics.median(session.round_trips(negative, a, count))


def _median(submit: Any, a: Any, b: Any, count: int, name: str) -> float:
    times = []
    for _ in range(count + 2):
        start = perf_counter()
        submit(negative_to, a, b).result()
        times.append(perf_counter() - start)
    check(bool((b == -a).all()), True, name)
    return statistics.median(times[2:])


def measure_threads(options: Options, count: int) -> float:
    """The same work by threads, on memory that they share by nature."""
    import numpy

    a, b = numpy.arange(BYTES // 8, dtype=float), numpy.zeros(BYTES // 8)
    with ThreadPoolExecutor(options.workers) as executor:
        return _median(executor.submit, a, b, count, "ThreadPoolExecutor")


def measure_shared(options: Options, count: int) -> float:
    """On arrays in the memory of the pool."""
    import numpy

    with libpool.Executor(options.workers) as executor:
        a = libpool.shared.array(numpy.arange(BYTES // 8, dtype=float), pool=executor)
        b = libpool.shared.zeros(BYTES // 8, pool=executor)
        return _median(executor.submit, a, b, count, "libpool")


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with processes that copy through a pipe, and with threads, that copy nothing."""
    size = f"{BYTES // 1_000_000} MB array"
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError:
        yield Skipped(size, "numpy is not installed")
        return
    count = options.count(10)
    yield alternate(
        Row(f"{size} in, its negative out", PROCESSES.name, target=Target(10, 15)),
        partial(measure_sent, PROCESSES, options, max(1, count // 5)),
        partial(measure_sent, LIBPOOL, options, count),
        options.rounds,
    )
    yield alternate(
        Row(f"{size}, libpool.shared", "ThreadPoolExecutor", target=Target(1 / 1.5, 1)),
        partial(measure_threads, options, count),
        partial(measure_shared, options, count),
        options.rounds,
    )
