"""The extension module by itself: what Pool and Executor are built on.

The registry here is the simplest that there can be, so that nothing of the Python package decides.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import errno
import gc
import logging
import math
import os
import pickle
import signal
import sys
import threading
import time
import tracemalloc
import weakref

import pytest

from libpool import BrokenPool, Future, WorkerDied, _core


class Registry:
    """Everything by reference; what `guards` says for a function, else none."""

    def __init__(self):
        self.guards = {}
        self.calls = 0

    def describe(self, fn):
        self.calls += 1
        return pickle.dumps(fn), self.guards.get(fn, ())


class Workers(_core.Workers):
    def __init__(self, count=2, **options):
        self.registry = options.pop("registry", None) or Registry()
        self._start(count, registry=self.registry, **options)

    @staticmethod
    def _closed_error():
        return ValueError("Pool not running")


@pytest.fixture
def shared():
    pool = Workers(2)
    yield pool
    pool.close()
    assert pool.join(10)


@pytest.fixture
def own():
    pools = []

    def make(count=2, **options):
        pools.append(Workers(count, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.terminate()
        assert pool.join(10)


def echo(*args, **kwargs):
    return args, kwargs


def same(x):
    return x


def add(x, y):
    return x + y


def pid(*_):
    return os.getpid()


def fail(error):
    raise error


def leave(code):
    os._exit(code)


def make_lock():
    return threading.Lock()


class Unloadable:
    def __reduce__(self):
        return int, ("no number",)


class SlowToLoad:
    def __reduce__(self):
        return time.sleep, (0.1,)


class InterruptsLoading:
    def __reduce__(self):
        return signal.raise_signal, (signal.SIGINT,)


def make(kind):
    return kind()


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def occupy(pool, seconds=0.5):
    """Keep all workers busy for a while."""
    while True:  # again, if a worker was too slow to start
        futures = [pool.submit(time.sleep, seconds) for _ in range(pool.workers)]
        while not any(future.done() for future in futures):
            if all(future.running() for future in futures):
                return futures
            time.sleep(0.001)


# ---- Values -------------------------------------------------------------------------------------

DIRECT = [
    *(None, True, False, 0.0, -0.0, 1.5, math.inf, "", "a", "é", "€", "\U0001f40d", b"", b"a\0b"),
    *(0, -1, 127, 128, -128, -129, 32767, 32768, -32769, 2**31 - 1, 2**31, -(2**31) - 1),
    *(2**63 - 1, -(2**63), "x" * 255, "x" * 256, "ä" * 200, b"y" * 255, b"y" * 256),
    *("x" * 100_000, b"y" * 100_000, "ä" * 100_000),
    *((), [], {}, (1, (2, [3, {"four": 5}])), [None] * 1000, {1: "a", "b": 2.0, (3,): None}),
]
PICKLED = [
    *(2**63, -(2**63) - 1, 10**100, "\ud800", 1j, {1, 2}, bytearray(b"x"), range(3), ...),
    *([[]] * 20, [[i] for i in range(20)], ["x" * 5000], int, len, same),
]


@pytest.mark.parametrize("value", DIRECT + PICKLED, ids=lambda value: repr(value)[:30])
def test_values_come_back_equal_and_of_the_same_type(shared, value):
    result = shared.submit(same, value).result(10)
    assert type(result) is type(value)
    assert result == value
    assert repr(result) == repr(value)  # -0.0, and types inside of containers


def test_arguments_and_keywords_arrive_in_every_form(shared):
    for args in [(), (1,), tuple(range(30)), tuple(range(300)), ([1], {2}, "three")]:
        for kwargs in [{}, {"a": 1}, {"a": [{1}], "ä": None}, {f"k{i}": i for i in range(300)}]:
            assert shared.submit(echo, *args, **kwargs).result(10) == (args, kwargs)


def test_instances_of_subclasses_keep_their_type(shared):
    class_of = {bool: True, MyInt: MyInt(3), MyStr: MyStr("x"), MyList: MyList([1])}
    for cls, value in class_of.items():
        assert type(shared.submit(same, value).result(10)) is cls
        assert type(shared.submit(same, [value]).result(10)[0]) is cls


class MyInt(int):
    pass


class MyStr(str):
    pass


class MyList(list):
    pass


def test_one_object_twice_stays_one_object(shared):
    thing = [1]
    assert shared.submit(are_one, thing, thing).result(10)
    assert shared.submit(are_one, thing, y=thing).result(10)
    (first, second) = shared.submit(twice).result(10)
    assert first is second


def are_one(x, y):
    return x is y


def twice():
    thing = [1]
    return thing, thing


def test_container_that_contains_itself(shared):
    loop = [1]
    loop.append(loop)
    result = shared.submit(same, loop).result(10)
    assert result[1] is result


def test_large_payloads_of_all_kinds(shared):
    for value in ["x" * 3_000_000, b"x" * 3_000_000, [bytes(3_000_000), {1}]]:
        assert shared.submit(same, value).result(30) == value


def test_a_list_that_changes_while_a_long_argument_is_copied(own):
    pool = own()
    changing, stop = [1] * 1000, False

    def change():
        while not stop:
            changing.extend([2] * 1000)
            del changing[1000:]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            long, got = pool.submit(same, (b"x" * 200_000, changing)).result(10)
            assert long == b"x" * 200_000 and set(got) <= {1, 2}
    finally:
        stop = True
        thread.join()


# ---- Submitting ---------------------------------------------------------------------------------


def test_not_callable_is_named(shared):
    with pytest.raises(TypeError, match="'not a function'"):
        shared.submit("not a function", 1)
    with pytest.raises(TypeError):
        shared.submit()
    with pytest.raises(TypeError):
        shared.submit_chunk(3, [], False)


def test_before_the_start():
    workers = _core.Workers()
    for call in (workers.close, workers.join, workers.stats, workers.check, workers.terminate):
        with pytest.raises(RuntimeError, match="not been started"):
            call()
    with pytest.raises(RuntimeError, match="not been started"):
        workers.submit(same, 1)


def test_bad_options():
    for bad in ({"workers": 0}, {"workers": -1}, {"workers": 10_000}, {"shared_limit": -1}):
        with pytest.raises(ValueError):
            _core.Workers()._start(**{"workers": 1, "registry": Registry(), **bad})
    with pytest.raises(ValueError, match="at least 1 MiB"):
        _core.Workers()._start(1, shared_limit=1000, registry=Registry())
    with pytest.raises(TypeError):
        _core.Workers()._start(1)
    with pytest.raises(TypeError):
        _core.Workers()._start("two", registry=Registry())


def test_after_close(own):
    pool = own()
    last = pool.submit(same, 1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    assert pool.check() == 0
    pool.close()
    pool.close()
    assert pool.check() == -errno.ESHUTDOWN
    with pytest.raises(ValueError, match="Pool not running"):
        pool.submit(same, 1)
    with pytest.raises(ValueError, match="Pool not running"):
        pool.submit(same, threading.Lock())
    with pytest.raises(ValueError, match="Pool not running"):
        pool.submit_chunk(same, [1], False)
    assert last.result(10) == 1
    assert pool.join(10) is True
    assert pool.supervisor_pid == 0 and pool.worker_pids() == []


def test_join_times_out(own):
    pool = own()
    future = pool.submit(time.sleep, 0.3)
    pool.close()
    assert pool.join(0.05) is False
    assert pool.join(10) is True
    assert future.done()


def test_unpicklable_argument_is_named(shared):
    for call in (
        lambda: shared.submit(same, threading.Lock()),
        lambda: shared.submit(echo, 1, [threading.Lock()], k=2),
        lambda: shared.submit(echo, 1, here=threading.Lock()),
        lambda: shared.submit_chunk(same, [threading.Lock()], False),
    ):
        future = call()
        assert future.done() and not future.cancelled()
        notes = "\n".join(future.exception().__notes__)
        assert "lock" in notes and "argument" in notes
        with pytest.raises(TypeError):
            future.result()
    assert "argument 'here'" in "\n".join(
        shared.submit(echo, 1, here=threading.Lock()).exception().__notes__
    )


def test_arguments_that_do_not_fit(own):
    pool = own(shared_limit=8 << 20)
    with pytest.raises(MemoryError, match="100000"):
        pool.submit(same, bytes(100_000_000))
    with pytest.raises(MemoryError, match="result of 100000"):
        pool.submit(bytes, 100_000_000).result(10)
    assert pool.submit(same, 1).result(10) == 1


def test_chunks(shared):
    numbers = list(range(1000))
    for items in (numbers, tuple(numbers), range(1000), range(2**70, 2**70 + 5), range(9, 0, -3)):
        assert shared.submit_chunk(same, items, False).result(10) == list(items)
    pairs = [(i, -i) for i in range(100)]
    assert shared.submit_chunk(add, pairs, True).result(10) == [0] * 100
    assert shared.submit_chunk(add, [[1, 2], "ab"], True).result(10) == [3, "ab"]
    assert shared.submit_chunk(same, [], False).result(10) == []
    with pytest.raises(ZeroDivisionError):
        shared.submit_chunk(inverse, [1, 0, 2], False).result(10)
    with pytest.raises(TypeError):
        shared.submit_chunk(same, {1, 2}, False)
    with pytest.raises(TypeError):
        shared.submit_chunk(same, [1])


def inverse(x):
    return 1 / x


# ---- Functions and guards -----------------------------------------------------------------------


def test_function_is_described_once(own):
    pool = own()
    for i in range(20):
        assert pool.submit(same, i).result(10) == i
        assert pool.submit(add, i, i).result(10) == 2 * i
    assert pool.registry.calls == 2


def test_not_cacheable_functions_are_described_each_time(own):
    registry = Registry()
    registry.guards[same] = None
    pool = own(registry=registry)
    for i in range(5):
        assert pool.submit(same, i).result(10) == i
        assert pool.submit("abc".upper).result(10) == "ABC"
    assert registry.calls == 5 + 1 and cf.wait([pool.submit([i].copy) for i in range(3)])
    bound = [1].copy
    assert pool.submit(bound).result(10) == [1]


FLAG = 1


def read_flag():
    return FLAG


def with_default(x=1):
    return x


def test_failed_guards_describe_again(own):
    registry = Registry()
    cell = (lambda value: lambda: value)(1).__closure__[0]
    kept = with_default.__code__, with_default.__defaults__, with_default.__kwdefaults__
    registry.guards[same] = (
        ("item", globals(), "FLAG", FLAG),
        ("item", globals(), "there is none", None),
        ("func", with_default, *kept),
        ("cell", cell, 1),
    )
    pool = own(registry=registry)
    changes = [
        lambda: None,
        lambda: globals().update(FLAG=2),
        lambda: globals().update(FLAG=1),
        lambda: setattr(with_default, "__defaults__", (2,)),
        lambda: setattr(with_default, "__defaults__", kept[1]),
        lambda: setattr(cell, "cell_contents", 5),
        lambda: setattr(cell, "cell_contents", 1),
    ]
    counts = []
    for change in changes:
        change()
        for i in range(3):
            assert pool.submit(same, i).result(10) == i
        counts.append(registry.calls)
    # While a guard fails, each submission asks; what was asked last holds when all is as it was.
    assert counts == [1, 4, 4, 7, 7, 10, 10]


def test_bad_descriptions_are_errors(own):
    for answer in (None, (b"", 3), ("text", ()), (b"", (("item", 1),)), (b"", ("no tuple",))):
        pool = own(registry=type("Bad", (), {"describe": lambda self, fn, a=answer: a})())
        assert isinstance(pool.submit(same, 1).exception(10), TypeError)
        assert pool.submit(same, 1).done()


def test_one_shot_functions_are_not_kept(own):
    pool = own()
    pool.registry.describe = lambda fn: (pickle.dumps(same), ())
    references = []
    for i in range(300):
        one_shot = lambda x: x  # noqa: E731
        references.append(weakref.ref(one_shot))
        assert pool.submit(one_shot, i).result(10) == i
    del one_shot
    gc.collect()
    assert sum(reference() is not None for reference in references) <= 65


def test_function_that_the_worker_can_not_load(own):
    pool = own(count=1)
    pool.registry.describe = lambda fn: (b"cno_such_module\nf\n.", ())
    for _ in range(3):
        with pytest.raises(ModuleNotFoundError):
            pool.submit(same, 1).result(10)


# ---- Outcomes -----------------------------------------------------------------------------------


def test_exception_keeps_type_arguments_and_traceback(shared):
    future = shared.submit(fail, KeyError("key", 3))
    with pytest.raises(KeyError) as caught:
        future.result(10)
    assert caught.value.args == ("key", 3)
    assert "in fail" in str(caught.value.__cause__)
    assert future.exception() is caught.value
    for error in (SystemExit(3), KeyboardInterrupt()):
        assert type(shared.submit(fail, error).exception(10)) is type(error)


def test_unpicklable_result_is_named(shared):
    error = shared.submit(make_lock).exception(10)
    assert "lock" in "".join(error.__notes__) and "make_lock" in "".join(error.__notes__)


def test_result_that_can_not_be_loaded(shared):
    error = shared.submit(make, Unloadable).exception(10)
    assert isinstance(error, ValueError) and "unpickled" in "".join(error.__notes__)


def test_dead_worker_fails_its_job_only(own):
    pool = own()
    futures = [pool.submit(leave, 7) if i == 5 else pool.submit(same, i) for i in range(100)]
    for i, future in enumerate(futures):
        if i == 5:
            with pytest.raises(WorkerDied, match="code 7.*leave"):
                future.result(10)
        else:
            assert future.result(10) == i
    killed = pool.submit(time.sleep, 60)
    wait_until(killed.running)
    for worker in pool.worker_pids():
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL.*sleep"):
        killed.result(10)
    assert pool.submit(same, 1).result(10) == 1


def test_dead_supervisor_breaks_the_pool(own):
    pool = own()
    plain, watched, told = pool.submit(time.sleep, 60), pool.submit(time.sleep, 60), []
    watched.add_done_callback(told.append)
    os.kill(pool.supervisor_pid, signal.SIGKILL)
    assert isinstance(plain.exception(10), BrokenPool)
    assert isinstance(watched.exception(10), BrokenPool)
    wait_until(lambda: told == [watched])
    with pytest.raises(BrokenPool):
        pool.submit(same, 1)
    assert pool.check() == -errno.EOWNERDEAD


def test_terminate_cancels(own):
    pool = own()
    futures = [pool.submit(time.sleep, 60) for _ in range(5)]
    told = []
    futures[0].add_done_callback(told.append)
    futures[4].add_done_callback(told.append)
    pool.terminate()
    assert pool.join(10)
    assert all(future.cancelled() for future in futures)
    assert len(told) == 2
    with pytest.raises(ValueError):
        pool.submit(same, 1)


# ---- Future: concurrent.futures's semantics -----------------------------------------------------


def test_is_a_future_that_nobody_can_make(shared):
    future = shared.submit(same, 1)
    assert type(future) is Future and isinstance(future, cf.Future)
    with pytest.raises(TypeError):
        Future()
    with pytest.raises(TypeError):
        type("Sub", (Future,), {})
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(future)
    assert not hasattr(future, "_content") and not hasattr(future, "_watch")


def test_result_is_the_same_object_each_time(shared):
    future = shared.submit(make, list)
    assert future.result(10) is future.result() is future.result(timeout=0)
    assert future.exception() is None
    failed = shared.submit(fail, ValueError("x"))
    assert failed.exception(10) is failed.exception()


def test_states(own):
    pool = own()
    running = occupy(pool)[0]
    waiting = pool.submit(same, 1)
    assert not waiting.done() and not waiting.running() and "state=pending" in repr(waiting)
    assert running.running() and not running.done() and "state=running" in repr(running)
    assert waiting._state == "PENDING" and running._state == "RUNNING"
    assert waiting.result(10) == 1
    assert waiting.done() and not waiting.running() and not waiting.cancelled()
    assert "state=finished returned int" in repr(waiting) and waiting._state == "FINISHED"
    assert "raised ValueError" in repr(cf.wait([pool.submit(fail, ValueError())])[0].pop())


def test_timeouts(own):
    pool = own()
    future = occupy(pool)[0]
    for bad in (0, -1, -1e300, 0.001, math.nan):
        with pytest.raises(TimeoutError):
            future.result(bad)
        with pytest.raises(cf.TimeoutError):
            future.exception(timeout=bad)
    for bad in (1e20, math.inf, 10**30):
        with pytest.raises(OverflowError):
            future.result(bad)
    with pytest.raises(TypeError):
        future.result("soon")
    with pytest.raises(TypeError):
        future.result(1, 2)
    with pytest.raises(TypeError):
        future.result(soon=1)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert 0.04 < time.monotonic() - start < 0.4
    future._condition  # noqa: B018  watched from now on
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert future.result() is None
    assert future.result(1e20) is None  # a timeout matters only where there is a wait


def test_cancel(own):
    pool = own()
    running, plain, watched, told = occupy(pool)[0], pool.submit(same, 1), pool.submit(same, 2), []
    watched.add_done_callback(told.append)
    assert not running.cancel()
    assert plain.cancel() and plain.cancel() and plain.cancelled() and plain.done()
    assert watched.cancel() and told == [watched]
    for future in (plain, watched):
        with pytest.raises(cf.CancelledError):
            future.result()
        with pytest.raises(cf.CancelledError):
            future.exception(0)
        assert "state=cancelled" in repr(future)
    assert cf.wait([plain, watched], timeout=0).done == {plain, watched}
    running.result(10)
    assert not running.cancel() and not running.cancelled()


def test_cancel_is_seen_by_those_who_wait(own):
    pool = own()
    occupy(pool)
    for watched in (False, True):
        future, seen = pool.submit(same, 1), []
        if watched:
            future.add_done_callback(lambda future: None)

        def wait(future=future, seen=seen):
            try:
                future.result()
            except BaseException as error:
                seen.append(type(error))

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.02)
        assert future.cancel()
        thread.join(10)
        assert seen == [cf.CancelledError]


def test_cancel_waiting(own):
    pool = own()
    running = occupy(pool)
    futures = [pool.submit(same, i) for i in range(10)]
    told = []
    futures[3].add_done_callback(told.append)
    assert pool.cancel_waiting() == 10
    wait_until(lambda: told == [futures[3]])
    assert all(future.cancelled() for future in futures)
    assert [future.result(10) for future in running] == [None, None]


def test_wait_and_as_completed(own):
    pool = own()
    futures = [pool.submit(same, i) for i in range(200)]
    assert {future.result() for future in cf.as_completed(futures, timeout=10)} == set(range(200))
    futures = [pool.submit(same, i) for i in range(200)]
    done, not_done = cf.wait(futures, timeout=10)
    assert done == set(futures) and not not_done
    for future in occupy(pool, 0.05):  # both workers are up
        future.result()
    slow, broken = pool.submit(time.sleep, 0.5), pool.submit(fail, ValueError())
    assert cf.wait([slow, broken], return_when=cf.FIRST_EXCEPTION).done == {broken}
    assert cf.wait([slow, broken], return_when=cf.FIRST_COMPLETED).done == {broken}
    assert cf.wait([slow], timeout=0.001).not_done == {slow}
    with pytest.raises(TimeoutError):
        list(cf.as_completed([pool.submit(time.sleep, 0.3)], timeout=0.01))


def test_callbacks(own, caplog):
    pool = own()
    running = occupy(pool, 0.1)[0]
    order = []
    for i in range(3):
        running.add_done_callback(lambda future, i=i: order.append((i, future)))
    running.add_done_callback(lambda future: 1 / 0)
    running.add_done_callback(lambda future: order.append(threading.current_thread().name))
    wait_until(lambda: len(order) == 4)
    assert order == [(0, running), (1, running), (2, running), "libpool-collector"]
    running.add_done_callback(lambda future: order.append(threading.current_thread().name))
    assert order[-1] == threading.current_thread().name
    running.add_done_callback(lambda future: 1 / 0)
    records = [r for r in caplog.records if r.name == "concurrent.futures"]
    assert [r.levelno for r in records] == [logging.ERROR] * 2
    assert all("exception calling callback" in r.message and r.exc_info for r in records)


def test_callback_may_use_the_pool(own):
    pool = own()
    seen = []
    pool.submit(same, 1).add_done_callback(
        lambda first: pool.submit(same, first.result() + 1).add_done_callback(
            lambda second: seen.append(second.result())
        )
    )
    wait_until(lambda: seen == [2])


def test_result_from_many_threads(own):
    pool = own()
    for make_future in (
        lambda: pool.submit(time.sleep, 0.1),
        lambda: pool.submit(make, SlowToLoad),
    ):
        future, results = make_future(), []

        def work(future=future, results=results):
            results.append(future.result())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert results == [None] * 8


def test_callback_added_while_another_thread_collects(own):
    pool = own()
    future, told = pool.submit(make, SlowToLoad), []
    thread = threading.Thread(target=future.result)
    thread.start()
    time.sleep(0.05)
    future.add_done_callback(told.append)
    thread.join(10)
    wait_until(lambda: told == [future])


def test_set_result_and_set_exception_as_for_any_future(own):
    pool = own()
    occupy(pool)
    future, told = pool.submit(same, 1), []
    future.add_done_callback(told.append)
    future.set_result("mine")
    assert future.result() == "mine" and told == [future]
    with pytest.raises(cf.InvalidStateError):
        future.set_result("again")
    future = pool.submit(same, 1)
    future.set_exception(KeyError(1))
    with pytest.raises(KeyError):
        future.result()
    future = pool.submit(same, 1)
    assert future.set_running_or_notify_cancel() is True


def test_asyncio(shared):
    async def main():
        futures = [asyncio.wrap_future(shared.submit(same, i)) for i in range(100)]
        assert await asyncio.gather(*futures) == list(range(100))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(shared.submit(inverse, 0))
        blocked = [shared.submit(time.sleep, 0.3) for _ in range(2)]
        waiting = shared.submit(same, 1)
        task = asyncio.ensure_future(asyncio.wrap_future(waiting))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.gather(*map(asyncio.wrap_future, blocked))
        assert waiting.cancelled()

    asyncio.run(main())


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals")
def test_interrupt_while_waiting(own):
    pool = own()
    future = pool.submit(time.sleep, 0.8)
    for watched in (False, True):
        if watched:
            future._condition  # noqa: B018
        start = time.monotonic()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            future.result()
        assert time.monotonic() - start < 0.25
    assert future.result(10) is None


def test_interrupt_while_loading_leaves_the_result_to_be_fetched(shared):
    future = shared.submit(make, InterruptsLoading)
    with pytest.raises(KeyboardInterrupt):
        future.result(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert future.result(10) is None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- In the workers -----------------------------------------------------------------------------


def fibonacci(n):
    if n < 2:
        return n
    pool = _core.current()
    first, second = pool.submit(fibonacci, n - 1), pool.submit(fibonacci, n - 2)
    return first.result() + second.result()


def nested_services():
    pool, told = _core.current(), []
    futures = [pool.submit(same, i) for i in range(20)]
    futures[0].add_done_callback(told.append)
    done, _ = cf.wait(futures)
    total = sum(future.result() for future in cf.as_completed(futures))
    error = pool.submit(inverse, 0).exception()
    thread = threading.Thread(target=lambda: told.append(pool.submit(same, "side").result()))
    thread.start()
    thread.join()
    chunk = pool.submit_chunk(same, [1], False).result()
    return len(done), total, type(error), len(told), told[1], chunk


def where():
    return _core.worker_index(), type(_core.current()).__name__


def test_jobs_may_use_their_own_pool(own):
    pool = own()
    assert pool.submit(fibonacci, 12).result(30) == 144
    assert pool.submit(nested_services).result(30) == (20, 190, ZeroDivisionError, 2, "side", [1])


def test_current(own):
    pool = own()
    assert _core.current() is None and _core.worker_index() == -1
    places = [pool.submit(where).result(10) for _ in range(20)]
    assert {place[0] for place in places} <= {0, 1}
    assert {place[1] for place in places} == {"Workers"}


STARTED = []


def test_start_and_stop_run_in_each_worker(own, tmp_path):
    def stop():
        (tmp_path / f"stopped-{_core.worker_index()}").touch()

    pool = own(start=STARTED.append, stop=stop)
    assert pool.submit(started_here).result(10) in ([0], [1])
    pool.close()
    assert pool.join(10)
    assert STARTED == []
    assert len(list(tmp_path.iterdir())) == 2


def started_here():
    return STARTED


def test_start_that_raises_is_told(capfd):
    def start(worker):
        raise LookupError("start failed")

    pool = Workers(1, start=start)
    assert isinstance(pool.submit(same, 1).exception(20), BrokenPool)
    assert "LookupError: start failed" in capfd.readouterr().err
    pool.terminate()


def test_many_threads_submit(own):
    pool = own()
    sums = []

    def work():
        futures = [pool.submit(same, i) for i in range(2000)]
        sums.append(sum(future.result() for future in futures))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sums == [sum(range(2000))] * 4


# ---- Lifetime -----------------------------------------------------------------------------------


def test_inherited_pool_is_inert(own):
    pool = own()
    plain, watched = occupy(pool)
    watched.add_done_callback(lambda future: None)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        problems = []
        for call in (
            lambda: pool.submit(same, 1),
            lambda: plain.result(),
            lambda: watched.result(),
            lambda: plain.add_done_callback(print),
            plain.cancel,
            pool.close,
            pool.terminate,
            pool.join,
            pool.cancel_waiting,
        ):
            try:
                problems.append(call())
            except RuntimeError as error:
                if "inherited through fork" not in str(error):
                    problems.append(error)
        if pool.check() != -errno.EXDEV or _core.current() is not None:
            problems.append("check")
        del pool, plain, watched
        gc.collect()
        os.write(write, repr(problems).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10_000) == b"[]"
    os.close(read)
    os.close(write)
    assert plain.result(10) is None and watched.result(10) is None
    assert pool.submit(same, 1).result(10) == 1


def test_futures_outlive_their_pool():
    pool = Workers(1)
    future = pool.submit(same, "alive")
    supervisor = pool.supervisor_pid
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    assert future.result(10) == "alive"
    wait_until(lambda: not os.path.exists(f"/proc/{supervisor}"))


def test_abandon_is_called_when_nobody_has_the_pool_and_then_it_is_closed():
    kept = []

    class Lingering(Workers):
        def _abandon(self):
            kept.append((self, self.submit(same, 1)))

    pool = Lingering(1)
    del pool
    gc.collect()
    again, future = kept[0]
    assert again.check() == -errno.ESHUTDOWN
    assert future.result(10) == 1
    assert again.join(10)


def test_a_pool_is_closed_whatever_abandon_raises(monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: ignored.append(info.exc_type))

    class Interrupted(Workers):
        def _abandon(self):
            raise KeyboardInterrupt

    pool = Interrupted(1)
    future = pool.submit(same, 1)
    supervisor = pool.supervisor_pid
    del pool
    gc.collect()
    assert ignored == [KeyboardInterrupt]
    wait_until(lambda: not os.path.exists(f"/proc/{supervisor}"))
    assert future.result(10) == 1


def test_a_dropped_view_leaves_the_pool_running(own):
    pool = own()
    view = pool._view(None, 1)
    view.registry = view  # a cycle
    del view
    gc.collect()
    assert pool.submit(same, 1).result(10) == 1


def test_pool_in_a_reference_cycle_is_collected():
    pool = Workers(1)
    pool.future = pool.submit(same, 1)
    pool.registry.pool = pool
    reference = weakref.ref(pool)
    pool.future.x = pool
    del pool
    gc.collect()
    assert reference() is None


def test_futures_in_reference_cycles_are_collected(shared):
    references = []
    for watched in (False, True):
        future = shared.submit(make, MyList)
        if watched:
            future.add_done_callback(id)
        future.result(10).append(future)
        references.append(weakref.ref(future))
    del future
    wait_until(lambda: gc.collect() is not None and not any(ref() for ref in references))


def test_no_thread_is_left(own):
    pool = own()
    before = set(threading.enumerate())  # those of other tests may still be ending
    assert pool.submit(same, 1).result(10) == 1
    assert set(threading.enumerate()) <= before  # none without callbacks
    told = []
    for i in range(100):
        pool.submit(same, i).add_done_callback(told.append)
    assert len(set(threading.enumerate()) - before) == 1
    pool.close()
    assert pool.join(10)
    assert len(told) == 100
    assert set(threading.enumerate()) <= before


def test_join_within_a_callback(own):
    pool = own()
    joined = []

    def callback(future):
        pool.close()
        joined.append(pool.join(10))

    pool.submit(same, 1).add_done_callback(callback)
    wait_until(lambda: joined == [True])


def test_a_future_is_small(shared):
    future = shared.submit(same, 1)
    assert sys.getsizeof(future) <= 120
    futures = [None] * 10_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(len(futures)):
        futures[i] = shared.submit(same, 1)
    each = (tracemalloc.get_traced_memory()[0] - before) / len(futures)
    tracemalloc.stop()
    assert each <= 120
    assert all(future.result(10) == 1 for future in futures)


def test_nothing_leaks(shared):
    def everything():
        shared.submit(same, 1).result()
        shared.submit(echo, {1}, k=[{2}]).result()
        shared.submit_chunk(same, [1, {2}], False).result()
        shared.submit(same, "x" * 70_000).result()
        assert shared.submit(inverse, 0).exception()
        assert shared.submit(same, threading.Lock()).exception()
        assert shared.submit(make, Unloadable).exception()
        told = threading.Event()
        shared.submit(same, 1).add_done_callback(lambda future: told.set())
        told.wait()
        shared.submit(same, 1).cancel()
        shared.submit(same, 1)
        cf.wait([shared.submit(same, 1)])
        repr(shared.stats())
        shared.submit(same, [1, "x" * 1000]).result()

    # Python's lists of free objects fill up first.
    tracemalloc.start()
    for _ in range(1000):
        everything()
    gc.collect()
    objects, before = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        everything()
    gc.collect()
    grown, more = tracemalloc.get_traced_memory()[0] - before, len(gc.get_objects()) - objects
    tracemalloc.stop()
    assert grown < 300 * 100
    assert more < 100
    assert shared.stats()["memory"] < 64 << 20


def test_stats(own):
    pool = own(3)
    wait_until(lambda: pool.stats()["alive"] == 3)
    assert pool.submit(same, 1).result(10) == 1
    stats = pool.stats()
    assert stats["workers"] == pool.workers == 3
    assert stats["supervisor"] == pool.supervisor_pid > 0
    assert stats["jobs_started"] == 1 and stats["workers_started"] == 3
    assert 0 < stats["memory"] < stats["shared_limit"]
    assert len(set(pool.worker_pids())) == 3
    assert {pool.submit(pid).result(10) for _ in range(20)} <= set(pool.worker_pids())


class NoRepr:
    def __reduce__(self):
        raise ValueError("no pickle")

    def __repr__(self):
        raise ValueError("no repr")

    def __call__(self):
        pass


def test_objects_that_have_no_repr_and_no_pickle(shared):
    assert "NoRepr object" in "".join(shared.submit(same, NoRepr()).exception(10).__notes__)
    assert "NoRepr object" in "".join(shared.submit(make, NoRepr).exception(10).__notes__)
    shared.registry.describe = lambda fn: (pickle.dumps(fn), None)
    assert "NoRepr object" in "".join(shared.submit(NoRepr()).exception(10).__notes__)


def test_the_longest_timeout(shared):
    assert shared.submit(time.sleep, 0.05).result(threading.TIMEOUT_MAX) is None
    with pytest.raises(OverflowError):
        shared.submit(time.sleep, 0.05).result(threading.TIMEOUT_MAX + 1)


def test_arguments_nested_too_deep(shared):
    value = []
    for _ in range(100_000):
        value = [value]
    error = shared.submit(same, value).exception(10)
    assert isinstance(error, RecursionError | pickle.PicklingError)
