"""Typical use, checked by mypy --strict and pyright --strict; it is never run.

Each `assert_type` says what a type checker has to find. Lines marked `type: ignore` have to be
errors: mypy complains of marks that nothing needs.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import assert_type

import libpool
from libpool import Executor, Future, Pool, Stats, WorkerStats


def square(x: int) -> float:
    return float(x * x)


def scale(x: int, factor: float) -> str:
    return str(x * factor)


def combine(a: int, b: int, c: int, d: int) -> bytes:
    return bytes([a, b, c, d])


def describe(name: str, *, times: int = 1) -> list[str]:
    return [name] * times


class Model:
    """Something with methods."""

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def predict(self, x: float) -> complex:
        return complex(x, self.bias)

    def __call__(self, x: int) -> bytes:
        return bytes(x)


def submitting(executor: Executor, pool: Pool, model: Model) -> None:
    assert_type(executor.submit(square, 3), Future[float])
    assert_type(executor.submit(square, 3).result(), float)
    assert_type(executor.submit(describe, "a", times=2).result(timeout=3), list[str])
    assert_type(executor.submit(model.predict, 1.5), Future[complex])
    assert_type(executor.submit(Model, 0.5), Future[Model])
    assert_type(executor.submit(model, 3), Future[bytes])
    assert_type(executor.submit(lambda: 3), Future[int])
    assert_type(pool.submit(square, x=3), Future[float])
    executor.submit(square, "three")  # type: ignore[arg-type]  # pyright: ignore
    executor.submit(square)  # type: ignore[call-arg]  # pyright: ignore
    executor.submit(describe, "a", time=2)  # type: ignore[call-arg]  # pyright: ignore


def futures(executor: Executor) -> None:
    future = executor.submit(square, 3)
    assert_type(future.exception(), BaseException | None)
    assert_type(future.cancel(), bool)
    assert_type(future.kill(), bool)

    def tell(done: concurrent.futures.Future[float]) -> None:
        assert_type(done.result(), float)

    future.add_done_callback(tell)
    as_standard: concurrent.futures.Future[float] = future
    for done in concurrent.futures.as_completed([as_standard, future]):
        assert_type(done.result(), float)
    finished, waiting = concurrent.futures.wait([future], timeout=1)
    assert_type(finished, set[concurrent.futures.Future[float]])
    assert_type(waiting, set[concurrent.futures.Future[float]])


def executor_maps(executor: Executor, model: Model) -> None:
    assert_type(executor.map(square, [1, 2]), Iterator[float])
    assert_type(executor.map(square, range(3), timeout=1, chunksize=10), Iterator[float])
    assert_type(list(executor.map(model.predict, (1.0, 2.0))), list[complex])
    assert_type(executor.map(scale, [1, 2], [3.0, 4.0]), Iterator[str])
    assert_type(executor.map(lambda x: x + 1, [1, 2]), Iterator[int])
    assert_type(executor.map(lambda x, y: x * y, ["a", "b"], [1, 2]), Iterator[str])
    assert_type(
        executor.map(lambda a, b, c: (a, b, c), [1], "x", [b""]), Iterator[tuple[int, str, bytes]]
    )
    assert_type(executor.map(combine, [1], [2], [3], [4]), Iterator[bytes])
    assert_type(executor.map(combine, *[[1], [2]]), Iterator[bytes])
    executor.map(square, ["a"])  # type: ignore[arg-type]  # pyright: ignore


def pool_calls(pool: Pool, model: Model) -> None:
    assert_type(pool.apply(square, (3,)), float)
    assert_type(pool.apply(describe, ("a",), {"times": 2}), list[str])
    assert_type(pool.map(square, [1, 2], chunksize=1), list[float])
    assert_type(pool.map(lambda x: x + 1, range(3)), list[int])
    assert_type(pool.map(model.predict, iter([1.0])), list[complex])
    assert_type(pool.map(str, [1, 2]), list[str])
    assert_type(pool.starmap(describe, [("a",)]), list[list[str]])
    pool.map(square, ["a"])  # type: ignore[arg-type]  # pyright: ignore


def options(executor: Executor, pool: Pool) -> None:
    assert_type(executor.options(timeout=1.5), Executor)
    assert_type(pool.options(retries=3), Pool)
    assert_type(pool.options(timeout=None, retries=3).map(square, [1]), list[float])
    assert_type(executor.options(timeout=1).submit(square, 1).result(), float)
    pool.options(timeout="1")  # type: ignore[arg-type]  # pyright: ignore


def lives() -> None:
    with Pool(2, initializer=describe, initargs=("a",)) as pool:
        assert_type(pool, Pool)
        pool.close()
        assert_type(pool.join(timeout=3), bool)
    with Executor(max_workers=2, max_tasks_per_child=3) as executor:
        assert_type(executor, Executor)
        executor.shutdown(wait=False, cancel_futures=True)
    standard: concurrent.futures.Executor = executor
    assert_type(standard.submit(square, 3).result(), float)
    Pool("2")  # type: ignore[arg-type]  # pyright: ignore
    Executor(2, initializer=3)  # type: ignore[arg-type]  # pyright: ignore


def insight(pool: Pool) -> None:
    stats = pool.stats()
    assert_type(stats, Stats)
    assert_type(stats["jobs_done"], int)
    assert_type(stats["busy_time"], float)
    assert_type(stats["per_worker"][0], WorkerStats)
    assert_type(stats["per_worker"][0]["idle_time"], float)
    assert_type(pool.worker_pids(), list[int])
    assert_type(pool.supervisor_pid, int)
    assert_type(libpool.cpu_count(), int)
    assert_type(libpool.__version__, str)
    stats["jobs"]  # type: ignore[typeddict-item]  # pyright: ignore


def errors(executor: Executor) -> None:
    try:
        executor.submit(square, 3).result()
    except libpool.WorkerDied as error:
        assert_type(error, libpool.WorkerDied)
    except libpool.BrokenPool:
        pass
