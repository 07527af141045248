"""Executor.map(buffersize=): lazy and bounded."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from support import Gate, is_alive, pass_gates, until

from libpool import Executor


def square(x: int) -> int:
    return x * x


class Counted:
    """An infinite iterable that knows how many of its items were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.taken += 1
        return self.taken - 1


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("buffersize", [1, 2, 10, 1000])
def test_results_come_in_order_and_complete(
    executor: Executor, chunksize: int, buffersize: int
) -> None:
    results = executor.map(square, range(10), chunksize=chunksize, buffersize=buffersize)
    assert list(results) == [x * x for x in range(10)]
    several = executor.map(
        pow, range(10), itertools.count(), chunksize=chunksize, buffersize=buffersize
    )
    assert list(several) == [x**x for x in range(10)]


@pytest.mark.parametrize("items", [[()], [[]], []], ids=["empty", "an empty list", "none at all"])
def test_nothing_gives_nothing(executor: Executor, items: list[Iterable[int]]) -> None:
    assert list(executor.map(square, *items, buffersize=2)) == []
    assert list(executor.map(square, *items, buffersize=2, chunksize=2)) == []


@pytest.mark.parametrize("buffersize", [1, 2, 5])
@pytest.mark.parametrize("chunksize", [1, 4])
def test_an_infinite_iterable_is_taken_only_as_far_as_results_are_yielded(
    executor: Executor, buffersize: int, chunksize: int
) -> None:
    items = Counted()
    results = executor.map(square, items, buffersize=buffersize, chunksize=chunksize)
    assert items.taken == buffersize * chunksize
    for i in range(20):
        assert next(results) == i * i
        chunks_begun = i // chunksize + 1
        assert items.taken == (buffersize + chunks_begun) * chunksize
        assert executor.stats()["jobs_started"] <= buffersize + chunks_begun


def test_the_buffer_is_full_of_running_jobs_while_the_consumer_rests(
    started: Gate, held: Gate
) -> None:
    with Executor(3) as executor:
        results = executor.map(
            pass_gates,
            itertools.repeat(started),
            itertools.repeat(held),
            itertools.count(),
            buffersize=3,
        )
        for _ in range(3):
            started.wait_for()
        held.open(4)
        assert next(results) == 0
        started.wait_for()  # the fourth was begun when the first result was yielded
        assert executor.stats()["jobs_started"] == 4
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("buffersize", ["2", 2.0, [2]])
def test_buffersize_must_be_an_integer(executor: Executor, buffersize: Any) -> None:
    with pytest.raises(TypeError, match="^buffersize must be an integer or None$"):
        executor.map(square, [1], buffersize=buffersize)


@pytest.mark.parametrize("buffersize", [0, -1])
def test_buffersize_must_be_positive(executor: Executor, buffersize: int) -> None:
    items = Counted()
    with pytest.raises(ValueError, match="^buffersize must be None or > 0$"):
        executor.map(square, items, buffersize=buffersize)
    assert items.taken == 0


def test_after_shutdown_the_iterator_takes_no_more_items() -> None:
    executor = Executor(1)
    items = Counted()
    results = executor.map(square, items, buffersize=2)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
        list(results)
    assert items.taken == 3
    assert list(results) == []


def test_what_fails_ends_the_iterator_and_cancels_what_waits(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        results = executor.map(
            fail_if_first, itertools.count(), itertools.repeat((started, held)), buffersize=10
        )
        started.wait_for()
        held.open()
        with pytest.raises(ValueError):
            next(results)
        assert list(results) == []
        held.open(10)
    assert executor.stats()["jobs_started"] <= 3


def fail_if_first(x: int, gates: tuple[Gate, Gate]) -> None:
    pass_gates(*gates)
    if x == 0:
        raise ValueError(x)


def test_the_time_limit_goes_for_all_results(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        results = executor.map(
            pass_gates,
            itertools.repeat(started),
            itertools.repeat(held),
            itertools.count(),
            timeout=0.05,
            buffersize=2,
        )
        with pytest.raises(TimeoutError):
            next(results)
        held.open(2)


class Weak:
    """Can be referred to weakly."""


def make_weak(_: int) -> Weak:
    return Weak()


@pytest.mark.parametrize("chunksize", [1, 2])
def test_no_result_is_kept_alive_that_has_been_yielded(executor: Executor, chunksize: int) -> None:
    results = executor.map(make_weak, itertools.count(), buffersize=2, chunksize=chunksize)
    for _ in range(4):
        reference = weakref.ref(next(results))
        gc.collect()
        assert reference() is None


def test_the_iterator_keeps_its_executor_and_lets_go_of_it() -> None:
    results = Executor(1).map(square, itertools.count(), buffersize=2)
    gc.collect()
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]


def test_a_dropped_iterator_ends_the_executor_that_only_it_had() -> None:
    executor = Executor(1)
    pids = [*executor.worker_pids(), executor.supervisor_pid]
    results = executor.map(square, itertools.count(), buffersize=2)
    next(results)
    del executor, results
    gc.collect()
    until(lambda: not any(map(is_alive, pids)))
