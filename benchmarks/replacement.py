"""From a worker's death until its replacement runs the next job.

The only worker is killed while it runs a long job and another job waits; that other job returns
the time at which it ran. `time.monotonic` is one clock for all processes of a machine. Of the
peers, ``ProcessPoolExecutor`` and ``loky`` break when a worker dies, so there is nothing to time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

from contenders import PEBBLE
from harness import Options, Row, Skipped, Target, alternate

import libpool

WHAT = "from a worker's death until its replacement runs a job"


def now() -> float:
    """Return the time in seconds of a clock that all processes share."""
    return time.monotonic()


def kill_and_wait(pid: int, wait_for_next: Callable[[], Any]) -> float:
    """Kill the worker while it is busy. Returns the seconds until the next job ran."""
    time.sleep(0.05)  # so that it has begun with the long job
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    ran: float = wait_for_next()
    return ran - killed


def measure_libpool(deaths: int) -> float:
    """Median time over `deaths` in one pool of one worker."""
    times = []
    with libpool.Executor(1) as executor:
        for _ in range(deaths):
            pid: int = executor.submit(os.getpid).result()
            lost = executor.submit(time.sleep, 3600)
            following = executor.submit(now)
            times.append(kill_and_wait(pid, following.result))
            if not isinstance(lost.exception(), libpool.WorkerDied):
                raise RuntimeError("libpool did not report the death")
    return statistics.median(times)


def measure_multiprocessing(deaths: int) -> float:
    """Do the same with ``multiprocessing.Pool``, whose lost job never ends."""
    times = []
    for _ in range(deaths):
        with multiprocessing.Pool(1) as pool:
            pid = pool.apply(os.getpid)
            pool.apply_async(time.sleep, (3600,))
            following = pool.apply_async(now)
            times.append(kill_and_wait(pid, following.get))
    return statistics.median(times)


def measure_pebble(deaths: int) -> float:
    """Do the same with ``pebble.ProcessPool``."""
    times = []
    with import_module("pebble").ProcessPool(max_workers=1) as pool:
        for _ in range(deaths):
            pid: int = pool.schedule(os.getpid).result()
            pool.schedule(time.sleep, args=(3600,))
            following = pool.schedule(now)
            times.append(kill_and_wait(pid, following.result))
    return statistics.median(times)


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with the peers that replace their workers."""
    deaths = options.count(10)
    for name, measure in (
        ("multiprocessing.Pool", measure_multiprocessing),
        (PEBBLE.name, measure_pebble),
    ):
        if name == PEBBLE.name and not PEBBLE.installed:
            yield Skipped(WHAT, PEBBLE.why_not)
            continue
        yield alternate(
            Row(WHAT, name, target=Target(1)),
            partial(measure, deaths),
            partial(measure_libpool, deaths),
            options.rounds,
        )
