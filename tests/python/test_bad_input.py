"""What is refused, with the exception of the imitated interface, and what it leaves as it was."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from typing import Any

import pytest
from support import MIB, Gate, descendants, pass_gates, until

from libpool import Executor, Pool

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def square(x: int) -> int:
    return x * x


@pytest.mark.parametrize("number", [0, -1, -(10**30)])
def test_no_workers(number: int) -> None:
    with pytest.raises(ValueError, match="^Number of processes must be at least 1$"):
        Pool(number)
    with pytest.raises(ValueError, match="^max_workers must be greater than 0$"):
        Executor(number)


@pytest.mark.parametrize("number", [1025, 10_000, 10**30])
def test_too_many_workers(number: int) -> None:
    with pytest.raises(ValueError, match=f"processes must be at most 1024, not {number}"):
        Pool(number)
    with pytest.raises(ValueError, match=f"max_workers must be at most 1024, not {number}"):
        Executor(number)
    assert descendants(os.getpid()) == set()


@pytest.mark.parametrize("kind", [Pool, Executor])
@pytest.mark.parametrize("number", [1.5, "2", [2]])
def test_a_number_of_workers_that_is_none(kind: Any, number: object) -> None:
    with pytest.raises(TypeError):
        kind(number)


@pytest.mark.parametrize("kind", [Pool, Executor])
def test_an_initializer_that_is_not_callable(kind: Any) -> None:
    with pytest.raises(TypeError, match="^initializer must be a callable$"):
        kind(1, initializer=5)


@pytest.mark.parametrize("kind", [Pool, Executor])
@pytest.mark.parametrize("limit", [-1, 1, MIB - 1])
def test_a_memory_limit_that_is_too_small(kind: Any, limit: int) -> None:
    with pytest.raises(ValueError, match="shared_limit"):
        kind(1, shared_limit=limit)


@pytest.mark.parametrize("function", [5, None, "print", [print]])
def test_what_is_not_callable(pool: Pool, function: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        pool.submit(function, 1).result()
    with pytest.raises(TypeError, match="callable"):
        pool.apply(function, (1,))
    with pytest.raises(TypeError, match="callable"):
        pool.map(function, [1])
    assert pool.apply(square, (3,)) == 9


@pytest.mark.parametrize("chunksize", [0, -1, -100])
def test_a_chunksize_below_one(pool: Pool, executor: Executor, chunksize: int) -> None:
    with pytest.raises(ValueError, match=f"^Chunksize must be 1\\+, not {chunksize}$"):
        pool.map(square, [1, 2], chunksize)
    with pytest.raises(ValueError, match=f"^Chunksize must be 1\\+, not {chunksize}$"):
        pool.starmap(square, [(1,)], chunksize)
    with pytest.raises(ValueError, match="^chunksize must be >= 1.$"):
        executor.map(square, [1, 2], chunksize=chunksize)
    assert pool.stats()["jobs_started"] == executor.stats()["jobs_started"] == 0


@pytest.mark.parametrize("items", [5, None])
def test_items_that_are_not_iterable(pool: Pool, executor: Executor, items: Any) -> None:
    with pytest.raises(TypeError, match="iterable|iteration"):
        pool.map(square, items)
    for chunksize in (1, 2):
        with pytest.raises(TypeError, match="iterable|iteration"):
            executor.map(square, items, chunksize=chunksize)


def test_an_iterable_that_raises(pool: Pool, executor: Executor) -> None:
    def items():
        yield 1
        raise KeyError("in between")

    with pytest.raises(KeyError, match="in between"):
        pool.map(square, items())
    for chunksize in (1, 2):
        with pytest.raises(KeyError, match="in between"):
            list(executor.map(square, items(), chunksize=chunksize))
    assert pool.apply(square, (2,)) == executor.submit(square, 2).result() == 4


def test_a_starmap_item_that_can_not_be_unpacked(pool: Pool) -> None:
    with pytest.raises(TypeError):
        pool.starmap(square, [1, 2])


@pytest.mark.parametrize("timeout", [-1, -1e300, float("-inf"), 0])
def test_a_timeout_that_has_passed(started: Gate, held: Gate, executor: Executor, timeout) -> None:
    future = executor.submit(pass_gates, started, held)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(executor.map(pass_gates, [started], [held], timeout=timeout))
    held.open(2)
    assert future.result(timeout=20) is None
    assert future.result(timeout=timeout) is None


@pytest.mark.parametrize("timeout", [threading.TIMEOUT_MAX, 10**9])
def test_a_huge_timeout(started: Gate, held: Gate, executor: Executor, timeout: float) -> None:
    future = executor.submit(pass_gates, started, held)
    threading.Timer(0.05, held.open).start()
    assert future.result(timeout=timeout) is None


@pytest.mark.parametrize("timeout", [1e300, float("inf"), 10**30])
def test_a_timeout_larger_than_python_allows(
    started: Gate, held: Gate, executor: Executor, timeout: float
) -> None:
    future = executor.submit(pass_gates, started, held)
    with pytest.raises(OverflowError):
        future.result(timeout=timeout)
    held.open()
    assert future.result() is None


def test_a_timeout_that_is_no_number(executor: Executor) -> None:
    with pytest.raises(TypeError):
        executor.submit(square, 1).result("soon")  # type: ignore[arg-type]


# ---- Memory -------------------------------------------------------------------------------------


def test_an_argument_larger_than_the_memory_limit() -> None:
    with Pool(1, shared_limit=16 * MIB) as pool:
        with pytest.raises(MemoryError, match=str(64 * MIB)[:3]):
            pool.submit(len, bytes(64 * MIB)).result()
        assert pool.apply(len, (bytes(4 * MIB),)) == 4 * MIB


def test_a_result_larger_than_the_memory_limit() -> None:
    with Pool(1, shared_limit=16 * MIB) as pool:
        with pytest.raises(MemoryError):
            pool.apply(bytes, (64 * MIB,))
        assert pool.apply(bytes, (4 * MIB,)) == bytes(4 * MIB)


def test_jobs_that_wait_use_up_the_memory_and_give_it_back(started: Gate, held: Gate) -> None:
    with Pool(1, shared_limit=16 * MIB) as pool:
        pool.submit(pass_gates, started, held)
        started.wait_for()
        futures = []
        with pytest.raises(MemoryError):
            for _ in range(100):
                futures.append(pool.submit(len, bytes(MIB)))
                if futures[-1].done():
                    futures.pop().result()
        assert 4 <= len(futures) < 16
        held.open()
        assert [future.result() for future in futures] == [MIB] * len(futures)
        del futures
        assert [pool.apply(len, (bytes(MIB),)) for _ in range(50)] == [MIB] * 50


def test_an_argument_larger_than_the_machine(pool: Pool) -> None:
    with pytest.raises((MemoryError, OverflowError)):
        pool.apply(bytes, (1 << 60,))
    assert pool.apply(square, (2,)) == 4


# ---- A pool that was inherited by fork ----------------------------------------------------------


def in_child(call: Any) -> tuple[str, str]:
    """Call it in a forked child; the type and text of the exception, or of the result."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            outcome = call()
        except BaseException as error:
            outcome = error
        os.write(write_end, f"{type(outcome).__name__}\n{outcome}".encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        kind, _, text = file.read().decode().partition("\n")
    assert os.waitpid(pid, 0)[1] == 0
    return kind, text


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.submit(square, 1),
        lambda pool: pool.submit(len, bytes(MIB)),
        lambda pool: pool.submit_chunk(square, [1], False),
        lambda pool: pool.close(),
        lambda pool: pool.terminate(),
        lambda pool: pool.cancel_waiting(),
        lambda pool: pool.map(square, [1, 2]) and list(pool.map(square, [1, 2])),
    ],
    ids=["submit", "submit large", "submit_chunk", "close", "terminate", "cancel_waiting", "map"],
)
def test_an_inherited_pool_says_so(workers: Any, call: Any) -> None:
    kind, text = in_child(lambda: call(workers))
    assert kind == "RuntimeError"
    assert "another process" in text
    assert workers.submit(square, 3).result() == 9


