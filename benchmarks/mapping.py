"""The maps: a million items, twenty thousand one by one, and as they come."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any

from contenders import BILLIARD, MPIRE, MULTIPROCESSING, billiard_pool, multiprocessing_pool
from harness import Options, Row, Skipped, Target, alternate, check
from jobs import successor

import libpool

MANY = 1_000_000
SOME = 20_000

Map = Callable[[Iterable[int]], Iterable[int]]
"""Applies `successor` to numbers."""


@dataclass(frozen=True)
class Kind:
    """A pool with maps.

    Attributes
    ----------
    name : str
        As printed.
    open : callable
        Opens a pool with the given number of workers, for a ``with`` statement.
    map, single, unordered : callable, optional
        Given the pool, its plain map, the one that sends items one by one, and the one whose
        results come as they are ready. None: it has no such thing.
    requires : str
        The module that must be installed; empty for the standard library's own.
    slow : int
        It is measured, and libpool beside it, with so many times fewer items.
    """

    name: str
    open: Callable[[int], AbstractContextManager[Any]]
    map: Callable[[Any, int], Map] | None
    single: Callable[[Any, int], Map] | None
    unordered: Callable[[Any, int], Map] | None
    requires: str = ""
    slow: int = 1


# The functions that make a map are given how many items there will be, as some have no useful
# default for the size of a chunk.


def _pool_map(pool: Any, count: int) -> Map:
    return partial(pool.map, successor)


def _pool_single(pool: Any, count: int) -> Map:
    return partial(pool.map, successor, chunksize=1)


def _pool_unordered(pool: Any, count: int) -> Map:
    return partial(pool.imap_unordered, successor)


def _pool_unordered_single(pool: Any, count: int) -> Map:
    return partial(pool.imap_unordered, successor, chunksize=1)


def _executor_map(pool: Any, count: int) -> Map:
    return partial(pool.map, successor, chunksize=max(1, count // 8))


def _executor_single(pool: Any, count: int) -> Map:
    return partial(pool.map, successor)


def _mpire_single(pool: Any, count: int) -> Map:
    return partial(pool.map, successor, chunk_size=1)


def _joblib_map(pool: Any, count: int) -> Map:
    delayed = import_module("joblib").delayed(successor)
    return lambda numbers: pool(delayed(number) for number in numbers)


@contextmanager
def _libpool(workers: int) -> Iterator[Any]:
    with libpool.Pool(workers) as pool:
        yield pool
        pool.close()
        pool.join()


@contextmanager
def _mpire(workers: int) -> Iterator[Any]:
    with import_module("mpire").WorkerPool(workers) as pool:
        yield pool


@contextmanager
def _joblib(workers: int) -> Iterator[Any]:
    with import_module("joblib").Parallel(workers) as pool:
        yield pool


LIBPOOL = Kind("libpool", _libpool, _pool_map, _pool_single, _pool_unordered)
LIBPOOL_SINGLE = Kind("libpool", _libpool, None, None, _pool_unordered_single)
KINDS = (
    Kind(MULTIPROCESSING.name, multiprocessing_pool, _pool_map, _pool_single, _pool_unordered),
    Kind("ProcessPoolExecutor", ProcessPoolExecutor, _executor_map, _executor_single, None),
    Kind("billiard", billiard_pool, _pool_map, _pool_single, _pool_unordered, BILLIARD.requires),
    Kind("mpire", _mpire, _pool_map, _mpire_single, _pool_unordered, MPIRE.requires, slow=10),
    Kind("joblib", _joblib, _joblib_map, None, None, "joblib", slow=10),
)


def measure(kind: Kind, which: str, workers: int, count: int) -> float:
    """Time one map through a new pool whose workers are up."""
    with kind.open(workers) as pool:
        mapped: Map = getattr(kind, which)(pool, count)
        list(mapped(range(count // 10 + 1)))
        gc.collect()
        start = perf_counter()
        answer = list(mapped(range(count)))
        seconds = perf_counter() - start
    if which == "unordered":
        answer.sort()
    check(answer, list(range(1, count + 1)), kind.name)
    return seconds


def compare(
    what: str, which: str, own: Kind, target: Target | None, options: Options, count: int
) -> Iterator[Row | Skipped]:
    """Compare one kind of map with that of each peer that has it."""
    for kind in KINDS:
        if getattr(kind, which) is None:
            continue
        items = max(1, options.count(count) // kind.slow)
        written = what.format(f"{items:,}")
        if kind.requires and find_spec(kind.requires) is None:
            yield Skipped(written, f"{kind.name} ({kind.requires} not installed)")
            continue
        yield alternate(
            Row(written, kind.name, target=target if kind.name == MULTIPROCESSING.name else None),
            partial(measure, kind, which, options.workers, items),
            partial(measure, own, which, options.workers, items),
            options.rounds,
        )


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with ``multiprocessing.Pool``, whose interface it is, and with others."""
    yield from compare("Pool.map(f, range({}))", "map", LIBPOOL, Target(2, 3), options, MANY)
    yield from compare(
        "Pool.map(f, range({}), chunksize=1)", "single", LIBPOOL, Target(10, 20), options, SOME
    )
    yield from compare(
        "imap_unordered(f, range({}))", "unordered", LIBPOOL, Target(10, 20), options, SOME
    )
    yield from compare(
        "imap_unordered(f, range({}), chunksize=1)",
        "unordered",
        LIBPOOL_SINGLE,
        None,
        options,
        SOME,
    )
