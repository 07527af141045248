"""Pool.imap and Pool.imap_unordered."""

from __future__ import annotations

import builtins
import gc
import itertools
import multiprocessing
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from support import Gate, pass_gates, until

import libpool
from libpool import AsyncResult, Pool

BOUND = 2 * 16 * 256
"""How many items may have been taken of which no result was, with two workers."""


@pytest.fixture(params=["imap", "imap_unordered"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def square(x: int) -> int:
    return x * x


def fail_on_sevens(x: int) -> int:
    if x % 7 == 0:
        raise LookupError(x)
    return x


def call(thing: Callable[[], object]) -> object:
    return thing()


class Counting:
    """An infinite iterable that knows how far it has come."""

    def __init__(self) -> None:
        self.taken = 0
        self.threads: set[int] = set()

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> int:
        self.taken += 1
        self.threads.add(threading.get_ident())
        return self.taken


def fail_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise KeyError(count)


def outcomes(iterator: Iterator[Any]) -> list[Any]:
    """All results; exceptions as such."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found
        except Exception as error:
            found.append(error)


# ---- Order --------------------------------------------------------------------------------------


def test_imap_keeps_the_order(pool: Pool) -> None:
    for items in ([], [3], range(1000), iter(range(1000)), {5: 1, 6: 2}):
        expected = [x * x for x in (range(1000) if isinstance(items, Iterator) else items)]
        assert list(pool.imap(square, items)) == expected


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_imap_keeps_the_order_when_jobs_end_in_another(
    started: Gate, held: Gate, pool: Pool, chunksize: int | None
) -> None:
    iterator = pool.imap(
        call,
        [lambda n=n: pass_gates(started, held, n) if n == 0 else n for n in range(20)],
        chunksize,
    )
    started.wait_for()
    with pytest.raises(libpool.TimeoutError):
        iterator.next(0.05)
    held.open()
    assert list(iterator) == list(range(20))


def test_imap_unordered_gives_what_has_ended(started: Gate, held: Gate, pool: Pool) -> None:
    iterator = pool.imap_unordered(
        call, [lambda n=n: pass_gates(started, held, n) if n == 0 else n for n in range(30)], 1
    )
    first = [iterator.next(20) for _ in range(29)]
    assert first == list(range(1, 30))
    with pytest.raises(libpool.TimeoutError):
        iterator.next(0.01)
    held.open()
    assert list(iterator) == [0]


def test_a_long_job_does_not_keep_the_others_from_being_sent(
    started: Gate, held: Gate, pool: Pool
) -> None:
    iterator = pool.imap_unordered(
        call, (lambda n=n: pass_gates(started, held, n) if n == 0 else n for n in range(10**9)), 1
    )
    for _ in range(500):
        iterator.next(20)
    held.open()
    for result in iterator:
        if result == 0:
            break


# ---- Lazy and bounded ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 1, 5])
def test_an_infinite_iterable_is_taken_no_further_than_the_bound(
    pool: Pool, method: str, chunksize: int | None
) -> None:
    source = Counting()
    iterator = getattr(pool, method)(square, source, chunksize)
    bound = BOUND if chunksize is None else 2 * 16 * chunksize
    most = 0
    for count, _ in enumerate(itertools.islice(iterator, 60_000 if chunksize is None else 2000)):
        most = max(most, source.taken - count)
    assert 1 < most <= bound + (chunksize or 256)
    assert source.threads == {threading.get_ident()}


def test_what_waits_for_the_first_is_bounded_too(started: Gate, held: Gate, pool: Pool) -> None:
    source = Counting()
    iterator = pool.imap(
        lambda n: pass_gates(started, held, n) if n == 1 else n,
        source,
    )
    with pytest.raises(libpool.TimeoutError):
        iterator.next(0.2)
    assert source.taken <= BOUND
    held.open()
    assert list(itertools.islice(iterator, 3)) == [1, 2, 3]


def test_nothing_is_taken_while_nobody_asks(pool: Pool, method: str) -> None:
    source = Counting()
    iterator = getattr(pool, method)(square, source)
    begun = source.taken
    assert 0 < begun <= 32
    assert pool.map(square, range(100)) == [x * x for x in range(100)]
    assert source.taken == begun
    next(iterator)


def test_work_begins_before_the_first_result_is_asked_for(started: Gate, pool: Pool) -> None:
    iterator = pool.imap(call, [started.open])
    started.wait_for()
    assert list(iterator) == [None]


# ---- Iterators ----------------------------------------------------------------------------------


def test_it_is_an_iterator(pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(square, [3])
    assert iter(iterator) is iterator
    assert iterator.next() == 9
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)
        with pytest.raises(StopIteration):
            iterator.next(timeout=0)


def test_a_time_out_is_the_error_of_both_worlds(
    started: Gate, held: Gate, pool: Pool, method: str
) -> None:
    iterator = getattr(pool, method)(call, [lambda: pass_gates(started, held, 1)])
    started.wait_for()
    for timeout in (0.05, 0.001, 0, -1):
        begin = time.monotonic()
        with pytest.raises(multiprocessing.TimeoutError) as caught:
            iterator.next(timeout)
        assert isinstance(caught.value, builtins.TimeoutError)
        assert timeout <= time.monotonic() - begin < 5
    held.open()
    assert iterator.next(timeout=20) == 1


def test_several_threads_may_take_results(pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(square, iter(range(20_000)))
    taken: list[list[int]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=mine.extend, args=[iterator]) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*taken)) == [x * x for x in range(20_000)]
    if method == "imap":
        assert all(mine == sorted(mine) for mine in taken)


def test_another_threads_time_out_counts_while_one_waits(
    started: Gate, held: Gate, pool: Pool, method: str
) -> None:
    iterator = getattr(pool, method)(call, [lambda: pass_gates(started, held, 1)])
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(next(iterator)))
    thread.start()
    started.wait_for()
    with pytest.raises(libpool.TimeoutError):
        iterator.next(0.05)
    held.open()
    thread.join()
    assert got == [1]


def test_closing_cancels_what_waits(started: Gate, held: Gate, pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(
        call, [lambda: pass_gates(started, held)] * 2 + [started.open] * 10, 1
    )
    for _ in range(2):
        started.wait_for()
    before = pool.stats()["jobs_started"]
    iterator.close()
    held.open(2)
    assert pool.map(square, range(10)) == [x * x for x in range(10)]
    assert list(iterator) == []
    assert pool.stats()["jobs_started"] <= before + 10
    iterator.close()


def test_dropping_cancels_what_waits(started: Gate, held: Gate, pool: Pool, method: str) -> None:
    source = Counting()
    iterator = getattr(pool, method)(lambda _: pass_gates(started, held), source, 1)
    for _ in range(2):
        started.wait_for()
    gone = weakref.ref(iterator)
    del iterator
    assert gone() is None
    held.open(2)
    assert pool.apply(square, (3,)) == 9
    assert pool.stats()["jobs_started"] == 3
    assert source.taken <= 32


def test_dropping_one_that_was_watched_leaves_no_cycle(pool: Pool, method: str) -> None:
    gc.collect()
    gc.disable()
    try:
        iterator = getattr(pool, method)(time.sleep, itertools.repeat(0.005), 1)
        for _ in range(4):
            next(iterator)
        source = weakref.ref(iterator)
        del iterator
        assert source() is None
        until(lambda: not [x for x in gc.get_objects() if type(x).__name__ == "Chunk"])
    finally:
        gc.enable()


def test_an_interrupt_in_the_iterable_costs_nothing(pool: Pool, method: str) -> None:
    class Interrupted(Counting):
        def __next__(self) -> int:
            value = super().__next__()
            if value == 100:
                self.taken -= 1
                self.__class__ = Counting  # type: ignore[assignment]
                raise KeyboardInterrupt
            return value

    iterator = getattr(pool, method)(square, Interrupted(), 1)
    got: list[int] = []
    interrupts = 0
    while len(got) < 300:
        try:
            got.append(next(iterator))
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 1
    assert len(set(got)) == 300
    if method == "imap":
        assert got == [x * x for x in range(1, 301)]


# ---- Exceptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_an_exception_of_the_function_is_in_its_place(pool: Pool, chunksize: int | None) -> None:
    found = outcomes(pool.imap(fail_on_sevens, range(1000), chunksize))
    assert [type(x) for x in found] == [LookupError if x % 7 == 0 else int for x in range(1000)]
    assert [x.args[0] if isinstance(x, LookupError) else x for x in found] == list(range(1000))
    assert "fail_on_sevens" in str(found[0].__cause__)


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_exceptions_do_not_end_an_unordered_iteration(pool: Pool, chunksize: int | None) -> None:
    found = outcomes(pool.imap_unordered(fail_on_sevens, range(1000), chunksize))
    assert sorted(x for x in found if isinstance(x, int)) == [x for x in range(1000) if x % 7]
    failed = [x.args[0] for x in found if isinstance(x, LookupError)]
    assert sorted(failed) == list(range(0, 1000, 7))


def raise_it(kind: type[BaseException]) -> None:
    raise kind


def test_exceptions_that_would_end_a_process_or_a_loop_end_the_job_only(pool: Pool) -> None:
    kinds = [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError]
    iterator = pool.imap(raise_it, kinds, 2)
    for kind in kinds:
        with pytest.raises(kind):
            next(iterator)
    assert list(iterator) == []


def test_an_exception_of_the_iterable_comes_after_the_items_before_it(pool: Pool) -> None:
    for count in (0, 1, 5, 700):
        found = outcomes(pool.imap(square, fail_after(count)))
        assert found[:-1] == [x * x for x in range(count)]
        assert isinstance(found[-1], KeyError)
        found = outcomes(pool.imap_unordered(square, fail_after(count)))
        assert sorted(found[:-1]) == [x * x for x in range(count)]
        assert isinstance(found[-1], KeyError)


def test_an_exception_of_the_iterable_costs_an_explicit_chunk(pool: Pool) -> None:
    found = outcomes(pool.imap(square, fail_after(7), 2))
    assert found[:-1] == [0, 1, 4, 9, 16, 25]
    assert isinstance(found[-1], KeyError)


def test_a_result_that_can_not_be_pickled_costs_no_other(pool: Pool) -> None:
    found = outcomes(pool.imap(lambda n: threading.Lock() if n == 5 else n, range(10), 10))
    assert isinstance(found[5], TypeError)
    assert any(note.startswith("the result of") for note in found[5].__notes__)
    assert found[:5] + found[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_an_item_that_can_not_be_pickled_costs_no_other(pool: Pool, method: str) -> None:
    items = [1, 2, threading.Lock(), 4, 5, 6, 7]
    found = outcomes(getattr(pool, method)(abs, items, 3))
    failed = [x for x in found if isinstance(x, TypeError)]
    assert len(failed) == 1
    assert sorted(x for x in found if isinstance(x, int)) == [1, 2, 4, 5, 6, 7]
    if method == "imap":
        assert found.index(failed[0]) == 2


def test_a_dead_worker_costs_its_chunk_and_says_so(pool: Pool) -> None:
    found = outcomes(pool.imap(lambda n: os._exit(1) if n == 4 else n, range(12), 3))
    assert found[:3] + found[6:] == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert [type(x) for x in found[3:6]] == [libpool.WorkerDied] * 3
    assert found[3].__notes__ == ["it ran a chunk of a map: the results of items 3 to 5 are lost"]


def test_a_late_item_costs_those_before_it_in_its_chunk(pool: Pool, method: str) -> None:
    quick = pool.options(timeout=0.2)
    found = outcomes(getattr(quick, method)(lambda n: time.sleep(60 * (n == 4)) or n, range(12), 6))
    late = [x for x in found if isinstance(x, TimeoutError)]
    assert len(late) == 5
    assert late[0].__notes__ == ["it ran item 4 of a map: the results of items 0 to 4 are lost"]
    assert sorted(x for x in found if isinstance(x, int)) == [5, 6, 7, 8, 9, 10, 11]
    if method == "imap":
        assert found.index(late[0]) == 0 and found[5:] == [5, 6, 7, 8, 9, 10, 11]


# ---- The end of the pool ------------------------------------------------------------------------


def test_a_closed_pool_finishes_what_was_begun(pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(square, iter(range(20_000)))
    pool.close()
    with pytest.raises(ValueError, match="Pool not running"):
        pool.submit(square, 1)
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(square, [1])
    with pytest.raises(ValueError, match="Pool not running"):
        getattr(pool, method)(square, [1])
    assert "state=CLOSE" in repr(pool)
    assert sorted(iterator) == [x * x for x in range(20_000)]
    pool.join()
    assert pool.worker_pids() == []


def test_join_takes_all_items(pool: Pool, method: str) -> None:
    iterators = [getattr(pool, method)(square, iter(range(3000))) for _ in range(3)]
    assert next(iterators[0]) >= 0
    pool.close()
    pool.join()
    assert [len(list(iterator)) for iterator in iterators] == [2999, 3000, 3000]


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_closed_pool_ends_when_its_last_iterator_does(pool: Pool, method: str, end: str) -> None:
    iterators = [getattr(pool, method)(square, itertools.count()) for _ in range(2)]
    pool.close()
    for _ in range(2):
        until(lambda: len(pool.worker_pids()) == 2)
        assert len(list(itertools.islice(iterators[-1], 2000))) == 2000
        if end == "close":
            iterators[-1].close()
        iterators.pop()
    pool.join()
    assert pool.worker_pids() == []


def test_terminate_ends_the_iteration(started: Gate, held: Gate, pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(lambda _: pass_gates(started, held), itertools.count(), 1)
    started.wait_for()
    pool.terminate()
    with pytest.raises(CancelledError, match="the pool was terminated before the job ended"):
        next(iterator)
    assert list(iterator) == []
    pool.join()


def test_terminate_wakes_who_waits(started: Gate, held: Gate, pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(lambda _: pass_gates(started, held), itertools.count(), 1)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            next(iterator)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait_for()
    time.sleep(0.02)  # it is watched by now, or else this is the other case
    pool.terminate()
    thread.join(20)
    assert [type(error) for error in errors] == [CancelledError]


def test_a_closed_pool_is_terminated_with_iterators_left(pool: Pool, method: str) -> None:
    iterator = getattr(pool, method)(square, itertools.count())
    pool.close()
    pool.terminate()
    pool.join()
    del iterator


def test_it_keeps_its_pool(method: str) -> None:
    iterator = getattr(Pool(1), method)(square, range(5000))
    gc.collect()
    with pytest.warns(ResourceWarning):  # nobody has closed it
        assert len(list(iterator)) == 5000


# ---- In a job, and beside others ----------------------------------------------------------------


def nested(depth: int) -> int:
    if depth == 0:
        return 1
    pool: Any = libpool.current()
    return sum(pool.imap(nested, [depth - 1] * 3)) + sum(
        pool.imap_unordered(nested, [depth - 1] * 2, 1)
    )


def test_a_job_may_use_both(pool: Pool) -> None:
    assert pool.apply(nested, (3,)) == 5**3


def test_many_at_once(pool: Pool, method: str) -> None:
    iterators = [getattr(pool, method)(square, itertools.count()) for _ in range(20)]
    for _ in range(300):
        for iterator in iterators:
            next(iterator)
    for iterator in iterators:
        iterator.close()


def test_short_jobs_after_a_long_one_are_not_watched_for_ever(pool: Pool) -> None:
    iterator = pool.imap_unordered(time.sleep, itertools.chain([0.02], itertools.repeat(0)), 1)
    flow: Any = iterator._flow
    assert next(iterator) is None
    for _ in range(50):
        next(iterator)
    until(lambda: (next(iterator), flow._ended is None)[1])


def test_memory_that_is_full_is_waited_for() -> None:
    with Pool(2, shared_limit=4 << 20) as pool:
        blob = b"x" * 300_000
        assert list(pool.imap(len, itertools.repeat(blob, 60), 1)) == [300_000] * 60


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_of_the_host_has_no_part_in_it(pool: Pool, method: str) -> None:
    iterators = [getattr(pool, method)(time.sleep, itertools.repeat(0.004), 1) for _ in range(2)]
    results: list[AsyncResult[Any]] = [
        pool.apply_async(time.sleep, (0.1,), callback=callback) for callback in (None, id)
    ]
    for _ in range(3):
        next(iterators[0])
    child = os.fork()
    if child == 0:
        errors = []
        for use in (*(result.get for result in results), *(one.__next__ for one in iterators)):
            try:
                while True:  # what was there already may be taken
                    use()
            except RuntimeError as error:
                errors.append("inherited through fork" in str(error))
        unraisable: list[object] = []
        sys.unraisablehook = unraisable.append
        del iterators, results
        gc.collect()
        os._exit(0 if errors == [True] * 4 and not unraisable else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [next(iterator) for iterator in iterators] == [None, None]
    assert [result.get() for result in results] == [None, None]