def test_an_inherited_future_says_so(started: Gate, held: Gate, executor: Executor) -> None:
    future = executor.submit(pass_gates, started, held, 5)
    started.wait_for()
    for call in (lambda: future.result(0), lambda: future.exception(0)):
        kind, text = in_child(call)
        assert kind == "RuntimeError" and "another process" in text
    held.open()
    assert future.result() == 5


def test_the_exit_of_a_child_that_inherited_the_pool_does_no_harm(
    started: Gate, held: Gate, workers: Any
) -> None:
    future = workers.submit(pass_gates, started, held, 5)
    started.wait_for()
    until(lambda: len(workers.worker_pids()) == 2)
    pids = workers.worker_pids()
    child = multiprocessing.get_context("fork").Process(target=_drop, args=[workers, future])
    child.start()
    child.join()
    assert child.exitcode == 0
    held.open()
    assert future.result() == 5
    assert workers.worker_pids() == pids


def _drop(workers: Any, future: Any) -> None:
    assert workers.check() < 0
    del workers, future


def test_leaving_the_context_in_a_child_does_no_harm() -> None:
    with Pool(2) as pool:
        pid = os.fork()
        if pid == 0:
            try:
                pool.__exit__(None, None, None)
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 7)
        assert pool.map(square, range(10)) == [x * x for x in range(10)]


def test_a_child_can_make_a_pool_of_its_own(pool: Pool) -> None:
    def use_another() -> list[int]:
        with Pool(2) as own:
            return own.map(square, [1, 2, 3])

    assert in_child(use_another) == ("list", "[1, 4, 9]")
    assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
