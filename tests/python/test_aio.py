"""The pool in asyncio: run_in_executor(), and `aio`, which needs no thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import importlib.util
import itertools
import logging
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import MIB, Gate, open_descriptors, pass_gates, program, run, start

import libpool

HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None


def square(x: int) -> int:
    return x * x


def add(a: int, b: int) -> int:
    return a + b


def fail(why: str = "why") -> None:
    raise ValueError(why)


def keep_later(numbers: list[int], delay: float) -> list[int]:
    time.sleep(delay)
    return numbers


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


async def until_async(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait for what no event tells of, while the loop runs."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


async def started_by_loop(gate: Gate) -> None:
    """Wait until a job has opened the gate, while the loop runs."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(gate.read_end, event.set)
    async with asyncio.timeout(20):
        await event.wait()
    loop.remove_reader(gate.read_end)
    os.read(gate.read_end, 1)


# ---- loop.run_in_executor() ---------------------------------------------------------------------


def test_run_in_executor(workers: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(workers, square, n) for n in range(100)]
        assert await asyncio.gather(*calls) == [n * n for n in range(100)]
        with pytest.raises(ValueError, match="why"):
            await loop.run_in_executor(workers, fail)

    asyncio.run(main())


def test_run_in_executor_as_the_default_executor() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError):  # as for ProcessPoolExecutor
            loop.set_default_executor(libpool.Executor(1))  # type: ignore[arg-type]
        with libpool.Executor(1) as executor:
            return await loop.run_in_executor(executor, os.getpid)

    assert asyncio.run(main()) != os.getpid()


def test_a_cancelled_run_in_executor_cancels_a_job_that_waits(started: Gate, held: Gate) -> None:
    async def main(executor: libpool.Executor) -> None:
        loop = asyncio.get_running_loop()
        first = loop.run_in_executor(executor, pass_gates, started, held, 1)
        await started_by_loop(started)
        waiting = loop.run_in_executor(executor, pass_gates, started, held, 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(executor, square, 3), 0.05)
        held.open()
        assert await first == 1
        assert await loop.run_in_executor(executor, square, 4) == 16
        assert executor.stats()["jobs_started"] == 2

    with libpool.Executor(1) as executor:
        asyncio.run(main(executor))


# ---- aio.submit() -------------------------------------------------------------------------------


def test_submit_gives_the_result(workers: Any) -> None:
    async def main() -> None:
        assert await workers.aio.submit(square, 7) == 49
        assert await workers.aio.submit(add, 1, b=2) == 3
        assert await workers.aio.submit(lambda: os.getpid()) in workers.worker_pids()
        assert await workers.aio.submit(print) is None
        assert await workers.aio.run(square, 8) == 64

    asyncio.run(main())


def test_submit_takes_no_thread(workers: Any) -> None:
    async def main() -> None:
        before = threads(), threading.enumerate()
        assert await asyncio.gather(*(workers.aio.submit(square, n) for n in range(500)))
        assert [r async for r in workers.aio.map(square, range(100))]
        assert (threads(), threading.enumerate()) == before

    asyncio.run(main())


def test_what_a_job_raises(workers: Any) -> None:
    class Unpicklable:
        def __reduce__(self) -> Any:
            raise TypeError("not to be sent")

    async def main() -> None:
        with pytest.raises(ValueError, match="why") as caught:
            await workers.aio.submit(fail)
        assert "in fail" in str(caught.value.__cause__)
        with pytest.raises(TypeError, match="not to be sent"):
            await workers.aio.submit(square, Unpicklable())
        with pytest.raises(TypeError, match="must be callable"):
            await workers.aio.submit(5)
        with pytest.raises(libpool.WorkerDied):
            await workers.aio.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await workers.aio.submit(next, iter([]))
        assert await workers.aio.submit(square, 2) == 4

    asyncio.run(main())


def test_without_a_running_loop_nothing_is_submitted(workers: Any) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        workers.aio.submit(square, 2)
    assert workers.stats()["jobs_started"] == 0


def test_options_hold_for_submit(workers: Any) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match="time limit"):
            await workers.options(timeout=0.1).aio.submit(time.sleep, 30)
        with pytest.raises(TimeoutError, match="time limit"):
            await workers.aio.options(timeout=0.1).submit(time.sleep, 30)
        assert await workers.aio.submit(keep_later, [1], 0.2) == [1]

    asyncio.run(main())


