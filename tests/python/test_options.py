"""Options of single jobs: time limits, retries; views of a pool; `Future.kill`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import fcntl
import gc
import math
import os
import signal
import struct
import sys
import termios
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from support import Gate, pass_gates, until

import libpool
from libpool import Executor, Pool, WorkerDied

PATIENT = 10.0
"""Seconds: how late an answer may be on a machine that is busy with other things."""


def square(x: int) -> int:
    return x * x


def waiting_in(gate: Gate) -> int:
    """How often a gate was opened and nobody has passed."""
    return int(struct.unpack("i", fcntl.ioctl(gate.read_end, termios.FIONREAD, b"\0" * 4))[0])


def worker_count(workers: Any) -> int:
    return int(workers.stats()["workers_started"])


def run_for(seconds: float) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


@pytest.fixture
def never(gate: Callable[[], Gate]) -> Gate:
    """One more."""
    return gate()


# ---- Time limits --------------------------------------------------------------------------------


def test_a_late_jobs_worker_is_killed_and_replaced_and_others_go_on(
    started: Gate, held: Gate, never: Gate, workers: Any
) -> None:
    other = workers.submit(pass_gates, started, held, "other")
    started.wait_for()
    begin = time.monotonic()
    late = workers.options(timeout=0.2).submit(never.wait)
    with pytest.raises(TimeoutError) as caught:
        late.result()
    assert 0.2 <= time.monotonic() - begin < PATIENT
    assert "ran longer than its time limit, and its worker was killed" in str(caught.value)
    assert "wait" in str(caught.value)
    assert late.done() and not late.running() and not late.cancelled()
    assert isinstance(late.exception(), TimeoutError)
    assert not late.cancel() and not late.kill()
    assert [workers.submit(square, x).result(20) for x in range(10)] == [x * x for x in range(10)]
    assert other.running()
    held.open()
    assert other.result(20) == "other"
    until(lambda: worker_count(workers) == 3)


def test_time_counts_running_and_not_waiting(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        first = executor.submit(pass_gates, started, held)
        started.wait_for()
        limited = executor.options(timeout=0.5)
        futures = [limited.submit(square, x) for x in range(10)]
        time.sleep(1)  # all of them wait longer than they may run
        held.open()
        first.result(20)
        assert [future.result(20) for future in futures] == [x * x for x in range(10)]


def test_waiting_for_a_result_has_a_time_limit_of_its_own(held: Gate, workers: Any) -> None:
    future = workers.options(timeout=1000).submit(held.wait)
    with pytest.raises(TimeoutError) as caught:
        future.result(timeout=0.01)
    assert str(caught.value) == ""
    assert not future.done()
    held.open()
    assert future.result(20) is None


def test_each_of_many_late_jobs_gets_its_own_error(held: Gate, workers: Any) -> None:
    limited = workers.options(timeout=0.01)
    futures = [
        limited.submit(held.wait) if x % 3 == 0 else workers.submit(square, x) for x in range(21)
    ]
    errors = [future.exception(40) for future in futures]
    assert [type(error) for error in errors[::3]] == [TimeoutError] * 7
    assert [future.result() for x, future in enumerate(futures) if x % 3] == [
        x * x for x in range(21) if x % 3
    ]


def test_a_job_that_ends_right_at_its_limit_ends_once() -> None:
    told: list[object] = []
    late = 0
    with Executor(2) as executor:
        limited = executor.options(timeout=0.003)
        for number in range(150):
            racer = limited.submit(run_for, 0.0025 + number % 50 * 1e-5)
            after = executor.submit(square, number)
            if number % 2:
                racer.add_done_callback(told.append)
            error = racer.exception(20)
            assert error is None or isinstance(error, TimeoutError)
            late += error is not None
            assert after.result(20) == number * number
        until(lambda: len(told) == 75)
        until(lambda: worker_count(executor) >= 2 + late)
        assert worker_count(executor) == 2 + late


def test_a_watched_late_job_tells_its_watchers(held: Gate, workers: Any) -> None:
    limited = workers.options(timeout=0.1)
    futures = [limited.submit(held.wait) for _ in range(2)]
    told = threading.Event()
    futures[0].add_done_callback(lambda _: told.set())
    done, rest = concurrent.futures.wait(futures, timeout=20)
    assert (done, rest) == (set(futures), set())
    assert told.wait(20)
    assert all(isinstance(future.exception(), TimeoutError) for future in futures)


def test_a_late_job_in_an_event_loop(held: Gate, workers: Any) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match="longer than its time limit"):
            await asyncio.wrap_future(workers.options(timeout=0.1).submit(held.wait))
        assert await asyncio.wrap_future(workers.submit(square, 3)) == 9

    asyncio.run(main())


def test_apply_has_the_limit(held: Gate, pool: Pool) -> None:
    with pytest.raises(TimeoutError, match="longer than its time limit"):
        pool.options(timeout=0.1).apply(held.wait)
    assert pool.apply(square, (3,)) == 9


def test_a_replacement_for_a_late_worker_is_initialized(held: Gate) -> None:
    with Pool(1, initializer=_set_mark, initargs=(7,), timeout=0.5) as pool:
        with pytest.raises(TimeoutError):
            pool.apply(held.wait)
        assert pool.apply(_get_mark) == 7


def _set_mark(value: int) -> None:
    global mark
    mark = value


def _get_mark() -> int:
    return mark  # type: ignore[name-defined, no-any-return] # noqa: F821


# ---- Time limits in map -------------------------------------------------------------------------


class LateAt:
    """Waits for ever at one item."""

    def __init__(self, ran: Gate, never: Gate, which: int) -> None:
        self.ran, self.never, self.which = ran, never, which

    def __call__(self, x: int) -> int:
        self.ran.open()
        if x == self.which:
            self.never.wait()
        return x * x


def test_a_map_loses_the_chunk_of_its_late_item_only_and_says_so(
    started: Gate, held: Gate, pool: Pool
) -> None:
    limited = pool.options(timeout=0.3)
    with pytest.raises(TimeoutError) as caught:
        limited.map(LateAt(started, held, 5), range(20), chunksize=4)
    assert caught.value.__notes__ == [
        "it ran item 5 of a map: the results of items 4 to 7 are lost"
    ]
    assert waiting_in(started) == 16 + 2  # 6 and 7 have not been called, all others have
    assert limited.map(square, range(20)) == [x * x for x in range(20)]


def test_the_last_chunk_of_a_map_may_be_short(started: Gate, held: Gate, pool: Pool) -> None:
    with pytest.raises(TimeoutError) as caught:
        pool.options(timeout=0.3).map(LateAt(started, held, 9), range(10), chunksize=4)
    assert caught.value.__notes__ == [
        "it ran item 9 of a map: the results of items 8 to 9 are lost"
    ]


def test_an_executors_map_gives_what_is_before_the_late_chunk(
    started: Gate, held: Gate, executor: Executor
) -> None:
    results = executor.options(timeout=0.3).map(LateAt(started, held, 5), range(10), chunksize=4)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(TimeoutError) as caught:
        next(results)
    assert caught.value.__notes__ == [
        "it ran item 5 of a map: the results of items 4 to 7 are lost"
    ]


def test_the_last_chunk_of_an_executors_map_may_be_short(
    started: Gate, held: Gate, executor: Executor
) -> None:
    with pytest.raises(TimeoutError) as caught:
        list(executor.options(timeout=0.3).map(LateAt(started, held, 9), range(10), chunksize=4))
    assert caught.value.__notes__ == [
        "it ran item 9 of a map: the results of items 8 to 9 are lost"
    ]


def test_an_executors_map_of_single_items(started: Gate, held: Gate, executor: Executor) -> None:
    results = executor.options(timeout=0.3).map(LateAt(started, held, 2), range(4))
    assert [next(results) for _ in range(2)] == [0, 1]
    with pytest.raises(TimeoutError) as caught:
        next(results)
    assert caught.value.__notes__ == [
        "it ran item 2 of a map: the results of items 2 to 2 are lost"
    ]


def test_time_counts_anew_for_each_item() -> None:
    with Pool(1, timeout=0.6) as pool:
        assert pool.map(run_for, [0.2] * 8, chunksize=8) == [0.2] * 8
        assert pool.starmap(run_for, [(0.2,)] * 4, chunksize=4) == [0.2] * 4


def test_the_time_limit_of_the_iterator_is_another_one(held: Gate, executor: Executor) -> None:
    results = executor.options(timeout=1000).map(_wait_at, [held] * 4, timeout=0.1, chunksize=2)
    with pytest.raises(TimeoutError) as caught:
        next(results)
    assert not hasattr(caught.value, "__notes__")
    held.open(4)


def _wait_at(gate: Gate) -> None:
    gate.wait()


def test_an_own_time_out_of_a_function_loses_nothing_and_says_nothing(workers: Any) -> None:
    with pytest.raises(TimeoutError, match="mine") as caught:
        list(workers.options(timeout=20).map(_raise_own, range(8), chunksize=4))
    assert not hasattr(caught.value, "__notes__")


def _raise_own(x: int) -> int:
    if x == 5:
        raise TimeoutError("mine")
    return x


def test_a_time_out_of_a_nested_job_is_not_that_of_the_map(held: Gate, pool: Pool) -> None:
    with pytest.raises(TimeoutError) as caught:
        pool.map(NestedLate(held, 2), range(4), chunksize=4)
    assert getattr(caught.value, "__notes__", []) == []


class NestedLate:
    """At one item, submits a job that is late, and lets another worker run it."""

    def __init__(self, never: Gate, which: int) -> None:
        self.never, self.which = never, which

    def __call__(self, x: int) -> int:
        if x == self.which:
            future = current().options(timeout=0.1).submit(self.never.wait)
            until(lambda: future.running() or future.done())
            future.result()
        return x


def test_a_map_whose_worker_dies_says_what_is_lost(pool: Pool, executor: Executor) -> None:
    with pytest.raises(WorkerDied) as caught:
        pool.map(_die_at_five, range(10), chunksize=4)
    assert caught.value.__notes__ == [
        "it ran a chunk of a map: the results of items 4 to 7 are lost"
    ]
    with pytest.raises(WorkerDied) as caught:
        list(executor.map(_die_at_five, range(10), chunksize=3))
    assert caught.value.__notes__ == [
        "it ran a chunk of a map: the results of items 3 to 5 are lost"
    ]


def test_a_map_says_all_that_is_lost(started: Gate, held: Gate, pool: Pool) -> None:
    with pytest.raises(WorkerDied) as caught:
        pool.map(_die_at_each_five, range(20), chunksize=4)
    assert caught.value.__notes__ == [
        "it ran a chunk of a map: the results of items 4 to 7 are lost",
        "besides, WorkerDied: another worker ran a chunk of a map: "
        "the results of items 12 to 15 are lost",
    ]
    with pytest.raises(ValueError, match="0") as failed:
        pool.options(timeout=0.3).map(FailsThenLate(started, held), range(8), chunksize=2)
    assert failed.value.__notes__ == [
        "besides, TimeoutError: another worker ran item 5 of a map: "
        "the results of items 4 to 5 are lost"
    ]


def _die_at_each_five(x: int) -> int:
    if x % 10 == 5:
        os._exit(1)
    return x


class FailsThenLate(LateAt):
    """Raises for item 0, waits for ever at item 5."""

    def __init__(self, ran: Gate, never: Gate) -> None:
        super().__init__(ran, never, 5)

    def __call__(self, x: int) -> int:
        if x == 0:
            raise ValueError(x)
        return super().__call__(x)


def _die_at_five(x: int) -> int:
    if x == 5:
        os._exit(1)
    return x


# ---- Views --------------------------------------------------------------------------------------


def test_a_view_has_the_same_methods_and_workers(workers: Any) -> None:
    view = workers.options(timeout=100, retries=2)
    assert type(view) is type(workers)
    assert dir(view) == dir(workers)
    assert view.workers == workers.workers == 2
    until(lambda: len(workers.worker_pids()) == 2)
    assert view.worker_pids() == workers.worker_pids()
    assert view.supervisor_pid == workers.supervisor_pid
    assert view.submit(os.getpid).result() in workers.worker_pids()
    assert list(view.map(square, range(10))) == [x * x for x in range(10)]
    assert view.check() == 0
    assert view.stats()["jobs_started"] == workers.stats()["jobs_started"]


def test_all_calls_of_a_pool_through_a_view(pool: Pool) -> None:
    view = pool.options(timeout=100)
    assert view.apply(square, (3,)) == 9
    assert view.map(square, range(4)) == [0, 1, 4, 9]
    assert view.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    assert view.submit(pow, 2, 5).result() == 32
    assert repr(view) == repr(pool)


def test_options_are_combined(workers: Any) -> None:
    assert workers._options == (None, 0)
    both = workers.options(timeout=2).options(retries=3)
    assert both._options == (2_000_000_000, 3)
    assert both.options()._options == (2_000_000_000, 3)
    assert both.options(timeout=None)._options == (None, 3)
    assert both.options(timeout=math.inf)._options == (None, 3)
    assert both.options(retries=0)._options == (2_000_000_000, 0)
    assert workers._options == (None, 0)
    assert both.options(timeout=1).submit(square, 4).result() == 16


def test_options_of_one_view_are_not_those_of_others(held: Gate, workers: Any) -> None:
    short = workers.options(timeout=0.2)
    free = workers.submit(held.wait)
    late = short.submit(held.wait)
    assert isinstance(late.exception(20), TimeoutError)
    assert not free.done()
    free_again = short.options(timeout=None).submit(square, 2)
    assert free_again.result(20) == 4
    held.open()
    assert free.result(20) is None


def test_closing_a_view_closes_the_pool(pool: Pool, executor: Executor) -> None:
    pool.options(timeout=1).options(retries=1).close()
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(square, (1,))
    assert pool.join(20)
    executor.options(timeout=1).shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 1)


def test_a_view_of_a_closed_pool_takes_no_calls(pool: Pool) -> None:
    view = pool.options(timeout=1)
    pool.close()
    with pytest.raises(ValueError, match="Pool not running"):
        view.apply(square, (1,))
    with pytest.raises(ValueError, match="Pool not running"):
        pool.options(retries=1).map(square, [1])
    assert view.join(20)


def test_a_view_as_context_manager_ends_the_pool(pool: Pool, executor: Executor) -> None:
    with pool.options(timeout=5) as view:
        assert view.apply(square, (2,)) == 4
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(square, (1,))
    with executor.options(timeout=5) as other:
        future = other.submit(square, 3)
    assert future.result() == 9
    assert executor.supervisor_pid == 0


def test_a_view_that_is_dropped_closes_nothing(workers: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            future = workers.options(timeout=100, retries=1).submit(square, 3)
            gc.collect(0)
            assert future.result(20) == 9
        gc.collect()
    assert workers.submit(square, 2).result(20) == 4


def test_a_pool_lives_as_long_as_a_view() -> None:
    view = Executor(1).options(timeout=100)
    gc.collect()
    assert view.submit(square, 3).result(20) == 9
    deeper = view.options(retries=1)
    del view
    gc.collect()
    assert deeper.submit(square, 4).result(20) == 16
    deeper.shutdown()


def test_many_views_take_no_memory(workers: Any) -> None:
    workers.options(timeout=100).submit(square, 3).result()
    before = workers.stats()["memory"]
    offset = 3
    for _ in range(2000):
        assert workers.options(timeout=100).submit(lambda x: x + offset, 3).result(20) == 6
    assert workers.stats()["memory"] <= before + (1 << 20)


def test_errors_of_a_view_name_the_function(held: Gate, workers: Any) -> None:
    view = workers.options(timeout=0.2)
    with pytest.raises(TimeoutError, match="<function _wait_at at 0x"):
        view.submit(_wait_at, held).result()
    with pytest.raises(WorkerDied, match="<function _die_at_five at 0x"):
        view.submit(_die_at_five, 5).result()


# ---- Defaults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Pool, Executor])
def test_the_constructors_options_go_for_all_calls(held: Gate, kind: Any) -> None:
    workers = kind(2, timeout=0.3, retries=1)
    try:
        assert workers._options == (300_000_000, 1)
        assert isinstance(workers.submit(held.wait).exception(20), TimeoutError)
        with pytest.raises(TimeoutError):
            list(workers.map(_wait_at, [held]))
        assert workers.options(timeout=None).submit(run_for, 0.4).result(20) == 0.4
    finally:
        workers.terminate()


def test_the_constructors_options_go_for_nested_calls(started: Gate, held: Gate) -> None:
    with Executor(2, timeout=0.3) as executor:
        future = executor.options(timeout=None).submit(_submit_and_tell, started, held)
        assert future.result(20) == "TimeoutError"


def current() -> Any:
    workers = libpool.current()
    assert workers is not None
    return workers


def _submit_and_tell(started: Gate, held: Gate, timeout: float | None = -1) -> str:
    """Submit a job, wait till another worker has begun it: the type of its error."""
    workers = current() if timeout == -1 else current().options(timeout=timeout)
    future = workers.submit(pass_gates, started, held)
    started.wait()
    return type(future.exception()).__name__


# ---- Nested -------------------------------------------------------------------------------------


def test_a_job_may_give_options_to_its_own_jobs(started: Gate, held: Gate, workers: Any) -> None:
    assert workers.submit(_submit_and_tell, started, held, 0.2).result(20) == "TimeoutError"
    assert workers.submit(square, 2).result(20) == 4


def test_a_late_parent_leaves_its_child_on_another_worker_alone(
    started: Gate, held: Gate, gate: Callable[[], Gate]
) -> None:
    ended = gate()
    with Executor(2) as executor:
        parent = executor.options(timeout=0.3).submit(_start_and_wait, started, held, ended)
        assert isinstance(parent.exception(20), TimeoutError)
        held.open()
        ended.wait_for()
        assert executor.submit(square, 2).result(20) == 4


def _start_and_wait(started: Gate, held: Gate, ended: Gate) -> None:
    future = current().submit(_pass_and_tell, started, held, ended)
    started.wait()
    future.result()


def _pass_and_tell(started: Gate, held: Gate, ended: Gate) -> None:
    pass_gates(started, held)
    ended.open()


def test_a_late_child_on_top_of_its_parent_takes_the_parent_along(held: Gate) -> None:
    with Executor(1) as executor:
        parent = executor.submit(_wait_for_late_child, held)
        assert isinstance(parent.exception(20), WorkerDied | TimeoutError)
        assert executor.submit(square, 2).result(20) == 4


def _wait_for_late_child(held: Gate) -> None:
    current().options(timeout=0.2).submit(held.wait).result()


@pytest.mark.parametrize("depth", [5, 30])
def test_a_late_job_below_a_deep_recursion_is_killed(started: Gate, held: Gate, depth: int) -> None:
    with Pool(1) as pool:
        future = pool.submit(_descend, depth, started, held)
        started.wait_for()
        assert future.exception(10) is not None
        assert pool.apply(square, (2,)) == 4


def _descend(depth: int, started: Gate, held: Gate) -> None:
    if depth:
        current().submit(_descend, depth - 1, started, held).result()
    else:
        current().options(timeout=0.2).submit(pass_gates, started, held).result()


def test_fork_join_under_a_time_limit() -> None:
    with Pool(2, timeout=30, retries=1) as pool:
        assert pool.apply(_fibonacci, (12,)) == 144


def _fibonacci(n: int) -> int:
    if n < 2:
        return n
    first = current().submit(_fibonacci, n - 1)
    second = current().submit(_fibonacci, n - 2)
    return int(first.result() + second.result())


# ---- Retries ------------------------------------------------------------------------------------


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "crash":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    else:
        os._exit(3)


def die_at_first(runs: Gate, deaths: int, how: str, *result: Any) -> Any:
    """Die in so many of the first runs, then return `result`."""
    run = waiting_in(runs)
    runs.open()
    if run < deaths:
        die(how)
    return result


@pytest.mark.parametrize("how", ["kill", "crash", "exit"])
def test_a_job_whose_worker_dies_runs_again(started: Gate, workers: Any, how: str) -> None:
    retrying = workers.options(retries=2)
    assert retrying.submit(die_at_first, started, 2, how, 5).result(20) == (5,)
    assert waiting_in(started) == 3
    assert workers.stats()["jobs_retried"] == 2
    assert workers.stats()["jobs_started"] == 3
    until(lambda: worker_count(workers) == 4)


def test_when_the_retries_are_used_up_the_worker_died(started: Gate, workers: Any) -> None:
    with pytest.raises(WorkerDied, match="exited with code 3"):
        workers.options(retries=3).submit(die_at_first, started, 100, "exit").result(20)
    assert waiting_in(started) == 4
    assert workers.stats()["jobs_retried"] == 3


def test_without_retries_a_job_runs_once(started: Gate, workers: Any) -> None:
    with pytest.raises(WorkerDied):
        workers.submit(die_at_first, started, 100, "exit").result(20)
    assert waiting_in(started) == 1
    assert workers.stats()["jobs_retried"] == 0


def test_a_job_that_raises_is_late_or_killed_is_not_run_again(
    started: Gate, held: Gate, workers: Any
) -> None:
    retrying = workers.options(retries=5)
    with pytest.raises(ZeroDivisionError):
        retrying.submit(_open_and_raise, started).result(20)
    assert waiting_in(started) == 1
    with pytest.raises(SystemExit):
        retrying.submit(sys.exit, 3).result(20)
    late = retrying.options(timeout=0.2).submit(pass_gates, started, held)
    assert isinstance(late.exception(20), TimeoutError)
    assert waiting_in(started) == 2
    started.wait()
    started.wait()
    killed = retrying.submit(pass_gates, started, held)
    started.wait_for()
    assert killed.kill()
    with pytest.raises(CancelledError):
        killed.result(20)
    assert workers.submit(square, 2).result(20) == 4
    assert waiting_in(started) == 0
    assert workers.stats()["jobs_retried"] == 0


def _open_and_raise(gate: Gate) -> None:
    gate.open()
    raise ZeroDivisionError


def test_the_arguments_are_intact_when_a_job_runs_again(gate: Callable[[], Gate]) -> None:
    """In the job's slot up to 72 or 96 bytes, in a block beyond."""
    runs = gate()
    sizes = [*range(0, 110, 3), 254, 255, 256, 5000, 300_000]
    with Executor(2, retries=1, timeout=100) as executor:
        for number, size in enumerate(sizes):
            data = bytes(x * 7 & 255 for x in range(size))
            future = executor.submit(die_at_first, runs, 2 * number + 1, "exit", data, size)
            assert future.result(20) == (data, size)
        assert executor.stats()["jobs_retried"] == len(sizes)
        lists = [list(range(100)), {"a": [1, 2]}, None, "é" * 50]
        future = executor.submit(die_at_first, runs, 2 * len(sizes) + 1, "kill", *lists)
        assert future.result(20) == tuple(lists)


