"""What a pool costs those who have nothing to do with it.

One process for each core computes, first beside no pool, then beside an idle one, or one that gets
a job now and then. Whatever the pool's processes do, spin or wake up, they do on one of these
cores.

A machine that does something else as well changes these times by more than a pool does. So there
is a second figure for each: the processor time of host, supervisor and workers in a second, which
is what the neighbours lose, but for caches that are cold after a change of processes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, process_time, sleep
from types import TracebackType
from typing import Self

from contenders import LIBPOOL
from harness import Limit, Options, Row, Skipped, Target, alternate, check
from jobs import f, sum_primes
from processes import descendants, processor_seconds
from sessions import Session

PRIMES_BELOW, TIMES = 30_000, 40
"""What each of them computes takes half a second to two."""

JOBS_PER_SECOND = 100

MOST = 0.02
"""The part of its time that a neighbour may lose."""

KEPT = Target(1 - MOST)

SETTLING = 0.1
"""Seconds after which nobody spins any more for the last job."""


class Neighbours:
    """Processes that compute when they are told to, as many as there are cores."""

    def __init__(self, times: int) -> None:
        command = [sys.executable, __file__, str(times)]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in os.sched_getaffinity(0)
        ]
        self.pids = {process.pid for process in self._processes}

    def compute(self, meanwhile: Callable[[], object] | None = None) -> float:
        """Have each compute the same. Returns the seconds that it took them on average.

        Parameters
        ----------
        meanwhile : callable, optional
            Is called `JOBS_PER_SECOND` times a second until the last one has finished.
        """
        times = []
        start = perf_counter()
        calls = 0
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
                selector.register(process.stdout, selectors.EVENT_READ)
            while selector.get_map():
                timeout = None
                if meanwhile is not None:
                    timeout = max(0.0, start + calls / JOBS_PER_SECOND - perf_counter())
                ready = selector.select(timeout)
                for key, _ in ready:
                    times.append(float(key.fileobj.readline()))  # type: ignore[union-attr]
                    selector.unregister(key.fileobj)
                if not ready and meanwhile is not None:
                    meanwhile()
                    calls += 1
        return sum(times) / len(times)

    def __enter__(self) -> Self:
        self.compute()  # they have started
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.communicate()


def beside_pool(
    neighbours: Neighbours, options: Options, used: list[float], meanwhile: bool
) -> float:
    """Time them beside a pool that has had work, and gets a job now and then if `meanwhile`.

    Appends to `used` what the pool and this process took of a second of one core.
    """
    with LIBPOOL.open(options.workers) as session:
        settle(session)
        own = pool_processes(neighbours)
        before = sum(map(processor_seconds, own))
        start, host = perf_counter(), process_time()
        seconds = neighbours.compute(partial(job, session) if meanwhile else None)
        end, host = perf_counter(), process_time() - host
        after = sum(map(processor_seconds, own))
    used.append((host + after - before) / (end - start))
    return seconds


def pool_processes(neighbours: Neighbours) -> list[int]:
    """All processes that this one has started, but for the neighbours."""
    return sorted(set(descendants(os.getpid())) - neighbours.pids)


def settle(session: Session) -> None:
    """Have all workers run a job, and then sleep."""
    session.numbers(f, 1000)
    sleep(SETTLING)


def job(session: Session) -> None:
    """Wait for the result of one job."""
    check(session.call(f, 1), 1, LIBPOOL.name)


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with the same processes where there is no pool."""
    with Neighbours(options.count(TIMES)) as neighbours:
        for where, meanwhile in (
            ("an idle pool", False),
            (f"a pool with {JOBS_PER_SECOND} jobs/s", True),
        ):
            used: list[float] = []
            yield alternate(
                Row(
                    f"a process that computes on each core, beside {where}", "no pool", target=KEPT
                ),
                neighbours.compute,
                partial(beside_pool, neighbours, options, used, meanwhile),
                options.rounds,
            )
            cores = len(neighbours.pids)
            row = Row(f"processor time of {where} in a second", limit=Limit(MOST * cores))
            row.libpool_samples = used
            yield row


def main(times: int) -> None:
    """Compute for each line of standard input, and print how long it took."""
    with contextlib.suppress(KeyboardInterrupt):
        for _ in sys.stdin:
            start = perf_counter()
            for _ in range(times):
                sum_primes(PRIMES_BELOW)
            print(perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