def test_what_takes_futures_takes_these(workers: Any) -> None:
    async def main() -> None:
        submit = workers.aio.submit
        done, pending = await asyncio.wait({submit(square, n) for n in range(5)})
        assert {one.result() for one in done} == {0, 1, 4, 9, 16} and not pending
        assert {await one for one in asyncio.as_completed([submit(square, 2)])} == {4}
        assert await asyncio.shield(submit(square, 3)) == 9
        assert await asyncio.wait_for(submit(square, 4), 20) == 16
        failed = await asyncio.gather(submit(fail), submit(square, 1), return_exceptions=True)
        assert isinstance(failed[0], ValueError) and failed[1] == 1

    asyncio.run(main())


def test_a_task_group_gets_all_results(workers: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(workers.aio.run(square, n)) for n in range(50)]
        assert [task.result() for task in tasks] == [n * n for n in range(50)]

    asyncio.run(main())


def test_a_failure_in_a_task_group_cancels_the_jobs_that_wait(
    started: Gate, gate: Callable[[], Gate]
) -> None:
    failing, others = gate(), gate()

    def fail_later() -> None:
        pass_gates(started, failing)
        raise ValueError("why")

    async def main(pool: libpool.Pool) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(pool.aio.run(fail_later))
                rest = [group.create_task(pool.aio.run(others.wait)) for _ in range(20)]
                await started_by_loop(started)
                failing.open()
        assert [str(error) for error in caught.value.exceptions] == ["why"]
        assert all(task.cancelled() for task in rest)
        others.open()  # the worker may have begun one before the failure was known
        assert await pool.aio.submit(square, 3) == 9
        assert pool.stats()["jobs_started"] <= 3

    with libpool.Pool(1) as pool:
        asyncio.run(main(pool))


def test_twenty_thousand_at_once_in_a_tenth_of_the_time_of_threads() -> None:
    # Measured 10 to 15 times faster. Held to 3, since other things run on this machine.
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        with libpool.Pool(2) as pool, concurrent.futures.ThreadPoolExecutor(2) as other:
            begin = time.perf_counter()
            found = await asyncio.gather(*(pool.aio.submit(square, n) for n in range(20_000)))
            middle = time.perf_counter()
            also = await asyncio.gather(
                *(loop.run_in_executor(other, square, n) for n in range(20_000))
            )
            end = time.perf_counter()
            assert found == also == [n * n for n in range(20_000)]
        return middle - begin, end - middle

    taken, other = asyncio.run(main())
    assert taken < other / 3


# ---- Cancelling, time-outs ----------------------------------------------------------------------


def test_cancelling_cancels_a_job_that_waits(started: Gate, held: Gate) -> None:
    async def main(pool: libpool.Pool) -> None:
        first = pool.aio.submit(pass_gates, started, held, 1)
        await started_by_loop(started)
        task = asyncio.create_task(pool.aio.run(square, 2))
        future = pool.aio.submit(square, 3)
        await asyncio.sleep(0)
        assert task.cancel() and future.cancel("because")
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.CancelledError, match="because"):
            await future
        assert not future.cancel()
        held.open()
        assert await first == 1
        assert await pool.aio.submit(square, 4) == 16
        assert pool.stats()["jobs_started"] == 2

    with libpool.Pool(1) as pool:
        asyncio.run(main(pool))


def test_a_running_job_goes_on_when_it_is_cancelled(started: Gate, held: Gate) -> None:
    async def main(pool: libpool.Pool) -> None:
        future = pool.aio.submit(pass_gates, started, held)
        await started_by_loop(started)
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        after = pool.aio.submit(os.getpid)
        await asyncio.sleep(0.05)
        assert not after.done()
        held.open()
        assert await after == pids[0]

    with libpool.Pool(1) as pool:
        pids = [pool.submit(os.getpid).result()]
        asyncio.run(main(pool))


