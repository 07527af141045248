"""Futures with everything that works on those of concurrent.futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support import Gate, pass_gates, until

import libpool


def square(x: int) -> int:
    return x * x


def fail() -> None:
    raise ValueError("why")


# ---- One future ---------------------------------------------------------------------------------


def test_states_of_a_future(started: Gate, held: Gate, workers: Any) -> None:
    future = workers.submit(pass_gates, started, held, 5)
    started.wait_for()
    assert (future.running(), future.done(), future.cancelled()) == (True, False, False)
    assert "state=running" in repr(future)
    assert future.cancel() is False
    held.open()
    assert future.result() == 5
    assert (future.running(), future.done(), future.cancelled()) == (False, True, False)
    assert "state=finished returned int" in repr(future)
    assert future.exception() is None
    assert future.cancel() is False


def test_a_failed_future(workers: Any) -> None:
    future = workers.submit(fail)
    assert type(future.exception()) is ValueError
    with pytest.raises(ValueError, match="why"):
        future.result()
    assert "state=finished raised ValueError" in repr(future)


def test_a_job_that_waits_can_be_cancelled(started: Gate, held: Gate) -> None:
    with libpool.Executor(1) as executor:
        first = executor.submit(pass_gates, started, held)
        started.wait_for()
        second = executor.submit(fail)
        assert not second.running() and not second.done()
        assert second.cancel() is True
        assert second.cancel() is True
        assert second.cancelled() and second.done() and not second.running()
        for ask in (second.result, second.exception):
            with pytest.raises(concurrent.futures.CancelledError):
                ask(timeout=5)
        held.open()
        assert first.result() is None
        assert executor.submit(square, 3).result() == 9


def test_a_wait_that_times_out_can_be_repeated(started: Gate, held: Gate, workers: Any) -> None:
    future = workers.submit(pass_gates, started, held, 7)
    for timeout in (0, 0.01, 0.05):
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout)
        with pytest.raises(TimeoutError):
            future.exception(timeout=timeout)
    held.open()
    assert future.result(20) == 7


def test_many_threads_can_wait_for_one_future(started: Gate, held: Gate, workers: Any) -> None:
    future = workers.submit(pass_gates, started, held, [1])
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait_for()
    held.open()
    for thread in threads:
        thread.join()
    assert results == [[1]] * 8
    assert all(result is results[0] for result in results)


def test_a_dropped_future_does_not_stop_its_job(started: Gate, workers: Any) -> None:
    workers.submit(started.open)
    gc.collect()
    started.wait_for()


def test_a_result_lives_as_long_as_its_future(workers: Any) -> None:
    future = workers.submit(_Thing)
    reference = weakref.ref(future.result())
    gc.collect()
    assert reference() is not None
    del future
    gc.collect()
    assert reference() is None


class _Thing:
    pass


def test_a_future_can_not_be_pickled_or_copied(workers: Any) -> None:
    future = workers.submit(square, 2)
    with pytest.raises(TypeError):
        pickle.dumps(future)
    with pytest.raises(TypeError):
        copy.deepcopy(future)
    assert future.result() == 4


def test_it_works_on_futures_as_set_by_hand(workers: Any) -> None:
    plain = concurrent.futures.Future()  # type: ignore[var-annotated]
    mine = workers.submit(square, 2)
    done, _ = concurrent.futures.wait([plain, mine], return_when="FIRST_COMPLETED", timeout=20)
    assert done == {mine}


# ---- Callbacks ----------------------------------------------------------------------------------


def test_callbacks_are_called_in_order_with_the_future(
    started: Gate, held: Gate, workers: Any
) -> None:
    future = workers.submit(pass_gates, started, held, 3)
    calls: list[Any] = []
    finished = threading.Event()
    future.add_done_callback(lambda f: calls.append(("first", f, f.result())))
    future.add_done_callback(lambda f: calls.append(("second", f, f.result())))
    future.add_done_callback(lambda f: finished.set())
    started.wait_for()
    assert calls == []
    held.open()
    assert finished.wait(20)
    assert calls == [("first", future, 3), ("second", future, 3)]


def test_a_callback_of_a_finished_future_is_called_at_once(workers: Any) -> None:
    future = workers.submit(square, 2)
    future.result()
    threads: list[int] = []
    future.add_done_callback(lambda f: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]


def test_a_callback_of_a_failed_and_of_a_cancelled_future(started: Gate, held: Gate) -> None:
    with libpool.Executor(1) as executor:
        running = executor.submit(pass_gates, started, held)
        started.wait_for()
        waiting = executor.submit(square, 1)
        failing = executor.submit(fail)
        calls: list[str] = []
        finished = threading.Event()
        waiting.add_done_callback(lambda f: calls.append(f"cancelled {f.cancelled()}"))
        failing.add_done_callback(lambda f: (calls.append(repr(f.exception())), finished.set()))
        waiting.cancel()
        assert calls == ["cancelled True"]
        held.open()
        assert finished.wait(20)
        running.result()
    assert calls == ["cancelled True", "ValueError('why')"]


def test_a_callback_that_raises_is_logged_and_the_others_run(
    started: Gate, held: Gate, workers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    future = workers.submit(pass_gates, started, held)
    finished = threading.Event()
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(lambda f: finished.set())
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        held.open()
        assert finished.wait(20)
    assert "exception calling callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_callbacks_run_while_the_main_thread_is_busy(workers: Any) -> None:
    seen: list[int] = []
    futures = [workers.submit(square, x) for x in range(100)]
    for future in futures:
        future.add_done_callback(lambda f: seen.append(f.result()))
    until(lambda: len(seen) == 100)
    assert sorted(seen) == [x * x for x in range(100)]


def test_a_callback_may_submit(workers: Any) -> None:
    results: list[int] = []
    finished = threading.Event()

    def go_on(future: Any) -> None:
        results.append(future.result())
        if future.result() < 100:
            workers.submit(square, future.result()).add_done_callback(go_on)
        else:
            finished.set()

    workers.submit(square, 2).add_done_callback(go_on)
    assert finished.wait(20)
    assert results == [4, 16, 256]


def test_callbacks_have_run_when_shutdown_returns() -> None:
    seen: list[int] = []
    with libpool.Executor(2) as executor:
        for x in range(50):
            executor.submit(square, x).add_done_callback(lambda f: seen.append(f.result()))
    assert sorted(seen) == [x * x for x in range(50)]


# ---- wait, as_completed -------------------------------------------------------------------------


def test_wait_for_all(workers: Any) -> None:
    futures = [workers.submit(square, x) for x in range(50)]
    done, not_done = concurrent.futures.wait(futures, timeout=20)
    assert done == set(futures) and not not_done


def test_wait_for_the_first(gate: Callable[[], Gate]) -> None:
    started, slow, fast = gate(), gate(), gate()
    with libpool.Executor(2) as executor:
        futures = [executor.submit(pass_gates, started, held) for held in (slow, fast)]
        started.wait_for()
        started.wait_for()
        fast.open()
        done, not_done = concurrent.futures.wait(futures, 20, "FIRST_COMPLETED")
        assert done == {futures[1]} and not_done == {futures[0]}
        slow.open()
        assert concurrent.futures.wait(futures, 20).done == set(futures)


def test_wait_for_the_first_exception(started: Gate, held: Gate, workers: Any) -> None:
    running = workers.submit(pass_gates, started, held)
    started.wait_for()
    failing = workers.submit(fail)
    done, not_done = concurrent.futures.wait([running, failing], 20, "FIRST_EXCEPTION")
    assert failing in done and running in not_done
    held.open()
    running.result()


def test_wait_times_out(started: Gate, held: Gate, workers: Any) -> None:
    running = workers.submit(pass_gates, started, held)
    done, not_done = concurrent.futures.wait([running], timeout=0.01)
    assert not done and not_done == {running}
    held.open()
    assert concurrent.futures.wait([running], 20).done == {running}


def test_as_completed_gives_futures_as_they_end(gate: Callable[[], Gate]) -> None:
    started, gates = gate(), [gate(), gate(), gate()]
    with libpool.Executor(3) as executor:
        futures = [executor.submit(pass_gates, started, held) for held in gates]
        ended = concurrent.futures.as_completed(futures, timeout=20)
        for number in (2, 0, 1):
            gates[number].open()
            assert next(ended) is futures[number]
        with pytest.raises(StopIteration):
            next(ended)


def test_as_completed_over_many(workers: Any) -> None:
    futures = {workers.submit(square, x): x for x in range(500)}
    for future in concurrent.futures.as_completed(futures, timeout=40):
        assert future.result() == futures[future] ** 2


def test_as_completed_times_out(started: Gate, held: Gate, workers: Any) -> None:
    running = workers.submit(pass_gates, started, held)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([running], timeout=0.01))
    held.open()


def test_wait_over_futures_of_several_pools() -> None:
    with libpool.Executor(1) as one, libpool.Pool(1) as two:
        with concurrent.futures.ThreadPoolExecutor(1) as three:
            futures = [w.submit(square, 3) for w in (one, two, three) for _ in range(5)]
            assert concurrent.futures.wait(futures, 20).done == set(futures)
            assert {future.result() for future in futures} == {9}


def test_wait_for_a_worker_that_dies(workers: Any) -> None:
    dying = workers.submit(os._exit, 3)
    assert concurrent.futures.wait([dying], 20).done == {dying}
    assert isinstance(dying.exception(), libpool.WorkerDied)


# ---- asyncio ------------------------------------------------------------------------------------


def test_asyncio_can_await_it(workers: Any) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(
            *(asyncio.wrap_future(workers.submit(square, x)) for x in range(100))
        )

    assert asyncio.run(main()) == [x * x for x in range(100)]


def test_run_in_executor(executor: libpool.Executor) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="why"):
            await loop.run_in_executor(executor, fail)
        return await loop.run_in_executor(executor, square, 5)

    assert asyncio.run(main()) == 25


def test_a_pool_made_in_a_coroutine_runs_coroutines_in_its_jobs() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        with libpool.Executor(1) as executor:
            return await loop.run_in_executor(executor, _run_coroutine)

    assert asyncio.run(main()) == 5


def _run_coroutine() -> int:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 5

    return asyncio.run(inner())


def test_the_loop_goes_on_while_a_job_runs(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> tuple[int, object]:
        job = asyncio.wrap_future(workers.submit(pass_gates, started, held, "done"))
        turns = 0
        while not job.done():
            turns += 1
            if turns == 100:
                held.open()
            await asyncio.sleep(0.0001)
        return turns, await job

    turns, result = asyncio.run(main())
    assert turns >= 100 and result == "done"


def test_cancelling_the_wrapper_cancels_a_waiting_job(started: Gate, held: Gate) -> None:
    async def main(executor: libpool.Executor) -> None:
        waiting = executor.submit(square, 2)
        wrapped = asyncio.wrap_future(waiting)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        while not waiting.cancelled():  # a turn of the loop later
            await asyncio.sleep(0)

    with libpool.Executor(1) as executor:
        executor.submit(pass_gates, started, held)
        started.wait_for()
        asyncio.run(main(executor))
        held.open()


def test_wait_for_with_a_timeout(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> float:
        begin = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(
                asyncio.wrap_future(workers.submit(pass_gates, started, held)), timeout=0.05
            )
        return time.monotonic() - begin

    assert asyncio.run(main()) >= 0.04
    held.open()


# ---- Jobs that use their pool -------------------------------------------------------------------


def test_current_is_none_in_the_host() -> None:
    assert libpool.current() is None


def test_current_is_the_pool_in_a_job(workers: Any) -> None:
    assert workers.submit(lambda: type(libpool.current())).result() is type(workers)


def test_fork_join_on_two_workers(workers: Any) -> None:
    assert workers.submit(_fibonacci, 14).result() == 377


def _fibonacci(n: int) -> int:
    if n < 2:
        return n
    pool = libpool.current()
    assert pool is not None
    left = pool.submit(_fibonacci, n - 1)
    right = pool.submit(_fibonacci, n - 2)
    return left.result() + right.result()


def test_quicksort_by_fork_join(workers: Any) -> None:
    numbers = [(7919 * x) % 1009 for x in range(1000)]
    assert workers.submit(_quicksort, numbers).result() == sorted(numbers)


def _quicksort(numbers: list[int]) -> list[int]:
    if len(numbers) < 30:
        return sorted(numbers)
    pool = libpool.current()
    assert pool is not None
    pivot = numbers[0]
    low = pool.submit(_quicksort, [x for x in numbers if x < pivot])
    high = pool.submit(_quicksort, [x for x in numbers if x > pivot])
    return [*low.result(), *(x for x in numbers if x == pivot), *high.result()]


def test_a_chain_of_nested_jobs_on_one_worker() -> None:
    with libpool.Executor(1) as executor:
        assert executor.submit(_chain, 30).result() == 30


def _chain(n: int) -> int:
    pool = libpool.current()
    assert pool is not None
    return 1 + pool.submit(_chain, n - 1).result() if n else 0


def test_wait_and_as_completed_in_a_job(workers: Any) -> None:
    assert workers.submit(_wait_inside).result() == sum(x * x for x in range(20))


def _wait_inside() -> int:
    pool = libpool.current()
    assert pool is not None
    futures = [pool.submit(square, x) for x in range(20)]
    return sum(future.result() for future in concurrent.futures.as_completed(futures))
