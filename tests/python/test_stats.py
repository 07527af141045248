"""What a pool tells about itself."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from support import Gate, pass_gates, until

import libpool
from libpool import Executor, Pool


def fail() -> None:
    raise ValueError("on purpose")


def exit_with_exception() -> None:
    raise SystemExit(3)


def unpicklable() -> Any:
    return threading.Lock()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def send(data: bytes) -> bytes:
    return data


def test_each_call_is_counted_by_how_it_ended(workers: Any) -> None:
    for number in range(100):
        function = (abs, fail, exit_with_exception, unpicklable)[number % 4]
        future = workers.submit(function, *([1] if function is abs else []))
        assert (future.exception() is None) == (function is abs)
        stats = workers.stats()  # a job is counted before its future knows
        assert stats["jobs_started"] == number + 1
        assert stats["jobs_done"] == number // 4 + 1
        assert stats["jobs_failed"] == number - number // 4
        assert stats["jobs_running"] == stats["jobs_waiting"] == 0


def test_a_death_and_a_time_out_are_failures_and_a_retry_is_neither(workers: Any) -> None:
    with pytest.raises(libpool.WorkerDied):
        workers.submit(die).result()
    assert workers.stats()["jobs_failed"] == 1
    with pytest.raises(TimeoutError):
        workers.options(timeout=0.01).submit(time.sleep, 60).result()
    assert workers.stats()["jobs_failed"] == 2
    with pytest.raises(libpool.WorkerDied):
        workers.options(retries=2).submit(die).result()
    stats = workers.stats()
    assert stats["jobs_failed"] == 3
    assert stats["jobs_retried"] == 2
    assert stats["jobs_started"] == 5
    assert stats["jobs_done"] == 0


def test_waiting_and_running_calls(started: Gate, held: Gate) -> None:
    with Executor(2) as executor:
        futures = [executor.submit(pass_gates, started, held) for _ in range(10)]
        for _ in range(2):
            started.wait_for()
        stats = executor.stats()
        assert (stats["jobs_running"], stats["jobs_waiting"]) == (2, 8)
        assert [one["jobs_running"] for one in stats["per_worker"]] == [1, 1]
        assert futures[-1].cancel()
        assert executor.stats()["jobs_waiting"] == 7
        held.open(times=9)
        for future in futures[:-1]:
            future.result()
        stats = executor.stats()
        assert (stats["jobs_running"], stats["jobs_waiting"], stats["jobs_done"]) == (0, 0, 9)


@pytest.mark.parametrize("size", [0, 50, 1000, 1 << 20])
def test_bytes_are_those_that_travel(workers: Any, size: int) -> None:
    data = bytes(size)
    for count in range(1, 4):
        workers.submit(send, data).result()
        stats = workers.stats()
        assert size * count <= stats["bytes_in"] <= (size + 200) * count
        assert size * count <= stats["bytes_out"] <= (size + 200) * count


def test_each_worker_tells_for_itself_and_the_sum_is_the_pools(pool: Pool) -> None:
    until(lambda: pool.stats()["alive"] == 2)
    pool.map(send, [b"x" * 100] * 100, chunksize=1)
    stats = pool.stats()
    each = stats["per_worker"]
    assert [one["pid"] for one in each] == pool.worker_pids()
    for key in ("jobs_started", "jobs_done", "jobs_failed", "bytes_in", "bytes_out"):
        assert sum(one[key] for one in each) == stats[key]  # type: ignore[literal-required]
    assert stats["jobs_done"] == 100


def test_a_replaced_workers_counts_stay() -> None:
    with Pool(1, maxtasksperchild=1) as pool:
        for count in range(1, 8):
            pool.apply(send, (b"x",))
            (one,) = pool.stats()["per_worker"]
            assert one["jobs_done"] == count
        until(lambda: pool.stats()["workers_started"] == 8)


def test_busy_and_idle_time() -> None:
    begin = time.monotonic()
    with Pool(1) as pool:
        pool.apply(spin, (0.2,))
        busy = pool.stats()["busy_time"]
        assert 0.2 <= busy
        time.sleep(0.2)
        stats = pool.stats()
        assert stats["busy_time"] - busy < 0.1
        assert stats["idle_time"] >= 0.15
        assert stats["busy_time"] + stats["idle_time"] <= time.monotonic() - begin


def test_stats_of_an_ended_pool_stand_still(workers: Any) -> None:
    workers.submit(spin, 0.01).result()
    workers.terminate()
    stats = workers.stats()
    assert stats["jobs_done"] == 1
    assert stats["busy_time"] >= 0.01
    time.sleep(0.02)
    assert workers.stats() == stats


def test_stats_are_a_plain_dict_of_all_that_is_declared(pool: Pool) -> None:
    stats = pool.stats()
    assert stats.keys() == libpool.Stats.__annotations__.keys()
    assert stats["per_worker"][0].keys() == libpool.WorkerStats.__annotations__.keys()
    assert json.loads(json.dumps(stats)) == stats


def test_a_job_sees_the_stats_of_its_pool(pool: Pool) -> None:
    def look() -> tuple[int, int]:
        current = libpool.current()
        assert current is not None
        stats = current.stats()
        return stats["jobs_running"], stats["alive"]

    until(lambda: pool.stats()["alive"] == 2)
    assert pool.apply(look) == (1, 2)