def test_an_array_is_intact_when_a_job_runs_again(started: Gate) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(200_000)
    with Executor(2, retries=2) as executor:
        future = executor.submit(die_at_first, started, 2, "kill", array)
        assert (future.result(20)[0] == array).all()


def test_a_chunk_of_a_map_runs_again(started: Gate, pool: Pool) -> None:
    retrying = pool.options(retries=1)
    assert retrying.map(DieOnce(started, 5), range(12), chunksize=3) == [x * x for x in range(12)]
    assert pool.stats()["jobs_retried"] == 1


class DieOnce:
    """At one item the worker dies, when it is called the first time."""

    def __init__(self, runs: Gate, which: int) -> None:
        self.runs, self.which = runs, which

    def __call__(self, x: int) -> int:
        if x == self.which:
            die_at_first(self.runs, 1, "kill")
        return x * x


def test_a_job_that_nobody_waits_for_runs_again(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        executor.options(retries=2).submit(_die_twice_and_open, started, held)
        gc.collect()
        held.wait_for()
        assert waiting_in(started) == 3


def _die_twice_and_open(runs: Gate, done: Gate) -> None:
    die_at_first(runs, 2, "kill")
    done.open()


def test_a_watched_job_that_runs_again_tells_its_watchers_once(started: Gate, workers: Any) -> None:
    told: list[object] = []
    future = workers.options(retries=2).submit(die_at_first, started, 2, "kill", 1)
    future.add_done_callback(told.append)
    assert concurrent.futures.wait([future], timeout=20).done == {future}
    assert future.result() == (1,)
    workers.submit(square, 2).result(20)
    until(lambda: told == [future])


def test_a_job_runs_again_while_the_pool_closes(started: Gate) -> None:
    with Executor(1, retries=2) as executor:
        future = executor.submit(die_at_first, started, 2, "kill", 1)
    assert future.result() == (1,)


def test_time_counts_anew_when_a_job_runs_again(started: Gate) -> None:
    with Executor(1, timeout=1, retries=2) as executor:
        assert executor.submit(_run_and_die, started).result(20) == "ran"


def _run_and_die(runs: Gate) -> str:
    run_for(0.4)
    die_at_first(runs, 2, "kill")
    return "ran"


def test_a_retried_job_submits_its_own_jobs_again(started: Gate) -> None:
    with Executor(2) as executor:
        future = executor.options(retries=1).submit(_sum_and_die, started)
        assert future.result(20) == sum(x * x for x in range(10))


def _sum_and_die(runs: Gate) -> int:
    total = sum(future.result() for future in [current().submit(square, x) for x in range(10)])
    die_at_first(runs, 1, "kill")
    return int(total)


def test_workers_that_are_killed_at_random_lose_no_job_that_may_be_run_again() -> None:
    with Executor(2, retries=255) as executor:
        futures = [executor.submit(square, x) for x in range(5000)]
        killed = 0
        while not futures[-1].done() and killed < 30:
            for pid in executor.worker_pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
        assert [future.result(40) for future in futures] == [x * x for x in range(5000)]


# ---- Kill ---------------------------------------------------------------------------------------


def test_kill_ends_a_job_that_waits(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        running = executor.submit(pass_gates, started, held)
        started.wait_for()
        waiting = executor.submit(pass_gates, started, held)
        assert waiting.kill() is True
        assert waiting.cancelled() and waiting.done()
        assert waiting.kill() is True  # as cancel(): it is
        with pytest.raises(CancelledError):
            waiting.result()
        held.open()
        assert running.result(20) is None
        assert worker_count(executor) == 1
        assert waiting_in(started) == 0


def test_kill_ends_a_job_that_runs_and_cancel_does_not(
    started: Gate, held: Gate, never: Gate, workers: Any
) -> None:
    future = workers.submit(pass_gates, started, held)
    other = workers.submit(pass_gates, started, never, "other")
    started.wait_for()
    started.wait_for()
    assert future.cancel() is False
    assert future.running()
    assert future.kill() is True
    with pytest.raises(CancelledError):
        future.result(20)
    assert future.cancelled() and future.done() and not future.running()
    with pytest.raises(CancelledError):
        future.exception()
    assert workers.submit(square, 2).result(20) == 4
    assert other.running()
    never.open()
    assert other.result(20) == "other"
    until(lambda: worker_count(workers) == 3)


def test_kill_of_an_ended_job_is_refused(workers: Any) -> None:
    future = workers.submit(square, 3)
    assert future.result() == 9
    assert future.kill() is False
    failed = workers.submit(square, "x")
    assert isinstance(failed.exception(20), TypeError)
    assert failed.kill() is False
    unseen = workers.submit(square, 4)
    until(unseen.done)
    assert unseen.kill() is False
    assert unseen.result() == 16
    until(lambda: worker_count(workers) == 2)


def test_kill_takes_no_arguments(workers: Any) -> None:
    with pytest.raises(TypeError):
        workers.submit(square, 3).kill(1)


def test_kill_ends_the_wait_of_another_thread(started: Gate, held: Gate, workers: Any) -> None:
    for _ in range(5):
        future = workers.submit(pass_gates, started, held)
        started.wait_for()
        errors: list[BaseException] = []
        waiter = threading.Thread(target=_keep_error, args=(future, errors))
        waiter.start()
        assert future.kill()
        waiter.join(20)
        assert [type(error) for error in errors] == [CancelledError]


def _keep_error(future: Any, errors: list[BaseException]) -> None:
    try:
        future.result(20)
    except BaseException as error:
        errors.append(error)


def test_kill_by_another_thread_ends_the_wait_of_this_one(
    started: Gate, held: Gate, workers: Any
) -> None:
    future = workers.submit(pass_gates, started, held)

    def kill() -> None:
        started.wait_for()
        future.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(CancelledError):
        future.result(20)
    thread.join()


def test_kill_of_a_watched_future_tells_its_watchers(
    started: Gate, held: Gate, workers: Any
) -> None:
    told: list[object] = []
    future = workers.submit(pass_gates, started, held)
    started.wait_for()
    future.add_done_callback(told.append)
    assert future.kill() is True
    assert concurrent.futures.wait([future], timeout=20).done == {future}
    assert future.cancelled()
    assert list(concurrent.futures.as_completed([future], timeout=20)) == [future]
    until(lambda: told == [future])
    assert future.kill() is True  # as cancel(): it is
    assert told == [future]


def test_kill_of_a_job_that_an_event_loop_waits_for(
    started: Gate, held: Gate, workers: Any
) -> None:
    async def main() -> None:
        future = workers.submit(pass_gates, started, held)
        wrapped = asyncio.wrap_future(future)
        await asyncio.get_running_loop().run_in_executor(None, started.wait_for)
        assert future.kill() is True
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        assert wrapped.cancelled()

    asyncio.run(main())


def test_several_threads_kill_the_same_job(started: Gate, held: Gate, workers: Any) -> None:
    for _ in range(10):
        future = workers.submit(pass_gates, started, held)
        started.wait_for()
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: future.kill(), range(4)))  # noqa: B023
        with pytest.raises(CancelledError):
            future.result(20)
    assert workers.submit(square, 2).result(20) == 4


