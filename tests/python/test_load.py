"""More jobs than anybody waits for."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

import pytest
from support import Gate, pass_gates

from libpool import Executor, Pool, WorkerDied

MILLION = 1_000_000


def nothing() -> None:
    pass


def double(x: int) -> int:
    return 2 * x


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_million_outstanding_jobs_from_one_thread(workers: Any) -> None:
    futures = [workers.submit(nothing) for _ in range(MILLION)]
    assert all(future.result() is None for future in futures)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_million_outstanding_jobs_from_four_threads(workers: Any) -> None:
    counts = []

    def use() -> None:
        futures = [workers.submit(double, x) for x in range(MILLION // 4)]
        counts.append(sum(future.result() == 2 * x for x, future in enumerate(futures)))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [MILLION // 4] * 4


@pytest.mark.slow
def test_many_jobs_wait_while_all_workers_are_blocked(started: Gate, held: Gate) -> None:
    with Executor(2) as executor:
        blocking = [executor.submit(pass_gates, started, held) for _ in range(2)]
        for _ in range(2):
            started.wait_for()
        futures = [executor.submit(double, x) for x in range(200_000)]
        assert not any(future.done() for future in futures[:: len(futures) // 100])
        held.open(2)
        assert [future.result() for future in futures] == [2 * x for x in range(200_000)]
        assert all(future.done() for future in blocking)


@pytest.mark.slow
def test_many_cancelled_jobs(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        executor.submit(pass_gates, started, held)
        started.wait_for()
        futures = [executor.submit(double, x) for x in range(50_000)]
        kept = [future for future in futures if random.random() < 0.5 or not future.cancel()]
        held.open()
        assert all(future.result() % 2 == 0 for future in kept)
        assert sum(future.cancelled() for future in futures) == len(futures) - len(kept)


def test_many_pools_at_once() -> None:
    pools = [Pool(2) for _ in range(10)]
    futures = [pool.submit(double, x) for x in range(100) for pool in pools]
    assert sum(future.result() for future in futures) == 10 * 2 * sum(range(100))
    for pool in pools:
        pool.terminate()


def test_threads_submit_wait_and_cancel_while_workers_die(workers: Any) -> None:
    errors: list[BaseException] = []

    def use(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(300):
                match chance.randrange(10):
                    case 0:
                        assert workers.submit(pow, 2, 10).exception(30) is None
                    case 1:
                        workers.submit(double, 1).cancel()
                    case 2:
                        error = workers.submit(_exit).exception(30)
                        assert isinstance(error, WorkerDied)
                    case _:
                        x = chance.randrange(1 << 40)
                        assert workers.submit(double, x).result(30) == 2 * x
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def _exit() -> None:
    import os

    os._exit(1)


def test_jobs_of_very_unequal_length(pool: Pool) -> None:
    counts = [10 ** (number % 6) for number in range(60)]
    assert pool.map(_count, counts, chunksize=1) == counts


def _count(n: int) -> int:
    return sum(1 for _ in itertools.repeat(None, n))