def test_kill_on_cancel_ends_a_running_job(started: Gate, held: Gate) -> None:
    async def main(pool: libpool.Pool) -> None:
        calls = pool.aio.options(kill_on_cancel=True)
        future = calls.options(retries=2).submit(pass_gates, started, held)
        await started_by_loop(started)
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert await calls.submit(os.getpid) not in (None, pids[0])
        waiting = [calls.submit(pass_gates, started, held) for _ in range(3)]
        await started_by_loop(started)
        for one in waiting:
            one.cancel()
        assert await pool.aio.submit(square, 2) == 4
        assert pool.stats()["jobs_retried"] == 0

    with libpool.Pool(1) as pool:
        pids = [pool.submit(os.getpid).result()]
        asyncio.run(main(pool))


def test_a_timeout_block_cancels(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await workers.aio.submit(pass_gates, started, held)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(workers.aio.submit(pass_gates, started, held), 0.05)
        held.open(2)
        assert await workers.aio.submit(square, 5) == 25

    asyncio.run(main())


def test_results_that_race_with_cancelling_are_never_lost_or_mixed_up(workers: Any) -> None:
    async def main() -> None:
        calls = workers.aio
        for turn in range(100):
            futures = [calls.submit(square, n) for n in range(40)]
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            cancelled = [n for n, one in enumerate(futures) if n % 3 == 0 and one.cancel()]
            for n, one in enumerate(futures):
                if n in cancelled:
                    assert one.cancelled()
                else:
                    assert await one == n * n

    asyncio.run(main())


# ---- Several loops, threads, and watched futures ------------------------------------------------


def in_threads(count: int, main: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in each of several threads, each with a loop of its own."""
    with concurrent.futures.ThreadPoolExecutor(count) as others:
        for done in [others.submit(asyncio.run, main(n)) for n in range(count)]:
            done.result(40)


def test_loops_in_several_threads_use_one_pool(workers: Any) -> None:
    async def main(number: int) -> None:
        for turn in range(20):
            items = range(number * 1000, number * 1000 + 50)
            found = await asyncio.gather(*(workers.aio.submit(square, n) for n in items))
            assert found == [n * n for n in items]
            assert await workers.aio.submit(add, turn, number) == turn + number

    in_threads(4, main)


def test_callbacks_and_loops_share_one_pool(workers: Any) -> None:
    threads_of_callbacks = set()

    async def use_all(loop: asyncio.AbstractEventLoop) -> None:
        done = []

        def note(future: concurrent.futures.Future[int]) -> None:
            done.append(future.result())
            threads_of_callbacks.add(threading.current_thread().name)

        for n in range(20):
            workers.submit(square, n).add_done_callback(note)
        direct = asyncio.gather(*(workers.aio.submit(square, n) for n in range(20)))
        wrapped = asyncio.gather(*(loop.run_in_executor(workers, square, n) for n in range(20)))
        assert await direct == await wrapped == [n * n for n in range(20)]
        await until_async(lambda: len(done) == 20)

    async def main(number: int) -> None:
        for _ in range(20):
            await use_all(asyncio.get_running_loop())

    in_threads(3, main)
    # A callback that blocks must not hold up a loop.
    assert "libpool-collector" in threads_of_callbacks


def test_a_loop_that_stands_still_holds_up_nobody(workers: Any) -> None:
    standing = threading.Event()
    go_on = threading.Event()

    async def stand_still() -> None:
        assert await workers.aio.submit(square, 1) == 1
        late = [workers.aio.submit(square, n) for n in range(100)]
        standing.set()
        assert go_on.wait(30)  # blocks the loop
        assert await asyncio.gather(*late) == [n * n for n in range(100)]

    async def go() -> None:
        assert await workers.aio.submit(square, 3) == 9
        assert await asyncio.gather(*(workers.aio.submit(square, n) for n in range(100)))

    thread = threading.Thread(target=asyncio.run, args=[stand_still()])
    thread.start()
    assert standing.wait(20)
    try:
        asyncio.run(asyncio.wait_for(go(), 20))
        future = workers.submit(square, 5)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(20)
        assert future.result() == 25
    finally:
        go_on.set()
        thread.join(20)
    assert not thread.is_alive()


def test_a_loop_that_is_stopped_and_run_again_gets_its_results(workers: Any) -> None:
    loop = asyncio.new_event_loop()

    async def submit() -> list[Any]:
        return [workers.aio.submit(square, n) for n in range(50)]

    async def collect(futures: list[Any]) -> list[int]:
        return await asyncio.gather(*futures)

    try:
        futures = loop.run_until_complete(submit())
        assert asyncio.run(submit_one(workers)) == 4  # takes what is announced for both
        assert loop.run_until_complete(collect(futures)) == [n * n for n in range(50)]
    finally:
        loop.close()


async def submit_one(workers: Any) -> Any:
    return await workers.aio.submit(square, 2)


def test_many_loops_one_after_the_other_leave_nothing(workers: Any) -> None:
    asyncio.run(submit_one(workers))
    before = open_descriptors()
    for _ in range(20):
        assert asyncio.run(submit_one(workers)) == 4
    gc.collect()
    assert open_descriptors() == before


# ---- The end of a loop --------------------------------------------------------------------------


def test_jobs_finish_when_the_loop_is_closed_before(tmp_path: Path) -> None:
    path = program(
        tmp_path / "closed.py",
        """
        import asyncio, os, sys, time
        import libpool

        def touch(path):
            time.sleep(0.1)
            with open(path, "w"):
                pass
            return bytes(1 << 20)

        async def main(pool, names):
            for name in names:
                pool.aio.submit(touch, name)

        pool = libpool.Executor(2)
        names = [os.path.join(sys.argv[1], str(n)) for n in range(6)]
        asyncio.run(main(pool, names))
        pool.shutdown()
        print(all(map(os.path.exists, names)))
        """,
    )
    assert run(path, str(tmp_path)) == "True\n"


def test_a_closed_loop_lets_go_of_its_jobs_and_results(workers: Any) -> None:
    async def main() -> Any:
        future = workers.aio.submit(keep_later, list(range(1000)), 0.05)
        workers.aio.submit(square, 2)
        assert await workers.aio.submit(square, 3) == 9
        return weakref.ref(asyncio.get_running_loop()), weakref.ref(future)

    loop, future = asyncio.run(main())
    gc.collect()
    assert loop() is None and future() is None
    # Nobody knows these jobs any more, so the pool ends only when it has freed them by itself.
    workers.close()
    assert workers.join(20)


def test_descriptors_are_given_back_when_pools_come_and_go_in_one_loop() -> None:
    async def main() -> None:
        async def use() -> None:
            async with libpool.Pool(1).aio as calls:
                assert await calls.submit(square, 3) == 9
            with libpool.Executor(1) as executor:
                assert await executor.aio.submit(square, 4) == 16
            with libpool.Pool(1) as pool:
                assert await pool.aio.submit(square, 5) == 25
                pool.aio.submit(time.sleep, 30)

        await use()
        gc.collect()
        await asyncio.sleep(0.1)
        before = open_descriptors()
        for _ in range(5):
            await use()
        gc.collect()
        await until_async(lambda: open_descriptors() == before)

    asyncio.run(main())


def test_a_pool_that_is_dropped_while_awaited_finishes_its_jobs() -> None:
    async def main() -> None:
        executor = libpool.Executor(1)
        futures = [executor.aio.submit(keep_later, [n], 0.02) for n in range(5)]
        del executor
        assert await asyncio.gather(*futures) == [[n] for n in range(5)]

    asyncio.run(main())


# ---- The end of a pool --------------------------------------------------------------------------


def test_a_dead_supervisor_breaks_the_pool_for_who_awaits(
    started: Gate, held: Gate, workers: Any
) -> None:
    async def main() -> None:
        waiting = [workers.aio.submit(pass_gates, started, held) for _ in range(4)]
        await started_by_loop(started)
        begin = time.monotonic()
        os.kill(workers.supervisor_pid, signal.SIGKILL)
        for one in waiting:
            with pytest.raises(libpool.BrokenPool):
                await asyncio.wait_for(one, 5)
        assert time.monotonic() - begin < 1
        with pytest.raises(libpool.BrokenPool):
            await workers.aio.submit(square, 2)

    asyncio.run(main())


def test_terminate_cancels_for_who_awaits(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> None:
        waiting = [workers.aio.submit(pass_gates, started, held) for _ in range(4)]
        await started_by_loop(started)
        workers.terminate()
        ended = await asyncio.wait_for(asyncio.wait(waiting), 5)
        assert all(one.cancelled() for one in ended[0]) and not ended[1]

    asyncio.run(main())


def test_cancel_waiting_reaches_the_loop(started: Gate, held: Gate) -> None:
    async def main(executor: libpool.Executor) -> None:
        first = executor.aio.submit(pass_gates, started, held, 1)
        await started_by_loop(started)
        waiting = [executor.aio.submit(square, n) for n in range(5)]
        executor.shutdown(wait=False, cancel_futures=True)
        ended, _ = await asyncio.wait_for(asyncio.wait(waiting), 5)
        assert all(one.cancelled() for one in ended)
        held.open()
        assert await first == 1

    with libpool.Executor(1) as executor:
        asyncio.run(main(executor))


def test_a_closed_pool_takes_no_calls_and_finishes_those_that_it_has(workers: Any) -> None:
    async def main() -> None:
        futures = [workers.aio.submit(keep_later, [n], 0.02) for n in range(4)]
        workers.close()
        with pytest.raises((ValueError, RuntimeError), match="not running|after shutdown"):
            workers.aio.submit(square, 2)
        assert await asyncio.gather(*futures) == [[n] for n in range(4)]

    asyncio.run(main())


def test_join_does_not_block_the_loop(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> None:
        calls = workers.aio
        with pytest.raises(ValueError, match="still running"):
            await calls.join()
        future = calls.submit(pass_gates, started, held, 5)
        await started_by_loop(started)
        workers.close()
        joining = asyncio.create_task(calls.join())
        also = asyncio.create_task(calls.join())
        await asyncio.sleep(0.05)
        assert not joining.done() and not future.done()
        held.open()
        await asyncio.wait_for(asyncio.gather(joining, also), 20)
        assert await future == 5
        await calls.join()
        assert workers.worker_pids() == []

    asyncio.run(main())


def test_the_context_manager_waits_for_jobs(workers: Any) -> None:
    async def main() -> None:
        async with workers.aio as calls:
            future = calls.submit(keep_later, [1], 0.1)
        assert future.result() == [1]
        assert workers.worker_pids() == []

    asyncio.run(main())


def test_the_context_manager_terminates_after_an_exception(
    started: Gate, held: Gate, workers: Any
) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with workers.aio as calls:
                future = calls.submit(pass_gates, started, held)
                await started_by_loop(started)
                raise ZeroDivisionError
        await asyncio.wait({future})
        assert future.cancelled() and workers.worker_pids() == []

    asyncio.run(main())


# ---- aio.map() ----------------------------------------------------------------------------------


async def numbers(count: int, log: list[int] | None = None) -> AsyncIterator[int]:
    for n in range(count):
        await asyncio.sleep(0)
        if log is not None:
            log.append(n)
        yield n


@pytest.mark.parametrize("chunksize", [1, 7])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", [range, numbers])
def test_map(workers: Any, source: Any, ordered: bool, chunksize: int) -> None:
    async def main() -> None:
        found = workers.aio.map(square, source(300), ordered=ordered, chunksize=chunksize)
        results = [result async for result in found]
        assert (results if ordered else sorted(results)) == [n * n for n in range(300)]
        assert [r async for r in workers.aio.map(square, source(0), chunksize=chunksize)] == []
        pairs = workers.aio.map(add, source(5), itertools.count(10), chunksize=chunksize)
        assert [r async for r in pairs] == [10, 12, 14, 16, 18]

    asyncio.run(main())


@pytest.mark.parametrize("source", [iter, "async"])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_holds_a_bounded_number_of_items(workers: Any, source: Any, ordered: bool) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def endless_async() -> AsyncIterator[int]:
        for n in endless():
            yield n

    async def main() -> None:
        items = endless_async() if source == "async" else endless()
        results = workers.aio.map(square, items, in_flight=5, ordered=ordered)
        async with contextlib.aclosing(results):
            for count in range(1, 50):
                await anext(results)
                await asyncio.sleep(0)
                assert taken <= count + 5

    asyncio.run(main())


def test_map_unordered_gives_what_is_ready(held: Gate, workers: Any) -> None:
    def wait_if_first(n: int) -> int:
        if n == 0:
            held.wait()
        return n

    async def main() -> None:
        results = workers.aio.map(wait_if_first, range(10), ordered=False)
        first = [await anext(results) for _ in range(9)]
        assert 0 not in first
        held.open()
        assert [r async for r in results] == [0]

    asyncio.run(main())


def test_map_gives_results_while_the_asynchronous_source_is_silent(workers: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            yield 2
            await more.wait()
            yield 3

        for ordered in (True, False):
            more.clear()
            results = workers.aio.map(square, source(), ordered=ordered)
            assert {await anext(results), await anext(results)} == {1, 4}
            more.set()
            assert [r async for r in results] == [9]

    asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_map_raises_what_a_job_or_the_source_raises(workers: Any, asynchronous: bool) -> None:
    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        raise LookupError("the source")

    async def async_source() -> AsyncIterator[int]:
        for n in source():
            yield n

    def fail_at_two(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    async def main() -> None:
        make = async_source if asynchronous else source
        found = []
        with pytest.raises(LookupError, match="the source"):
            async for result in workers.aio.map(square, make()):
                found.append(result)
        assert found == [1, 4, 9]
        found = []
        with pytest.raises(ValueError, match="two"):
            async for result in workers.aio.map(fail_at_two, make()):
                found.append(result)
        assert found == [1]

    asyncio.run(main())


@pytest.mark.parametrize("source", [range, numbers])
def test_ending_a_map_early_cancels_what_waits(
    started: Gate, held: Gate, caplog: Any, source: Any
) -> None:
    def wait_after_first(n: int) -> int:
        if n == 1:
            started.open()
            held.wait()
        if n > 1:
            raise ValueError("nobody asks for this")
        return n

    async def main(pool: libpool.Pool) -> None:
        async with contextlib.aclosing(pool.aio.map(wait_after_first, source(10))) as results:
            async for result in results:
                assert result == 0
                await started_by_loop(started)
                break
        task = asyncio.create_task(anext_of(pool.aio.map(square, source(10))))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.open()
        assert await pool.aio.submit(square, 3) == 9
        assert pool.stats()["jobs_started"] == 3
        assert len(asyncio.all_tasks()) == 1

    with caplog.at_level(logging.DEBUG), libpool.Pool(1) as pool:
        asyncio.run(main(pool))
        gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def anext_of(results: Any) -> Any:
    async with contextlib.aclosing(results):
        return await anext(results)


def test_a_chunk_whose_worker_dies_names_the_lost_items(workers: Any) -> None:
    def die_at(n: int) -> int:
        if n == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    async def main() -> None:
        results = workers.aio.map(die_at, range(30), chunksize=5)
        with pytest.raises(libpool.WorkerDied) as caught:
            async for _ in results:
                pass
        assert "items 10 to 14 are lost" in "".join(caught.value.__notes__)

    asyncio.run(main())


def test_bad_arguments_of_map(workers: Any) -> None:
    for wrong, error, text in [
        ({"chunksize": 0}, ValueError, "chunksize must be at least 1, not 0"),
        ({"in_flight": 0}, ValueError, "in_flight must be at least 1, not 0"),
    ]:
        with pytest.raises(error, match=text):
            workers.aio.map(square, range(3), **wrong)
    with pytest.raises(TypeError, match="at least one iterable"):
        workers.aio.map(square)
    with pytest.raises(TypeError, match="not iterable"):
        workers.aio.map(square, 5)


# ---- In a job -----------------------------------------------------------------------------------


def gather_in_job(count: int) -> list[int]:
    async def main() -> list[int]:
        pool = libpool.current()
        assert pool is not None
        return await asyncio.gather(*(pool.aio.submit(square, n) for n in range(count)))

    return asyncio.run(main())


def test_a_job_awaits_jobs_of_its_own_pool(workers: Any) -> None:
    async def main() -> None:
        nested = [workers.aio.submit(gather_in_job, 20) for _ in range(5)]
        assert await asyncio.gather(*nested) == [[n * n for n in range(20)]] * 5

    asyncio.run(main())


def test_a_job_uses_a_pool_of_its_own(workers: Any) -> None:
    def inner() -> list[int]:
        async def main() -> list[int]:
            async with libpool.Pool(1).aio as calls:
                return [r async for r in calls.map(square, range(10))]

        return asyncio.run(main())

    async def main() -> None:
        assert await workers.aio.submit(inner) == [n * n for n in range(10)]

    asyncio.run(main())


# ---- Other loops, programs ----------------------------------------------------------------------


@pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
def test_uvloop(tmp_path: Path) -> None:
    # In a process of its own: uvloop leaves descriptors open.
    path = program(
        tmp_path / "with_uvloop.py",
        """
        import asyncio, contextlib, os, signal, time
        import libpool, uvloop

        def square(x):
            return x * x

        async def numbers(count):
            for n in range(count):
                await asyncio.sleep(0)
                yield n

        async def main(pool, other):
            calls = pool.aio
            before = os.listdir("/proc/self/task")
            found = await asyncio.gather(*(calls.submit(square, n) for n in range(500)))
            assert found == [n * n for n in range(500)]
            found = [r async for r in calls.map(square, numbers(50))]
            assert found == [n * n for n in range(50)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await calls.options(kill_on_cancel=True).submit(time.sleep, 60)
            assert await calls.submit(square, 3) == 9
            calls.submit(time.sleep, 0.2)
            assert os.listdir("/proc/self/task") == before
            future = other.aio.submit(time.sleep, 60)
            os.kill(other.supervisor_pid, signal.SIGKILL)
            try:
                await asyncio.wait_for(future, 5)
            except libpool.BrokenPool:
                print("broken")
            async with libpool.Pool(1).aio as calls:
                print(await calls.submit(square, 4))

        with libpool.Executor(2) as pool:
            for _ in range(3):
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(main(pool, libpool.Pool(1)))
        """,
    )
    assert run(path) == "broken\n16\n" * 3


def test_ctrl_c_ends_a_program_that_awaits(tmp_path: Path) -> None:
    path = program(
        tmp_path / "ctrl_c.py",
        """
        import asyncio, os, signal, time
        import libpool

        async def main(pool):
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.gather(*(pool.aio.submit(time.sleep, 60) for _ in range(10)))

        with libpool.Pool(2) as pool:
            begin = time.monotonic()
            try:
                asyncio.run(main(pool))
            except KeyboardInterrupt:
                print(time.monotonic() - begin < 2)
        """,
    )
    assert run(path) == "True\n"


EXAMPLES = Path(__file__).parents[2] / "examples" / "python"


def test_the_example_of_a_server_serves() -> None:
    output = run(EXAMPLES / "asyncio_server.py", "--demo", "--port", "0", "--timeout", "1")
    assert "5316911983139663487003542222693990401 takes too long" in output
    assert "12 = 2 * 2 * 3" in output and "got 500 right answers" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_example_of_a_server_stops_amid_its_work(number: signal.Signals) -> None:
    process = start(EXAMPLES / "asyncio_server.py", "--port", "0")
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        with socket.create_connection(("localhost", port)) as idle:
            with socket.create_connection(("localhost", port)) as busy:
                busy.sendall(b"7\n5316911983139663487003542222693990401\n")
                assert busy.recv(100) == b"7 = 7\n"
                process.send_signal(number)
                assert process.communicate(timeout=20) == ("", "")
                assert busy.recv(100) == idle.recv(100) == b""
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_the_example_for_trio_and_anyio() -> None:
    output = run(EXAMPLES / "trio_anyio.py")
    squares = str([n * n for n in range(20)])
    for part, names in [("Trio", ["trio"]), ("AnyIO on trio", ["anyio", "trio"])]:
        if all(map(importlib.util.find_spec, names)):
            assert f"{part}: {squares}\n{part}: given up after a tenth of a second: True" in output
    for name, wanted in [("trio", "Trio"), ("anyio", "AnyIO")]:
        assert (f"{wanted} is not installed" in output) is (importlib.util.find_spec(name) is None)


def test_results_that_a_closed_loop_left_take_no_memory_for_long() -> None:
    async def leave(pool: libpool.Pool) -> None:
        pool.aio.submit(bytes, MIB)
        assert await pool.aio.submit(square, 2) == 4
        pool.aio.submit(bytes, MIB)

    with libpool.Pool(1, shared_limit=8 * MIB) as pool:
        for _ in range(30):
            asyncio.run(leave(pool))
        assert len(pool.submit(bytes, 4 * MIB).result()) == 4 * MIB


def test_importing_libpool_does_not_import_asyncio(tmp_path: Path) -> None:
    path = program(
        tmp_path / "imports.py", "import sys, libpool\nprint('asyncio' in sys.modules)\n"
    )
    assert run(path) == "False\n"
