"""The pools that are compared: how each is opened, and what it needs."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from harness import Options, Row, Skipped, Target, alternate
from sessions import (
    ApplySession,
    DaskSession,
    Function,
    FutureSession,
    PebbleSession,
    RaySession,
    Session,
)

import libpool


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
def _interpreters(workers: int) -> Iterator[Session]:
    kind = getattr(concurrent.futures, INTERPRETERS.name)
    with kind(workers) as executor:
        yield FutureSession(executor)


@contextmanager
def _multiprocessing(workers: int) -> Iterator[Session]:
    with multiprocessing_pool(workers) as pool:
        yield ApplySession(pool)


@contextmanager
def _billiard(workers: int) -> Iterator[Session]:
    with billiard_pool(workers) as pool:
        yield ApplySession(pool)


@contextmanager
def multiprocessing_pool(workers: int) -> Iterator[Any]:
    """Open a ``multiprocessing.Pool``, which is closed and joined in the end."""
    pool = multiprocessing.Pool(workers)
    try:
        yield pool
    finally:
        pool.close()
        pool.join()


@contextmanager
def billiard_pool(workers: int) -> Iterator[Any]:
    """Open a ``billiard.Pool``, likewise."""
    pool = import_module("billiard").Pool(workers)
    try:
        yield pool
    finally:
        pool.close()
        pool.join()


@contextmanager
def _loky(workers: int) -> Iterator[Session]:
    with import_module("loky").ProcessPoolExecutor(workers) as executor:
        yield FutureSession(executor)


@contextmanager
def _mpire(workers: int) -> Iterator[Session]:
    pool = import_module("mpire").WorkerPool(workers)
    try:
        yield ApplySession(pool)
    finally:
        pool.stop_and_join()


@contextmanager
def _pebble(workers: int) -> Iterator[Session]:
    with import_module("pebble").ProcessPool(max_workers=workers) as pool:
        yield PebbleSession(pool)


@contextmanager
def _dask(workers: int) -> Iterator[Session]:
    distributed = import_module("distributed")
    # What it has to say about connections that end when it is closed is no result.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield DaskSession(client)


@contextmanager
def _ray(workers: int) -> Iterator[Session]:
    # Read when the module is imported: nothing is sent anywhere, and no file with a token is made.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    ray = import_module("ray")
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )
    try:
        yield RaySession(ray)
    finally:
        ray.shutdown()


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
    slow : int
        It is measured, and libpool beside it, with so many times fewer jobs, because it needs
        seconds to start or milliseconds for a job.
    """

    name: str
    open: Callable[[int], AbstractContextManager[Session]]
    requires: str = ""
    slow: int = 1

    @property
    def installed(self) -> bool:
        """Whether this pool can be used here."""
        if self is INTERPRETERS:
            return hasattr(concurrent.futures, self.name)
        return not self.requires or find_spec(self.requires) is not None

    @property
    def why_not(self) -> str:
        """What to print where it is not installed."""
        reason = "needs Python 3.14" if self is INTERPRETERS else f"{self.requires} not installed"
        return f"{self.name} ({reason})"


LIBPOOL = Contender("libpool", _libpool)
THREADS = Contender("ThreadPoolExecutor", _threads)
INTERPRETERS = Contender("InterpreterPoolExecutor", _interpreters)
MULTIPROCESSING = Contender("multiprocessing.Pool", _multiprocessing)
PROCESSES = Contender("ProcessPoolExecutor", _processes)
LOKY = Contender("loky", _loky, requires="loky")
MPIRE = Contender("mpire", _mpire, requires="mpire")
PEBBLE = Contender("pebble", _pebble, requires="pebble")
BILLIARD = Contender("billiard", _billiard, requires="billiard")
DASK = Contender("dask.distributed", _dask, requires="distributed", slow=20)
RAY = Contender("ray", _ray, requires="ray", slow=20)

STANDARD = (THREADS, INTERPRETERS, MULTIPROCESSING, PROCESSES)
PEERS = (*STANDARD, LOKY, MPIRE, PEBBLE, BILLIARD, DASK, RAY)


def versions() -> dict[str, str]:
    """Return the versions of the packages that are compared, of those that are installed."""
    names = sorted({each.requires for each in PEERS if each.requires} | {"joblib", "numpy"})
    return {name: version(name) for name in names if find_spec(name) is not None}


@contextmanager
def warmed(contender: Contender, workers: int, function: Function) -> Iterator[Session]:
    """Open a pool, run some jobs so that its workers are up, and collect garbage."""
    with contender.open(workers) as session:
        session.numbers(function, 50 * workers)
        gc.collect()
        yield session


def against(
    peers: tuple[Contender, ...],
    what: Callable[[int], str],
    measure: Callable[[Contender, Options, int], float],
    targets: dict[str, Target],
    options: Options,
    count: int,
) -> Iterator[Row | Skipped]:
    """Compare with each peer that is installed.

    Parameters
    ----------
    peers : tuple of Contender
        Whom libpool is compared with.
    what : callable
        Says what is measured, given the number of jobs.
    measure : callable
        Measures one contender with that number of jobs: seconds.
    targets : dict of str to Target
        By the peer's name.
    options : Options
        From the command line.
    count : int
        How many jobs, for peers that are not slow.
    """
    for peer in peers:
        jobs = max(1, options.count(count) // peer.slow)
        if not peer.installed:
            yield Skipped(what(jobs), peer.why_not)
            continue
        yield alternate(
            Row(what(jobs), peer.name, target=targets.get(peer.name)),
            partial(measure, peer, options, jobs),
            partial(measure, LIBPOOL, options, jobs),
            options.rounds,
        )