def test_kill_never_hits_the_job_that_the_worker_began_afterwards() -> None:
    killed = 0
    with Executor(1) as executor:
        for number in range(400):
            victim = executor.submit(run_for, number % 20 * 1e-5)
            after = [executor.submit(square, x) for x in range(4)]
            run_for(number % 7 * 3e-5)
            said = victim.kill()
            try:
                victim.result(20)
                ended = True
            except CancelledError:
                ended = False
                killed += 1
            assert said or ended
            assert [future.result(20) for future in after] == [0, 1, 4, 9]
        assert worker_count(executor) <= 1 + killed


def test_kill_of_a_job_that_dies_again_and_again(started: Gate, workers: Any) -> None:
    for _ in range(5):
        future = workers.options(retries=255).submit(die_at_first, started, 10**6, "kill")
        started.wait_for()
        assert future.kill() is True
        with pytest.raises(CancelledError):
            future.result(20)
    assert workers.submit(square, 2).result(20) == 4


def test_kill_of_a_chunk_of_a_map(started: Gate, held: Gate, pool: Pool) -> None:
    future = pool.submit_chunk(LateAt(started, held, 2), range(4), False)
    for _ in range(3):
        started.wait_for()
    assert future.kill() is True
    with pytest.raises(CancelledError):
        future.result(20)
    assert pool.map(square, range(4)) == [0, 1, 4, 9]


