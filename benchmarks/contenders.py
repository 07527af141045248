"""The pools that are compared, behind one small interface.

Each contender says how to open a pool, and an open pool has the few operations that the families
time. Every operation calls the pool's own methods in the timed loop, without a wrapper around
each job, so that what is timed is the pool.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any, Protocol

import libpool

Function = Callable[..., Any]


class Session(Protocol):
    """An open pool. Times are in seconds."""

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """Submit a job and wait for its result, `count` times. Returns the time of each."""

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Submit a job for each tuple of arguments, then collect the results in order."""

    def numbers(self, function: Function, count: int) -> list[Any]:
        """Do the same for the arguments 0 to `count` - 1."""

    def call(self, function: Function, *arguments: object) -> Any:
        """Run one job and return its result."""


class FutureSession:
    """A pool whose ``submit(function, *arguments)`` returns a future."""

    def __init__(self, pool: Any) -> None:
        self.submit = pool.submit

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        submit = self.submit
        times = []
        for _ in range(count):
            start = perf_counter()
            submit(function, argument).result()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        submit = self.submit
        return [x.result() for x in [submit(function, *each) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        submit = self.submit
        return [x.result() for x in [submit(function, i) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.submit(function, *arguments).result()


class MultiprocessingSession:
    """A ``multiprocessing.Pool``."""

    def __init__(self, pool: Any) -> None:
        self.apply_async = pool.apply_async

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        apply_async = self.apply_async
        times = []
        for _ in range(count):
            start = perf_counter()
            apply_async(function, (argument,)).get()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        apply_async = self.apply_async
        return [x.get() for x in [apply_async(function, each) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        apply_async = self.apply_async
        return [x.get() for x in [apply_async(function, (i,)) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.apply_async(function, arguments).get()


class PebbleSession:
    """A ``pebble.ProcessPool``."""

    def __init__(self, pool: Any) -> None:
        self.schedule = pool.schedule

    def round_trips(self, function: Function, argument: object, count: int) -> list[float]:
        """See `Session`."""
        schedule = self.schedule
        times = []
        for _ in range(count):
            start = perf_counter()
            schedule(function, args=(argument,)).result()
            times.append(perf_counter() - start)
        return times

    def burst(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Session`."""
        schedule = self.schedule
        return [x.result() for x in [schedule(function, args=each) for each in arguments]]

    def numbers(self, function: Function, count: int) -> list[Any]:
        """See `Session`."""
        schedule = self.schedule
        return [x.result() for x in [schedule(function, args=(i,)) for i in range(count)]]

    def call(self, function: Function, *arguments: object) -> Any:
        """See `Session`."""
        return self.schedule(function, args=arguments).result()


@contextmanager
def _libpool(workers: int) -> Iterator[Session]:
    with libpool.Executor(workers) as executor:
        yield FutureSession(executor)


@contextmanager
def _threads(workers: int) -> Iterator[Session]:
    with ThreadPoolExecutor(workers) as executor:
        yield FutureSession(executor)


@contextmanager
def _processes(workers: int) -> Iterator[Session]:
    with ProcessPoolExecutor(workers) as executor:
        yield FutureSession(executor)


@contextmanager
def _multiprocessing(workers: int) -> Iterator[Session]:
    pool = multiprocessing.Pool(workers)
    try:
        yield MultiprocessingSession(pool)
    finally:
        pool.close()
        pool.join()


@contextmanager
def _loky(workers: int) -> Iterator[Session]:
    with import_module("loky").ProcessPoolExecutor(workers) as executor:
        yield FutureSession(executor)


@contextmanager
def _pebble(workers: int) -> Iterator[Session]:
    with import_module("pebble").ProcessPool(max_workers=workers) as pool:
        yield PebbleSession(pool)


@dataclass(frozen=True)
class Contender:
    """A kind of pool.

    Attributes
    ----------
    name : str
        As printed.
    open : callable
        Opens a pool with the given number of workers, for a ``with`` statement.
    requires : str
        The module that must be installed; empty for the standard library's own.
    """

    name: str
    open: Callable[[int], AbstractContextManager[Session]]
    requires: str = ""

    @property
    def installed(self) -> bool:
        """Whether this pool can be used here."""
        return not self.requires or find_spec(self.requires) is not None

    @property
    def why_not(self) -> str:
        """What to print where it is not installed."""
        return f"{self.name} ({self.requires} is not installed)"


LIBPOOL = Contender("libpool", _libpool)
THREADS = Contender("ThreadPoolExecutor", _threads)
MULTIPROCESSING = Contender("multiprocessing.Pool", _multiprocessing)
PROCESSES = Contender("ProcessPoolExecutor", _processes)
LOKY = Contender("loky", _loky, requires="loky")
PEBBLE = Contender("pebble", _pebble, requires="pebble")

PEERS = (THREADS, MULTIPROCESSING, PROCESSES, LOKY, PEBBLE)


@contextmanager
def warmed(contender: Contender, workers: int, function: Function) -> Iterator[Session]:
    """Open a pool, run some jobs so that its workers are up, and collect garbage."""
    with contender.open(workers) as session:
        session.numbers(function, 50 * workers)
        gc.collect()
        yield session
