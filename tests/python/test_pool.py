"""libpool.Pool: the interface of multiprocessing.Pool."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
from support import Gate, is_alive, pass_gates, program, run, until

import libpool
from libpool import Pool


def square(x: int) -> int:
    return x * x


def add(x: int, y: int, z: int = 0) -> int:
    return x + y + z


def fail_on(x: int, bad: tuple[int, ...]) -> int:
    if x in bad:
        raise ValueError(x)
    return x


# ---- map, starmap, apply, submit ----------------------------------------------------------------


def test_map_returns_a_list_in_order(pool: Pool) -> None:
    assert pool.map(square, [3, 1, 2]) == [9, 1, 4]
    assert pool.map(square, range(1000)) == [x * x for x in range(1000)]


@pytest.mark.parametrize(
    "items",
    [(1, 2), {1: "a", 2: "b"}, {1, 2}, iter([1, 2]), (x for x in (1, 2)), range(1, 3), b"\1\2"],
    ids=lambda items: type(items).__name__,
)
def test_map_takes_any_iterable(pool: Pool, items: object) -> None:
    assert pool.map(square, items) == [1, 4]


@pytest.mark.parametrize("items", [[], (), range(0), iter([]), {}])
def test_map_of_nothing_is_an_empty_list(pool: Pool, items: object) -> None:
    assert pool.map(square, items) == []
    assert pool.map(square, items, chunksize=3) == []


def test_map_keeps_the_order_of_items_when_jobs_end_in_another(
    started: Gate, held: Gate, pool: Pool
) -> None:
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.extend(
            pool.starmap(_wait_if_first, [(x, started, held) for x in range(8)], chunksize=1)
        )
    )
    thread.start()
    started.wait_for()
    until(lambda: pool.stats()["jobs_started"] == 8)
    held.open()
    thread.join()
    assert results == list(range(8))


def _wait_if_first(x: int, started: Gate, held: Gate) -> object:
    return pass_gates(started, held, x) if x == 0 else x


@pytest.mark.parametrize("items, chunksize, jobs", [(100, 7, 15), (100, 1000, 1), (9, 1, 9)])
def test_a_chunk_size_is_obeyed(pool: Pool, items: int, chunksize: int, jobs: int) -> None:
    pool.map(square, range(items), chunksize)
    assert pool.stats()["jobs_started"] == jobs


def test_starmap_unpacks_each_item(pool: Pool) -> None:
    assert pool.starmap(add, [(1, 2), [3, 4], (5, 6, 7)]) == [3, 7, 18]
    assert pool.starmap(add, iter([(1, 2)] * 100), chunksize=9) == [3] * 100


def test_apply_passes_arguments_and_keywords(pool: Pool) -> None:
    assert pool.apply(add, (1, 2)) == 3
    assert pool.apply(add, (1,), {"y": 2, "z": 3}) == 6
    assert pool.apply(add, [1], {"y": 2}) == 3
    pid = pool.apply(os.getpid)
    until(lambda: pid in pool.worker_pids())


def test_submit_returns_a_future(pool: Pool) -> None:
    future = pool.submit(add, 1, y=2)
    assert isinstance(future, libpool.Future)
    assert future.result() == 3


def test_map_raises_the_first_error_in_order_when_all_chunks_have_ended(
    started: Gate, held: Gate, pool: Pool
) -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            pool.starmap(_fail_or_wait, [(x, started, held) for x in range(4)], chunksize=1)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    started.wait_for()
    until(lambda: pool.stats()["jobs_started"] == 4)
    assert thread.is_alive()
    held.open()
    thread.join()
    assert [error.args for error in caught] == [(1,)]


def _fail_or_wait(x: int, started: Gate, held: Gate) -> None:
    if x == 0:
        pass_gates(started, held)
    else:
        raise ValueError(x)


def test_an_error_ends_its_chunk_only(gate: Callable[[], Gate]) -> None:
    seen = gate()
    with Pool(2) as pool:
        with pytest.raises(ValueError, match="2"):
            pool.starmap(_tell_and_fail, [(x, seen) for x in range(8)], chunksize=4)
    assert sorted(os.read(seen.read_end, 100)) == [0, 1, 2, 4, 5, 6, 7]


def _tell_and_fail(x: int, seen: Gate) -> None:
    os.write(seen.write_end, bytes([x]))
    if x == 2:
        raise ValueError(x)


def test_map_goes_on_working_after_an_error(pool: Pool) -> None:
    with pytest.raises(ValueError):
        pool.starmap(fail_on, [(x, (3,)) for x in range(10)])
    assert pool.map(square, range(10)) == [x * x for x in range(10)]


def test_two_threads_can_map_at_the_same_time(pool: Pool) -> None:
    results: dict[int, list[int]] = {}

    def call(offset: int) -> None:
        results[offset] = pool.map(square, range(offset, offset + 500), chunksize=7)

    threads = [threading.Thread(target=call, args=[offset]) for offset in range(0, 2000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {o: [x * x for x in range(o, o + 500)] for o in range(0, 2000, 500)}


# ---- Workers ------------------------------------------------------------------------------------


def test_initializer_is_called_once_in_each_worker(gate: Callable[[], Gate]) -> None:
    seen = gate()
    with Pool(3, _tell_pid, (seen,)) as pool:
        told = b""
        while told.count(b" ") < 3:
            told += os.read(seen.read_end, 1000)
        pool.map(square, range(100), chunksize=1)
        until(lambda: sorted(map(int, told.split())) == sorted(pool.worker_pids()))
    os.set_blocking(seen.read_end, False)
    with pytest.raises(BlockingIOError):
        os.read(seen.read_end, 1000)


def _tell_pid(seen: Gate) -> None:
    os.write(seen.write_end, b"%d " % os.getpid())


def test_initializer_sets_globals_for_jobs() -> None:
    with Pool(2, _set_offset, [10]) as pool:
        assert pool.map(_add_offset, [1, 2]) == [11, 12]


def _set_offset(value: int) -> None:
    global offset
    offset = value


def _add_offset(x: int) -> int:
    return x + offset  # type: ignore[name-defined, no-any-return] # noqa: F821


def test_there_is_one_worker_for_each_usable_core_by_default(tmp_path: object) -> None:
    with Pool() as pool:
        assert pool.workers == libpool.cpu_count()
    assert 1 <= libpool.cpu_count() <= len(os.sched_getaffinity(0))


def test_affinity_limits_the_number_of_workers(tmp_path) -> None:
    path = program(
        tmp_path / "one_core.py",
        """
        import os, libpool
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with libpool.Pool() as pool, libpool.Executor() as executor:
            print(libpool.cpu_count(), pool.workers, executor.workers)
        """,
    )
    assert run(path) == "1 1 1\n"


def test_a_job_can_map_over_its_own_pool(pool: Pool) -> None:
    assert pool.map(_sum_of_squares, [3, 4, 5, 6]) == [5, 14, 30, 55]


def _sum_of_squares(n: int) -> int:
    pool = libpool.current()
    assert isinstance(pool, Pool)
    return sum(pool.map(square, range(n)))


# ---- The end ------------------------------------------------------------------------------------


def test_a_closed_pool_finishes_what_was_submitted_and_takes_no_more(
    started: Gate, held: Gate
) -> None:
    pool = Pool(2)
    held_back = [pool.submit(pass_gates, started, held, x) for x in range(4)]
    pool.close()
    for call in (
        lambda: pool.apply(square, (1,)),
        lambda: pool.map(square, [1]),
        lambda: pool.map(square, []),
        lambda: pool.starmap(add, []),
        lambda: pool.submit(square, 1),
        pool.__enter__,
    ):
        with pytest.raises(ValueError, match="^Pool not running$"):
            call()
    held.open(4)
    pool.join()
    assert [future.result() for future in held_back] == [0, 1, 2, 3]
    pool.close()
    pool.join()


def test_join_wants_the_pool_to_be_closed(pool: Pool) -> None:
    with pytest.raises(ValueError, match="^Pool is still running$"):
        pool.join()


def test_join_tells_whether_the_pool_has_ended_in_time(started: Gate, held: Gate) -> None:
    pool = Pool(1)
    future = pool.submit(pass_gates, started, held)
    pool.close()
    assert pool.join(0.01) is False
    held.open()
    assert pool.join(20) is True
    assert future.result() is None


def test_terminate_ends_running_and_waiting_jobs(started: Gate, held: Gate) -> None:
    pool = Pool(2)
    futures = [pool.submit(pass_gates, started, held) for _ in range(10)]
    started.wait_for()
    pids = [*pool.worker_pids(), pool.supervisor_pid]
    pool.terminate()
    assert not any(map(is_alive, pids))
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=20)
    pool.terminate()
    pool.join()
    with pytest.raises(ValueError, match="^Pool not running$"):
        pool.map(square, [1])


def test_terminate_in_another_thread_ends_a_map(started: Gate, held: Gate) -> None:
    pool = Pool(2)
    threading.Thread(target=lambda: (started.wait_for(), pool.terminate())).start()
    with pytest.raises(CancelledError):
        pool.starmap(pass_gates, [(started, held)] * 20, chunksize=1)
    pool.join()


def test_results_can_be_read_after_the_end() -> None:
    with Pool(2) as pool:
        futures = [pool.submit(square, x) for x in range(10)]
        pool.map(square, range(10))
        results = [pool.submit(bytes, 100_000) for _ in range(3)]
        for result in results:
            result.exception()
    assert [len(result.result()) for result in results] == [100_000] * 3
    assert futures[0].result() == 0


def test_leaving_the_context_terminates(started: Gate, held: Gate) -> None:
    with Pool(2) as pool:
        future = pool.submit(pass_gates, started, held)
        started.wait_for()
        pids = pool.worker_pids()
    assert not any(map(is_alive, pids))
    assert future.cancelled()


def test_a_pool_can_not_be_pickled(pool: Pool) -> None:
    with pytest.raises(
        NotImplementedError,
        match="^pool objects cannot be passed between processes or pickled$",
    ):
        pickle.dumps(pool)
    with pytest.raises(NotImplementedError):
        pool.submit(id, pool).result()


def test_repr_tells_state_and_size() -> None:
    pool = Pool(2)
    assert repr(pool) == "<libpool.Pool state=RUN pool_size=2>"
    pool.close()
    assert repr(pool) == "<libpool.Pool state=CLOSE pool_size=2>"
    pool.join()
    with Pool(1) as pool:
        pass
    assert repr(pool) == "<libpool.Pool state=TERMINATE pool_size=1>"


def test_a_running_pool_that_is_collected_warns_and_finishes() -> None:
    pool = Pool(2)
    pids = pool.worker_pids()
    future = pool.submit(square, 3)
    with pytest.warns(ResourceWarning, match="unclosed running pool"):
        del pool
        gc.collect()
    assert future.result() == 9
    until(lambda: not any(map(is_alive, pids)))


def test_a_closed_pool_that_is_collected_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = Pool(2)
        pool.close()
        pool.join()
        del pool
        with Pool(2) as pool:
            pass
        del pool
        gc.collect()


def test_stats_tell_what_the_pool_has_done(pool: Pool) -> None:
    pool.map(square, range(100), chunksize=10)
    stats = pool.stats()
    assert stats["workers"] == 2
    assert stats["jobs_started"] == 10
    assert stats["supervisor"] == pool.supervisor_pid
    assert 0 < stats["memory"] < stats["shared_limit"]
