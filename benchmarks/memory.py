"""Memory for one job that waits.

Every measurement is a process of its own, because memory that a process has once taken does not
tell what the next pool in it would take. There, one worker is kept busy, jobs are submitted, and
the growth is divided by their number: of the host's private memory, which holds the futures (and
everything, for pools of threads), and of the shared segment.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any

from harness import Limit, Options, Row, Skipped, Target, alternate
from jobs import f
from processes import descendants, private_bytes, shared_bytes

import libpool

JOBS = 1_000_000
PEER_JOBS = 100_000
"""For the comparison with others, which take kilobytes for each."""

LIMIT = Limit(300, 192)
"""Bytes of shared memory for one waiting job."""


def open_and_submit(name: str) -> Callable[..., Any]:
    """Make a pool with one worker and return what submits a job to it."""
    if name == "multiprocessing.Pool":
        apply_async = multiprocessing.Pool(1).apply_async
        return lambda function, argument: apply_async(function, (argument,))
    kinds: dict[str, Callable[[int], Any]] = {
        "libpool": libpool.Executor,
        "ThreadPoolExecutor": ThreadPoolExecutor,
        "ProcessPoolExecutor": ProcessPoolExecutor,
    }
    submit: Callable[..., Any] = kinds[name](1).submit
    return submit


def measure_here(name: str, count: int) -> tuple[float, float]:
    """Return the private and the shared bytes for each of `count` waiting jobs."""
    submit = open_and_submit(name)
    held: list[Any] = [None] * (count + 1)
    held[count] = submit(time.sleep, 3600)
    for i in range(1000):
        held[i] = submit(f, i)
    time.sleep(0.1)
    private, shared = private_bytes(os.getpid()), shared_bytes()
    for i in range(1000, count):
        held[i] = submit(f, i)
    submitted = count - 1000
    return (
        (private_bytes(os.getpid()) - private) / submitted,
        (shared_bytes() - shared) / submitted,
    )


def measure(name: str, count: int) -> tuple[float, float]:
    """Run `measure_here` in a process of its own."""
    command = [sys.executable, __file__, name, str(count)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    private, shared = json.loads(answer.stdout)
    if name == "libpool" and not shared:
        raise RuntimeError("no shared segment of libpool was found")
    return private, shared


def measure_all(name: str, count: int) -> float:
    """Bytes for each waiting job, wherever they lie."""
    return sum(measure(name, count))


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare all memory with the pools of the standard library, and judge the shared part."""
    jobs = options.count(PEER_JOBS)
    what = f"memory for one of {jobs:,} waiting jobs and its future"
    for peer in ("ThreadPoolExecutor", "multiprocessing.Pool", "ProcessPoolExecutor"):
        yield alternate(
            Row(what, peer, unit="B", target=Target(1)),
            partial(measure_all, peer, jobs),
            partial(measure_all, "libpool", jobs),
            options.rounds,
        )
    jobs = options.count(JOBS)
    own = Row(f"shared memory for one of {jobs:,} waiting jobs", unit="B", limit=LIMIT)
    own.libpool_samples = [measure("libpool", jobs)[1] for _ in range(options.rounds)]
    yield own


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], int(sys.argv[2]))), flush=True)
    # Neither wait for the jobs nor leave anybody behind.
    for process in reversed(descendants(os.getpid())):
        os.kill(process, signal.SIGKILL)
    os._exit(0)