def test_kill_in_a_pool_that_has_ended(started: Gate, held: Gate, workers: Any) -> None:
    future = workers.submit(pass_gates, started, held)
    started.wait_for()
    workers.terminate()
    assert future.kill() is True  # it is cancelled already
    with pytest.raises(CancelledError):
        future.result()


# ---- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, -0.5, math.nan, -math.inf])
def test_a_time_limit_that_is_not_positive_is_refused(workers: Any, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be a positive number"):
        workers.options(timeout=timeout)
    with pytest.raises(ValueError, match="timeout must be a positive number"):
        type(workers)(1, timeout=timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", [1], object(), 1j])
def test_a_time_limit_that_is_no_number_is_refused(workers: Any, timeout: Any) -> None:
    with pytest.raises(TypeError):
        workers.options(timeout=timeout)
    with pytest.raises(TypeError):
        type(workers)(1, timeout=timeout)


@pytest.mark.parametrize("timeout", [1e9, 1e18, 1e300, sys.float_info.max, 10**12, 10**40])
def test_a_huge_time_limit_is_none(workers: Any, timeout: float) -> None:
    assert workers.options(timeout=timeout).submit(square, 3).result(20) == 9


def test_a_tiny_time_limit_ends_a_job_or_not_but_once(workers: Any) -> None:
    for _ in range(20):
        error = workers.options(timeout=1e-12).submit(square, 3).exception(20)
        assert error is None or isinstance(error, TimeoutError)


@pytest.mark.parametrize("retries", [-1, 256, 10**30, -(10**30)])
def test_retries_out_of_range_are_refused(workers: Any, retries: int) -> None:
    with pytest.raises(ValueError, match="retries must be between 0 and 255"):
        workers.options(retries=retries)
    with pytest.raises(ValueError, match="retries must be between 0 and 255"):
        type(workers)(1, retries=retries)


@pytest.mark.parametrize("retries", [1.0, "1", None, [1]])
def test_retries_that_are_no_integer_are_refused(workers: Any, retries: Any) -> None:
    with pytest.raises(TypeError):
        workers.options(retries=retries)
    with pytest.raises(TypeError):
        type(workers)(1, retries=retries)


def test_options_are_keywords(workers: Any) -> None:
    with pytest.raises(TypeError):
        workers.options(1)
    with pytest.raises(TypeError):
        workers.options(limit=1)
