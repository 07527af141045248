"""Arrays in the pool's memory, and objects that are put there once."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support import until

import libpool
from libpool import Executor, Pool, WorkerDied, shared

numpy = pytest.importorskip("numpy")

LARGE = 1 << 20


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def write(a: Any, i: int, value: float) -> None:
    a[i] = value


def test_what_a_job_writes_to_a_shared_array_the_host_sees(pool: Pool) -> None:
    a = shared.zeros(10, pool=pool)
    pool.starmap(write, [(a, i, i * 2.0) for i in range(10)])
    assert a.tolist() == [i * 2.0 for i in range(10)]


def first(a: Any) -> Any:
    return a.ravel()[0].item()


def test_what_the_host_writes_later_jobs_see(pool: Pool) -> None:
    a = shared.array([1, 2, 3], pool=pool)
    assert pool.apply(first, [a]) == 1
    a[0] = 7
    assert pool.apply(first, [a]) == 7


def test_contiguous_parts_refer_to_the_same_memory(pool: Pool) -> None:
    a = shared.zeros((4, 100), "int64", pool=pool)
    pool.starmap(write, [(a[row], row, row + 1) for row in range(4)])
    assert [a[i, i] for i in range(4)] == [1, 2, 3, 4]


def test_other_parts_are_copied(pool: Pool) -> None:
    a = shared.zeros((4, 100), pool=pool)
    pool.apply(write, [a[:, ::3], 0, 5.0])
    assert not a.any()


@pytest.mark.parametrize("dtype", ["int8", "float32", "complex128", "datetime64[s]", "S5"])
@pytest.mark.parametrize("shape", [(), 0, 1, (3, 4), (2, 0, 5)])
def test_empty_array_and_full_are_as_numpy_makes_them(
    pool: Pool, dtype: str, shape: int | tuple[int, ...]
) -> None:
    model = numpy.zeros(shape, dtype)
    a = shared.array(model, pool=pool)
    assert (a.dtype, a.shape, a.flags.c_contiguous) == (model.dtype, model.shape, True)
    assert (a == model).all()
    assert shared.empty(shape, dtype, pool=pool).shape == model.shape
    assert (shared.zeros(shape, dtype, pool=pool) == model).all()


def test_column_major_arrays(pool: Pool) -> None:
    model = numpy.arange(12).reshape(3, 4, order="F")
    a = shared.array(model, pool=pool)
    assert a.flags.f_contiguous
    assert (pool.apply(numpy.negative, [a]) == -model).all()


def test_a_shared_array_given_back_is_the_same_memory(pool: Pool) -> None:
    a = shared.zeros(5000, pool=pool)
    b = pool.apply(same, [a])
    b[0] = 3
    assert a[0] == 3


def same(value: Any) -> Any:
    return value


def test_the_memory_is_free_when_the_array_is_dropped() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(40):
            a = shared.full(LARGE // 8, i, pool=pool)
            assert pool.apply(first, [a]) == i


def test_an_array_stays_until_the_jobs_that_wait_for_it_have_ended(pool: Pool) -> None:
    with Pool(1) as pool:
        blocker = pool.submit(signal.sigtimedwait, [signal.SIGUSR1], 0.3)
        futures = [pool.submit(first, shared.full(LARGE // 8, i, pool=pool)) for i in range(5)]
        assert [future.result() for future in futures] == list(range(5))
        assert blocker.result() is None


log: list[Any] = []


def record(a: Any, path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{a[0]:.0f} {len(set(a.tolist()))}\n")


def test_jobs_whose_futures_are_dropped_find_their_arrays(tmp_path: Any) -> None:
    path = tmp_path / "log"
    with Pool(1) as pool:
        pool.submit(signal.sigtimedwait, [signal.SIGUSR1], 0.3)
        for i in range(5):
            pool.submit(record, shared.full(LARGE // 8, i, pool=pool), str(path))
        gc.collect()
        noise = [shared.full(LARGE // 8, 99, pool=pool) for _ in range(5)]
        pool.close()
        pool.join()
        assert len(noise) == 5
    assert path.read_text() == "".join(f"{i} 1\n" for i in range(5))


def keep(a: Any) -> int:
    log.append(a)
    return len(log)


def look() -> list[float]:
    return [a[0] for a in log if len(set(a.tolist())) == 1]


def test_a_worker_may_keep_an_array_that_the_host_has_dropped() -> None:
    with Pool(1) as pool:
        for i in range(4):
            pool.apply(keep, [shared.full(LARGE // 8, i, pool=pool)])
        noise = [shared.full(LARGE // 8, 99, pool=pool) for _ in range(8)]
        assert pool.apply(look) == [0, 1, 2, 3]
        assert len(noise) == 8


def keep_and_die(a: Any) -> None:
    log.append(a)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_dead_worker_held_is_free_again() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for _ in range(20):
            with pytest.raises(WorkerDied):
                pool.apply(keep_and_die, [shared.zeros(LARGE // 8, pool=pool)])


def test_an_array_outlives_its_pool() -> None:
    with Executor(1) as executor:
        a = shared.array([1.0, 2.0], pool=executor)
    del executor
    gc.collect()
    assert a.tolist() == [1.0, 2.0]


def test_the_newest_pool_is_the_default() -> None:
    with pytest.raises(RuntimeError, match="no running pool"):
        shared.zeros(3)
    with Pool(1), Pool(1) as second:
        a = shared.zeros(3)
        second.apply(write, [a, 0, 1.0])
        assert a[0] == 1
    with pytest.raises(RuntimeError, match="no running pool"):
        shared.zeros(3)


def test_to_another_pool_an_array_goes_as_a_copy(pool: Pool) -> None:
    with Pool(1) as other:
        a = shared.zeros(5000, pool=pool)
        other.apply(write, [a, 0, 1.0])
        assert a[0] == 0


def made_in_job(n: int) -> Any:
    a = shared.full(n, 4.0)
    workers = libpool.current()
    assert workers is not None
    return a, workers.submit(first, a).result()


def test_a_job_makes_arrays_of_its_own(pool: Pool) -> None:
    a, seen = pool.apply(made_in_job, [LARGE])
    assert seen == 4
    assert a.shape == (LARGE,)
    assert (a == 4).all()


def test_bad_arguments_are_named(pool: Pool) -> None:
    with pytest.raises(ValueError, match="-3"):
        shared.zeros(-3, pool=pool)
    with pytest.raises(TypeError, match="object"):
        shared.empty(3, object, pool=pool)
    with pytest.raises(ValueError, match="-1"):
        shared.buffer(-1, pool=pool)
    with Pool(1, shared_limit=4 * LARGE) as small, pytest.raises(MemoryError):
        shared.zeros(LARGE, pool=small)


def test_a_closed_pool_gives_no_memory() -> None:
    pool = Pool(1)
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        shared.zeros(3, pool=pool)
    pool.join()


def fill(memory: memoryview) -> int:
    memory[:] = b"x" * len(memory)
    return len(memory)


def test_a_buffer_is_zeroed_and_shared(pool: Pool) -> None:
    import pickle

    memory = shared.buffer(3 * LARGE, pool=pool)
    assert memory == bytes(3 * LARGE)
    assert pool.apply(fill, [memory[LARGE : 2 * LARGE]]) == LARGE
    assert memory == bytes(LARGE) + b"x" * LARGE + bytes(LARGE)
    assert pool.apply(fill, [pickle.PickleBuffer(memory)]) == 3 * LARGE
    assert memory == b"x" * 3 * LARGE


# ---- share() ------------------------------------------------------------------------------------


def total(data: dict[str, Any], key: str) -> float:
    return float(data[key].sum())


def test_a_shared_object_arrives_as_itself(pool: Pool) -> None:
    data = {"a": numpy.arange(100_000.0), "b": numpy.ones(3)}
    handle = pool.share(data)
    assert handle.get() is data
    assert pool.starmap(total, [(handle, "a"), (handle, "b")] * 3) == [4999950000.0, 3.0] * 3
    assert pool.apply(len, [[handle, handle]]) == 2


def is_writable(a: Any) -> bool:
    return bool(a.flags.writeable)


def test_its_arrays_cannot_be_written_to(pool: Pool) -> None:
    assert pool.apply(is_writable, [pool.share(numpy.zeros(LARGE))]) is False


def test_many_jobs_cost_its_memory_once() -> None:
    with Pool(2, shared_limit=24 * LARGE) as pool:
        handle = pool.share(numpy.ones(2 * LARGE // 8 * 8))
        assert pool.map(first, [handle] * 50) == [1.0] * 50


def identity(value: Any) -> int:
    return id(value)


def test_a_shared_object_without_arrays_is_unpickled_once_in_each_worker() -> None:
    with Pool(1) as pool:
        handle = pool.share({i: str(i) for i in range(1000)})
        other = pool.share({i: str(i) for i in range(1000)})
        assert pool.apply(identity, [handle]) == pool.apply(identity, [handle])
        assert pool.apply(identity, [handle]) != pool.apply(identity, [other])


def test_its_memory_is_free_when_it_is_dropped() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(20):
            assert pool.apply(first, [pool.share(numpy.full(LARGE // 4, i))]) == i


def test_a_lambda_can_be_shared(pool: Pool) -> None:
    k = 3
    handle = pool.share(lambda x: x + k)
    assert pool.apply(call, [handle, 4]) == 7


def call(function: Any, *args: Any) -> Any:
    return function(*args)


def test_what_cannot_be_pickled_cannot_be_shared(pool: Pool) -> None:
    with pytest.raises(TypeError):
        pool.share(threading.Lock())


def test_the_pool_forgets_orphans(pool: Pool) -> None:
    for _ in range(3):
        pool.submit(first, shared.zeros(LARGE, pool=pool))
    until(lambda: pool.stats()["jobs_started"] >= 3)


def test_jobs_of_a_dropped_pool_find_their_arrays(tmp_path: Any) -> None:
    path = tmp_path / "log"
    executor = Executor(1)
    executor.submit(signal.sigtimedwait, [signal.SIGUSR1], 0.3)
    for i in range(5):
        executor.submit(record, shared.full(LARGE // 8, i, pool=executor), str(path))
    executor.shutdown(wait=False)
    del executor
    gc.collect()
    until(lambda: path.exists() and path.read_text() == "".join(f"{i} 1\n" for i in range(5)))


def test_a_memoryview_of_shared_memory_refers_to_it(pool: Pool) -> None:
    memory = shared.buffer(LARGE, pool=pool)
    assert pool.apply(fill, [memory[10:20]]) == 10
    assert bytes(memory[9:21]) == b"\0" + b"x" * 10 + b"\0"


def pass_on(a: Any, path: str) -> None:
    workers = libpool.current()
    assert workers is not None
    workers.submit(signal.sigtimedwait, [signal.SIGUSR1], 1.0)
    for _ in range(3):
        workers.submit(record, a, path)


def test_jobs_that_a_job_left_behind_find_an_array_that_the_host_has_dropped(tmp_path: Any) -> None:
    path = tmp_path / "log"
    with Pool(2) as pool:
        pool.submit(signal.sigtimedwait, [signal.SIGUSR1], 0.5)
        a = shared.full(LARGE // 8, 3, pool=pool)
        pool.submit(pass_on, a, str(path)).result()
        del a
        gc.collect()
        noise = [shared.full(LARGE // 8, 99, pool=pool) for _ in range(8)]
        pool.close()
        pool.join()
        assert len(noise) == 8
    assert path.read_text() == "3 1\n" * 3
