"""Jobs that keep a core busy: what the pool adds to the time that they take.

Equal jobs are compared with the same jobs one after the other in this process. Jobs of very unequal
length are compared with the least time that any order on so many cores could take: the sum divided
by the number of workers, or the longest. These jobs end when a clock says so; thus their lengths
are known exactly. Once they sleep instead: then the pool's part in the total, which is the order
and the moments between two jobs, shows also on a machine that has other work for its cores.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

from contenders import LIBPOOL, MULTIPROCESSING, PROCESSES, Contender, warmed
from harness import Options, Row, Skipped, Target, alternate, check
from jobs import doze, f, spin, sum_primes
from sessions import Function

import libpool

JOBS = 8
PRIMES_BELOW = 30_000
"""A job takes some 50 ms."""

UNEQUAL = 300
SHAPE = 1.2
"""Of the Pareto distribution. A fifth of the jobs then takes about three quarters of the time."""

SHORTEST, LONGEST = 0.0005, 0.25


def serial(count: int) -> float:
    """Time equal jobs, one after the other."""
    start = perf_counter()
    for _ in range(JOBS):
        sum_primes(count)
    return perf_counter() - start


def equal(contender: Contender, options: Options, count: int) -> float:
    """Time equal jobs in a pool."""
    with warmed(contender, options.workers, f) as session:
        start = perf_counter()
        answer = session.burst(sum_primes, [(count,)] * JOBS)
        seconds = perf_counter() - start
    check(answer, [sum_primes(count)] * JOBS, contender.name)
    return seconds


def lengths(count: int) -> list[float]:
    """Seconds for each of the unequal jobs: the same in every run."""
    source = random.Random(2)
    return [min(LONGEST, SHORTEST * source.paretovariate(SHAPE)) for _ in range(count)]


def ideal(seconds: list[float], workers: int) -> float:
    """Return the least time that the jobs could take."""
    return max(sum(seconds) / workers, max(seconds))


def unequal(
    contender: Contender, options: Options, seconds: list[float], job: Function = spin
) -> float:
    """Time unequal jobs, submitted at once in the order in which they stand."""
    with warmed(contender, options.workers, f) as session:
        arguments = [(each,) for each in seconds]
        start = perf_counter()
        answer = session.burst(job, arguments)
        elapsed = perf_counter() - start
    check(answer, seconds, contender.name)
    return elapsed


def unequal_map(options: Options, seconds: list[float]) -> float:
    """Time the same through `libpool.Pool.map`, which chooses how many go together."""
    with libpool.Pool(options.workers) as pool:
        pool.map(f, range(100))
        gc.collect()
        start = perf_counter()
        answer = pool.map(spin, seconds)
        elapsed = perf_counter() - start
    check(answer, seconds, "libpool.Pool.map")
    return elapsed


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with serial work and with the ideal, and for the reader with two other pools."""
    below = PRIMES_BELOW // 10 if options.quick else PRIMES_BELOW
    what = f"sum_primes({below:,}), {JOBS} equal jobs"
    # A pool of two workers can be twice as fast as serial work and no faster.
    target = Target(1.9, 1.98) if options.workers == 2 else None
    peers: list[tuple[str, Target | None, Callable[[], float]]] = [
        ("serial", target, partial(serial, below))
    ]
    for contender in (MULTIPROCESSING, PROCESSES):
        peers.append((contender.name, None, partial(equal, contender, options, below)))
    for name, wanted, measure in peers:
        yield alternate(
            Row(what, name, target=wanted),
            measure,
            partial(equal, LIBPOOL, options, below),
            options.rounds,
        )

    seconds = lengths(options.count(UNEQUAL))
    what = f"{len(seconds)} jobs of very unequal length (Pareto), total time"
    wanted = Target(1 / 1.05, 1 / 1.02)
    best = ideal(seconds, options.workers)
    own = partial(unequal, LIBPOOL, options, seconds)
    yield alternate(Row(what, "ideal", target=wanted), lambda: best, own, options.rounds)
    for contender in (MULTIPROCESSING, PROCESSES):
        measure = partial(unequal, contender, options, seconds)
        yield alternate(Row(what, contender.name), measure, own, options.rounds)
    yield alternate(
        Row(f"{what}, asleep", "ideal", target=wanted),
        lambda: best,
        partial(unequal, LIBPOOL, options, seconds, doze),
        options.rounds,
    )
    yield alternate(
        Row(f"{what}, by Pool.map", "ideal"),
        lambda: best,
        partial(unequal_map, options, seconds),
        options.rounds,
    )
