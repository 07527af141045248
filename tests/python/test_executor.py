"""libpool.Executor: the interface of concurrent.futures.ProcessPoolExecutor."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import multiprocessing
import operator
import os
import weakref
from collections.abc import Callable, Iterator

import pytest
from support import Gate, is_alive, pass_gates, until

import libpool
from libpool import Executor


def square(x: int) -> int:
    return x * x


def invert(x: int) -> float:
    return 1 / x


# ---- submit -------------------------------------------------------------------------------------


def test_it_is_an_executor_and_its_futures_are_futures(executor: Executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor.submit(square, 1), concurrent.futures.Future)
    assert issubclass(libpool.Future, concurrent.futures.Future)


def test_submit_passes_arguments_and_keywords(executor: Executor) -> None:
    assert executor.submit(sorted, [2, 1, 3], key=operator.neg, reverse=False).result() == [3, 2, 1]
    assert executor.submit(dict, [(1, 2)], fn=3, self=4).result() == {1: 2, "fn": 3, "self": 4}


def test_a_lambda_sees_its_closure(executor: Executor) -> None:
    k = 4
    assert executor.submit(lambda x: x + k, 3).result() == 7


# ---- map ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 3, 1000])
def test_map_gives_results_in_order(executor: Executor, chunksize: int) -> None:
    results = executor.map(square, range(100), chunksize=chunksize)
    assert isinstance(results, Iterator)
    assert list(results) == [x * x for x in range(100)]


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_takes_several_iterables_up_to_the_end_of_the_shortest(
    executor: Executor, chunksize: int
) -> None:
    results = executor.map(pow, [1, 2, 3], itertools.count(2), [5, 7, 9, 11], chunksize=chunksize)
    assert list(results) == [1, 1, 0]
    assert list(executor.map(square, chunksize=chunksize)) == []
    assert list(executor.map(square, [], chunksize=chunksize)) == []


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_exhausts_its_iterables_at_once(executor: Executor, chunksize: int) -> None:
    items = iter([1, 2, 3])
    results = executor.map(square, items, chunksize=chunksize)
    assert list(items) == []
    assert list(results) == [1, 4, 9]


def test_map_obeys_the_chunksize(executor: Executor) -> None:
    list(executor.map(square, range(10), chunksize=4))
    assert executor.stats()["jobs_started"] == 3


def test_map_raises_at_the_item_that_failed(executor: Executor) -> None:
    results = executor.map(invert, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_gives_early_results_while_later_jobs_run(started: Gate, held: Gate) -> None:
    with Executor(2) as executor:
        results = executor.map(_wait_if_odd, [0, 1], [started] * 2, [held] * 2)
        assert next(results) == 0
        started.wait_for()
        held.open()
        assert next(results) == 1


def _wait_if_odd(x: int, started: Gate, held: Gate) -> object:
    return pass_gates(started, held, x) if x % 2 else x


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_times_out(started: Gate, held: Gate, chunksize: int) -> None:
    with Executor(2) as executor:
        results = executor.map(
            pass_gates, [started] * 8, [held] * 8, range(8), timeout=0.05, chunksize=chunksize
        )
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
        held.open(8)


def test_map_cancels_what_waits_when_it_is_closed(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        results = executor.map(pass_gates, [started] * 10, [held] * 10, range(10))
        started.wait_for()
        held.open()
        assert next(results) == 0
        started.wait_for()
        results.close()  # type: ignore[attr-defined]
        held.open(9)
    assert executor.stats()["jobs_started"] <= 3


def test_map_cancels_what_waits_when_it_fails(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        results = executor.map(_fail_if_first, range(10), [started] * 10, [held] * 10)
        started.wait_for()
        held.open()
        with pytest.raises(ValueError):
            list(results)
        held.open(9)
    assert executor.stats()["jobs_started"] <= 3


def _fail_if_first(x: int, started: Gate, held: Gate) -> None:
    pass_gates(started, held)
    if x == 0:
        raise ValueError(x)


class Weak:
    """Can be referred to weakly."""


def test_map_keeps_no_result_alive_that_it_has_given(executor: Executor) -> None:
    results = executor.map(_weak, range(4))
    for _ in range(4):
        reference = weakref.ref(next(results))
        gc.collect()
        assert reference() is None


def _weak(_: int) -> Weak:
    return Weak()


# ---- The end ------------------------------------------------------------------------------------


def test_shutdown_waits_for_what_was_submitted(started: Gate, held: Gate) -> None:
    executor = Executor(2)
    futures = [executor.submit(pass_gates, started, held, x) for x in range(6)]
    pids = executor.worker_pids()
    held.open(6)
    executor.shutdown()
    assert [future.result(0) for future in futures] == list(range(6))
    assert not any(map(is_alive, pids))
    executor.shutdown()


@pytest.mark.parametrize("wait", [True, False])
def test_after_shutdown_nothing_can_be_submitted(wait: bool) -> None:
    executor = Executor(1)
    executor.shutdown(wait=wait)
    for call in (
        lambda: executor.submit(square, 1),
        lambda: executor.map(square, [1]),
        lambda: executor.map(square, [1], chunksize=2),
    ):
        with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
            call()


def test_shutdown_without_waiting_returns_while_jobs_run(started: Gate, held: Gate) -> None:
    executor = Executor(1)
    futures = [executor.submit(pass_gates, started, held, x) for x in range(3)]
    started.wait_for()
    executor.shutdown(wait=False)
    assert not futures[0].done()
    held.open(3)
    assert [future.result(20) for future in futures] == [0, 1, 2]


def test_jobs_go_on_when_the_executor_is_dropped_after_shutdown_without_waiting(
    started: Gate, held: Gate
) -> None:
    executor = Executor(1)
    for x in range(3):
        executor.submit(pass_gates, started, held, x)
    pids = [*executor.worker_pids(), executor.supervisor_pid]
    executor.shutdown(wait=False)
    del executor
    gc.collect()
    for _ in range(3):
        started.wait_for()
        held.open()
    until(lambda: not any(map(is_alive, pids)))


def test_jobs_go_on_when_the_executor_is_dropped(started: Gate, held: Gate) -> None:
    executor = Executor(1)
    futures = [executor.submit(pass_gates, started, held, x) for x in range(3)]
    pids = [*executor.worker_pids(), executor.supervisor_pid]
    del executor
    gc.collect()
    held.open(3)
    assert [future.result(20) for future in futures] == [0, 1, 2]
    until(lambda: not any(map(is_alive, pids)))


def test_shutdown_can_cancel_what_waits(started: Gate, held: Gate) -> None:
    executor = Executor(1)
    futures = [executor.submit(pass_gates, started, held, x) for x in range(20)]
    started.wait_for()
    executor.shutdown(wait=False, cancel_futures=True)
    held.open(20)
    executor.shutdown()
    assert futures[0].result() == 0
    assert not futures[0].cancelled()
    assert all(future.cancelled() for future in futures[2:])


def test_leaving_the_context_waits(started: Gate, held: Gate) -> None:
    with Executor(2) as executor:
        future = executor.submit(pass_gates, started, held, 1)
        held.open()
    assert future.result(0) == 1
    with pytest.raises(RuntimeError):
        executor.submit(square, 1)


# ---- How it is made -----------------------------------------------------------------------------


def test_there_is_one_worker_for_each_usable_core_by_default() -> None:
    with Executor() as executor:
        assert executor.workers == libpool.cpu_count()


def test_the_context_says_how_the_workers_are_started() -> None:
    with Executor(1, multiprocessing.get_context("fork")) as executor:
        assert executor.submit(square, 3).result() == 9


def test_initializer_runs_before_the_first_job(gate: Callable[[], Gate]) -> None:
    seen = gate()
    with Executor(1, initializer=_tell, initargs=(seen, b"i")) as executor:
        executor.submit(_tell, seen, b"j").result()
    assert os.read(seen.read_end, 10) == b"ij"


def _tell(seen: Gate, what: bytes) -> None:
    os.write(seen.write_end, what)
