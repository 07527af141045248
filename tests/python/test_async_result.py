"""libpool.AsyncResult: what Pool.apply_async and Pool.map_async return."""

from __future__ import annotations

import builtins
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError
from typing import Any

import pytest
from support import Gate, pass_gates, until

import libpool
from libpool import AsyncResult, Pool


def square(x: int) -> int:
    return x * x


def fail_on(x: int) -> int:
    if x in (3, 7):
        raise LookupError(x)
    return x


class Counted:
    """In the host: made by unpickling only."""

    alive = 0

    def __init__(self, thing: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        Counted.alive += 1

    def __getstate__(self) -> str:
        return "state"

    def __del__(self) -> None:
        Counted.alive -= 1


def held_call(pool: Pool, started: Gate, held: Gate, **more: Any) -> AsyncResult[object]:
    """A call that runs, and is held."""
    result = pool.apply_async(pass_gates, (started, held, "done"), **more)
    started.wait_for()
    return result


# ---- Without callbacks --------------------------------------------------------------------------


def test_a_result_is_not_ready_while_the_call_runs(started: Gate, held: Gate, pool: Pool) -> None:
    result = held_call(pool, started, held)
    assert not result.ready()
    with pytest.raises(ValueError, match=r"<libpool\._async_result\.AsyncResult .*> not ready"):
        result.successful()
    held.open()
    assert result.get() == "done"
    assert result.ready() and result.successful()
    assert result.get(timeout=0) == "done"


def test_a_time_out_is_the_error_of_both_worlds(started: Gate, held: Gate, pool: Pool) -> None:
    result = held_call(pool, started, held)
    begin = time.monotonic()
    with pytest.raises(multiprocessing.TimeoutError) as caught:
        result.get(timeout=0.05)
    assert 0.05 <= time.monotonic() - begin < 5
    assert isinstance(caught.value, builtins.TimeoutError)
    assert type(caught.value) is libpool.TimeoutError
    for timeout in (0, -1):
        with pytest.raises(libpool.TimeoutError):
            result.get(timeout)
    held.open()
    assert result.get(60) == "done"


def test_wait_returns_when_the_time_is_over_or_the_call_has_ended(
    started: Gate, held: Gate, pool: Pool
) -> None:
    result = held_call(pool, started, held)
    result.wait(0.02)
    result.wait(-5)
    assert not result.ready()
    held.open()
    result.wait()
    assert result.ready()


def raise_timeout() -> None:
    raise TimeoutError("of the call itself")


def test_a_time_out_of_the_call_itself_is_its_outcome(pool: Pool) -> None:
    result = pool.apply_async(raise_timeout)
    with pytest.raises(TimeoutError, match="of the call itself") as caught:
        result.get(timeout=60)
    assert type(caught.value) is TimeoutError
    assert not result.successful()
    result = pool.map_async(lambda _: raise_timeout(), [1])
    with pytest.raises(TimeoutError, match="of the call itself"):
        result.get(timeout=60)


def test_an_exception_is_raised_each_time(pool: Pool) -> None:
    result = pool.apply_async(fail_on, (3,))
    for _ in range(2):
        with pytest.raises(LookupError):
            result.get()
    assert not result.successful()


def test_no_thread_is_needed_without_callbacks(pool: Pool) -> None:
    before = set(threading.enumerate())  # one of another test's may still be ending
    results = [pool.apply_async(square, (x,)) for x in range(100)]
    maps = [pool.map_async(square, range(1000)) for _ in range(3)]
    for result in (*results, *maps):
        result.wait(20)
        assert result.ready()
    assert [result.get() for result in results] == [x * x for x in range(100)]
    assert [sum(result.get()) for result in maps] == [sum(x * x for x in range(1000))] * 3
    assert set(threading.enumerate()) <= before


def test_map_async_is_ready_when_all_chunks_have_ended(
    started: Gate, held: Gate, pool: Pool
) -> None:
    items = [(started, held, number) for number in range(2)]
    result = pool.starmap_async(pass_gates, items)
    for _ in items:
        started.wait_for()
    with pytest.raises(libpool.TimeoutError):
        result.get(0.01)
    held.open()
    result.wait(0.01)
    assert not result.ready()
    held.open()
    assert result.get() == [0, 1]
    assert result.ready() and result.successful()


def test_map_async_raises_the_first_exception_in_order_and_runs_all(pool: Pool) -> None:
    result = pool.map_async(fail_on, range(10), 1)
    with pytest.raises(LookupError, match="3"):
        result.get()
    assert pool.stats()["jobs_started"] == 10
    assert not result.successful()


def test_several_threads_may_get_one_result(started: Gate, held: Gate, pool: Pool) -> None:
    results: list[AsyncResult[Any]] = [
        held_call(pool, started, held),
        pool.map_async(square, range(100)),
    ]
    got: list[object] = []
    for result in results:
        threads = [threading.Thread(target=lambda r=result: got.append(r.get())) for _ in range(5)]
        for thread in threads:
            thread.start()
        if result is results[0]:
            held.open()
        for thread in threads:
            thread.join()
    assert got == ["done"] * 5 + [[x * x for x in range(100)]] * 5


def test_arguments_and_results_are_not_kept(pool: Pool) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        result: AsyncResult[Any] = pool.apply_async(isinstance, (thing, object), callback=bool)
        assert result.get() is True
        assert len(pool.map(Counted, [thing])) == 1
        assert len(pool.map_async(Counted, [thing], callback=len).get()) == 1
        assert len([*pool.imap(Counted, [thing])]) == 1
        del thing
        # The thread that tells of ends lets go of what it has told of a moment later.
        until(lambda: gone() is None and Counted.alive == 0)
    finally:
        gc.enable()


# ---- Callbacks ----------------------------------------------------------------------------------


def test_callbacks_get_the_result_or_the_exception(pool: Pool) -> None:
    told: list[Any] = []
    failures: list[Any] = []
    pool.apply_async(square, (3,), {}, told.append, failures.append).wait()
    assert (told, failures) == ([9], [])
    pool.apply_async(fail_on, (3,), callback=told.append, error_callback=failures.append).wait()
    assert told == [9]
    assert [repr(failure) for failure in failures] == ["LookupError(3)"]


def test_callbacks_of_a_map_are_called_once(pool: Pool) -> None:
    told: list[Any] = []
    failures: list[Any] = []
    pool.map_async(square, range(1000), 7, told.append, failures.append).wait()
    assert told == [[x * x for x in range(1000)]]
    pool.map_async(fail_on, range(10), 1, told.append, failures.append).wait()
    assert len(told) == 1
    assert [repr(failure) for failure in failures] == ["LookupError(3)"]


def test_a_result_is_ready_only_when_its_callback_has_returned(pool: Pool) -> None:
    proceed = threading.Event()
    result = pool.apply_async(square, (3,), callback=lambda _: proceed.wait(20))
    result.wait(0.05)
    assert not result.ready()
    with pytest.raises(libpool.TimeoutError):
        result.get(0.01)
    proceed.set()
    assert result.get() == 9


def test_callbacks_run_one_at_a_time_in_one_thread_and_never_in_the_callers(pool: Pool) -> None:
    lock = threading.Lock()
    threads = set()
    overlaps = []

    def note(_: object) -> None:
        threads.add(threading.get_ident())
        overlaps.append(not lock.acquire(blocking=False))
        lock.release()

    # Some of these have ended before the callback is added, and some can't be sent at all.
    results: list[AsyncResult[Any]] = []
    for number in range(200):
        results.append(pool.apply_async(square, (number,), callback=note))
        results.append(pool.apply_async(square, (threading.Lock(),), error_callback=note))
        results.append(pool.map_async(square, range(5), 1, note, note))
    for result in results:
        result.wait(30)
    assert len(overlaps) == 600 and not any(overlaps)
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_a_callback_may_take_a_lock_that_the_caller_holds(pool: Pool) -> None:
    lock = threading.Lock()

    def take(_: object) -> None:
        with lock:
            pass

    for argument in (1, threading.Lock()):
        with lock:
            result = pool.apply_async(square, (argument,), callback=take, error_callback=take)
            time.sleep(0.005)  # the call ends, if it runs
        result.wait(20)
        assert result.ready()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_in_a_callback_is_shown_and_costs_nobody_else_a_result(
    pool: Pool, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)

    def stumble(_: object) -> None:
        raise error("in a callback")

    results: list[AsyncResult[Any]] = [
        pool.apply_async(square, (1,), callback=stumble),
        pool.apply_async(fail_on, (3,), error_callback=stumble),
        pool.map_async(square, range(10), callback=stumble),
    ]
    told: list[int] = []
    results.append(pool.apply_async(square, (2,), callback=told.append))
    for result in results:
        result.wait(20)
        assert result.ready()
    assert results[0].get() == 1
    assert results[2].successful()
    assert told == [4]
    assert [args.exc_type for args in shown] == [error] * 3
    assert shown[0].thread.name == "libpool-collector"


def test_a_callback_may_submit(pool: Pool) -> None:
    later: list[AsyncResult[int]] = []
    pool.apply_async(
        square, (3,), callback=lambda nine: later.append(pool.apply_async(square, (nine,)))
    ).wait()
    assert later[0].get(20) == 81


def test_join_waits_for_callbacks(pool: Pool) -> None:
    told: list[int] = []

    def slowly(x: int) -> None:
        time.sleep(0.002)
        told.append(x)

    for number in range(50):
        pool.apply_async(square, (number,), callback=slowly)
    pool.close()
    pool.join()
    assert sorted(told) == [x * x for x in range(50)]


def test_callbacks_are_called_though_nobody_keeps_the_result(pool: Pool) -> None:
    told: list[object] = []
    pool.map_async(square, range(3), callback=told.append)
    pool.apply_async(square, (3,), callback=told.append)
    gc.collect()
    until(lambda: len(told) == 2)
    assert sorted(told, key=str) == [9, [0, 1, 4]]


# ---- The end of the pool ------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["", "callbacks"])
def more(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keywords for a call that is not to be told of anything."""

    def fail(*args: object) -> None:
        raise AssertionError(f"was called with {args}")

    return {"callback": fail, "error_callback": fail} if request.param else {}


def test_terminate_ends_all_results_with_a_clear_error(
    started: Gate, held: Gate, pool: Pool, more: dict[str, Any]
) -> None:
    results = [
        held_call(pool, started, held, **more),
        held_call(pool, started, held, **more),
        pool.apply_async(square, (3,), **more),
        pool.map_async(square, range(100), **more),
    ]
    pool.terminate()
    for result in results:
        result.wait(20)
        assert result.ready()
        with pytest.raises(CancelledError, match="the pool was terminated before the job ended"):
            result.get(20)
        assert not result.successful()


def test_terminate_wakes_who_waits(
    started: Gate, held: Gate, pool: Pool, more: dict[str, Any]
) -> None:
    result = held_call(pool, started, held, **more)
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        result.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    pool.terminate()
    thread.join(20)
    assert not thread.is_alive()


def test_results_that_were_there_survive_the_pool(pool: Pool) -> None:
    results: list[AsyncResult[Any]] = [
        pool.apply_async(square, (3,)),
        pool.map_async(square, range(3)),
        pool.apply_async(square, (3,), callback=abs),
    ]
    for result in results:
        result.wait()
    pool.terminate()
    assert [result.get() for result in results] == [9, [0, 1, 4], 9]


def test_a_result_keeps_its_pool_until_it_is_there() -> None:
    result = Pool(1).apply_async(square, (3,))
    with pytest.warns(ResourceWarning):  # nobody has closed it
        assert result.get() == 9


def test_a_dead_worker_is_told_of(pool: Pool) -> None:
    failures: list[BaseException] = []
    result = pool.apply_async(os._exit, (3,), error_callback=failures.append)
    with pytest.raises(libpool.WorkerDied, match="exited with code 3"):
        result.get(30)
    assert [type(failure) for failure in failures] == [libpool.WorkerDied]
    assert pool.apply(square, (3,)) == 9


def test_a_map_says_which_items_were_lost(pool: Pool) -> None:
    with pytest.raises(libpool.WorkerDied) as caught:
        pool.map_async(lambda x: os._exit(1) if x == 5 else x, range(10), 3).get()
    assert caught.value.__notes__ == [
        "it ran a chunk of a map: the results of items 3 to 5 are lost"
    ]


# ---- In a job -----------------------------------------------------------------------------------


def nested() -> list[object]:
    pool: Any = libpool.current()
    told: list[object] = []
    results = [
        pool.apply_async(square, (3,), callback=told.append),
        pool.map_async(square, range(4), callback=told.append),
        pool.map_async(square, range(300)),
    ]
    return [told, *(result.get() for result in results)]


def test_a_job_may_use_all_of_it(pool: Pool) -> None:
    squares = [x * x for x in range(300)]
    assert pool.apply(nested) == [[9, squares[:4]], 9, squares[:4], squares]


# ---- The error class ----------------------------------------------------------------------------


def test_multiprocessing_is_not_imported_before_a_time_out() -> None:
    code = "import sys, libpool; print('multiprocessing' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "False\n", run.stderr


def test_an_unknown_name_is_still_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'libpool' has no attribute 'nonsense'"):
        libpool.nonsense  # noqa: B018
