"""Large NumPy results that workers compute in shared memory right away, and do not copy."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import libpool
from libpool import Executor, Pool, WorkerDied, shared

numpy = pytest.importorskip("numpy")

LARGE = 1 << 20
N = LARGE // 8


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        warm_up(pool)
        yield pool


def warm_up(pool: Pool | Executor) -> None:
    """Have the worker learn that arrays of this size are returned, and see free memory for them."""
    for _ in range(3):
        pool.submit(filled, 0.0).result()


def address(array: Any) -> int:
    """Where its content is: the same in all processes of a pool that was forked."""
    return int(array.__array_interface__["data"][0])


def filled(value: float) -> tuple[Any, int]:
    array = numpy.full(N, value)
    return array, address(array)


def is_born(array: Any) -> bool:
    """Whether the memory of an array that owns it is from libpool, in this process."""
    multiarray: Any = (
        numpy._core.multiarray if hasattr(numpy, "_core") else numpy.core.multiarray  # type: ignore[attr-defined]
    )
    return bool(multiarray.get_handler_name(array) == "libpool")


def test_a_result_lies_where_it_was_computed(pool: Pool) -> None:
    for i in range(20):
        array, where = pool.apply(filled, [i])
        assert address(array) == where
        assert array.flags.writeable and set(array.tolist()) == {i}
        del array  # or there is no free memory for the next


def test_two_results_at_a_time(pool: Pool) -> None:
    for _ in range(3):
        arrays = [pool.apply(filled, [i]) for i in range(5)]
        assert [set(array.tolist()) for array, _ in arrays] == [{i} for i in range(5)]
    assert any(address(array) == where for array, where in arrays)


def test_results_of_a_map(pool: Pool) -> None:
    for chunksize in (1, 4):
        for _ in range(3):
            results = pool.map(filled, range(8), chunksize)
            assert [set(array.tolist()) for array, _ in results] == [{i} for i in range(8)]
            there = [address(array) == where for array, where in results]
            del results
        assert all(there)


def parts(value: float) -> tuple[Any, Any, Any]:
    array = numpy.full(N, value)
    array[-1] = -1
    return array[: N // 2], array[N // 2 :], array.reshape(2, -1).T


def test_parts_and_views_of_one_array(pool: Pool) -> None:
    for i in range(5):
        first, second, both = pool.apply(parts, [i])
        del first
        gc.collect()
        pool.apply(filled, [99.0])
        assert second[:-1].tolist() == [i] * (N // 2 - 1) and second[-1] == -1
        assert both.shape == (N // 2, 2) and both[-1, 1] == -1


def computed(a: Any) -> Any:
    once = a * 2
    twice = once + a
    return twice - 1


def test_temporaries_of_the_same_size_are_not_mistaken_for_the_result(pool: Pool) -> None:
    for i in range(50):
        assert (pool.apply(computed, [numpy.full(N, float(i))]) == 3 * i - 1).all()


# ---- Host and worker have nothing in common -----------------------------------------------------

kept: list[Any] = []


def keep(value: float) -> Any:
    kept.append(numpy.full(N, value))
    return kept[-1]


def look() -> list[set[float]]:
    return [set(array.tolist()) for array in kept]


def write_to_kept(value: float) -> None:
    for array in kept:
        array[:] = value


def test_what_the_job_keeps_is_not_what_the_host_gets(pool: Pool) -> None:
    results = [pool.apply(keep, [i]) for i in range(12)]
    pool.apply(write_to_kept, [50.0])
    assert [set(array.tolist()) for array in results] == [{i} for i in range(12)]
    for array in results:
        array[:] = 60
    assert pool.apply(look) == [{50.0}] * 12
    del results, array
    for i in range(12):
        pool.apply(filled, [i])
    assert pool.apply(look) == [{50.0}] * 12


def overwrite(a: Any) -> float:
    a[:] = 7
    return float(a[0])


def test_a_result_that_goes_to_a_job_goes_as_a_copy(pool: Pool) -> None:
    array, where = pool.apply(filled, [1.0])
    assert address(array) == where
    assert pool.apply(overwrite, [array]) == 7
    assert set(array.tolist()) == {1.0}


def cycle(value: float) -> Any:
    box: list[Any] = [numpy.full(N, value)]
    box.append(box)
    return box[0]


def test_what_only_garbage_refers_to_is_copied(pool: Pool) -> None:
    for i in range(20):
        assert set(pool.apply(cycle, [i]).tolist()) == {i}


# ---- The memory ---------------------------------------------------------------------------------


def test_it_is_free_when_the_host_drops_it_and_when_nobody_asks() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(100):
            pool.submit(filled, i)
            assert set(pool.apply(filled, [i])[0].tolist()) == {i}
        assert pool.apply(numpy.zeros, [5 * N])[0] == 0


def test_little_more_memory_is_committed_than_for_copies() -> None:
    with Pool(1) as pool, Pool(1, memory_limit=8 << 30) as other:
        for one in (pool, other):
            for i in range(30):
                one.apply(computed, [numpy.full(N, float(i))])
        # For each of the arrays that there are at a time.
        assert pool.stats()["memory"] <= other.stats()["memory"] + 3.5 * LARGE


def computed_where(a: Any) -> tuple[Any, int]:
    once = a * 2
    twice = once + a
    result = twice - 1
    return result, address(result)


def test_a_result_is_not_copied_although_there_are_temporaries_of_its_size(pool: Pool) -> None:
    for i in range(20):
        array, where = pool.apply(computed_where, [numpy.full(N, float(i))])
        assert set(array.tolist()) == {3 * i - 1}
        there = address(array) == where
        del array
    assert there


def test_results_that_the_host_keeps_are_not_copied(pool: Pool) -> None:
    results = [pool.apply(filled, [i]) for i in range(20)]
    assert [set(array.tolist()) for array, _ in results] == [{i} for i in range(20)]
    assert sum(address(array) == where for array, where in results) >= 15


def many_temporaries(a: Any) -> Any:
    held = [a + i for i in range(20)]
    return sum(held)


def test_temporaries_leave_room_for_results() -> None:
    with Pool(1, shared_limit=6 * LARGE) as pool:
        for i in range(30):
            assert set(pool.apply(many_temporaries, [numpy.full(N, i)]).tolist()) == {20 * i + 190}


def test_where_there_is_a_limit_for_workers_it_counts_all_that_they_allocate() -> None:
    with Pool(1, memory_limit=8 << 30) as pool:
        warm_up(pool)
        array, where = pool.apply(filled, [1.0])
        assert address(array) != where


def keep_and_die(value: float) -> None:
    keep(value)
    os.kill(os.getpid(), signal.SIGKILL)


class DiesWhenDropped:
    """The worker dies when the result has been pickled, and before the job ends."""

    def __reduce__(self) -> Any:
        return list, ()

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def make_and_die_late() -> Any:
    return numpy.full(N, 1.0), DiesWhenDropped()


def test_what_a_dead_worker_had_is_free_again() -> None:
    with Pool(1, shared_limit=6 * LARGE) as pool:
        for _ in range(10):
            warm_up(pool)
            with pytest.raises(WorkerDied):
                pool.apply(keep_and_die, [1.0])
            warm_up(pool)
            with pytest.raises(WorkerDied):
                pool.apply(make_and_die_late)
        assert pool.apply(numpy.zeros, [4 * N])[0] == 0


def test_a_result_outlives_the_worker_and_the_pool() -> None:
    with Executor(1) as executor:
        warm_up(executor)
        array, where = executor.submit(filled, 3.0).result()
        with pytest.raises(WorkerDied):
            executor.submit(keep_and_die, 1.0).result()
    del executor
    gc.collect()
    assert address(array) == where and set(array.tolist()) == {3.0}


# ---- The allocator ------------------------------------------------------------------------------


def zeros_after_use() -> tuple[bool, bool]:
    used = numpy.full(N, 5.0)
    del used
    array = numpy.zeros(N)
    return is_born(array), bool(array.any())


def test_zeros_are_zero_in_memory_that_was_used(pool: Pool) -> None:
    assert pool.apply(zeros_after_use) == (True, False)


def resized() -> tuple[list[float], list[float], float]:
    array = numpy.full(N, 5.0)
    array.resize(N + 10, refcheck=False)
    grown = [array[0], array[N - 1], *array[N:].tolist()]
    array.resize(N, refcheck=False)
    array[:] = 6
    other = numpy.full(N, 7.0)
    other.resize(3, refcheck=False)
    return grown, other.tolist(), float(array.sum())


def test_arrays_can_be_resized(pool: Pool) -> None:
    for _ in range(5):
        assert pool.apply(resized) == ([5.0, 5.0, *[0.0] * 10], [7.0] * 3, 6.0 * N)
        assert set(pool.apply(filled, [1.0])[0].tolist()) == {1.0}


def in_threads() -> Any:
    mine = [numpy.full(N, float(i)) for i in range(8)]
    got: list[Any] = []

    def work(i: int) -> None:
        array = mine[i]
        mine[i] = None
        got.append(array + 1)

    threads = [threading.Thread(target=work, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_threads_of_a_job_make_and_free_arrays(pool: Pool) -> None:
    for _ in range(5):
        arrays = pool.apply(in_threads)
        assert sorted(array[-1] for array in arrays) == list(range(1, 9))
        assert all(len(set(array.tolist())) == 1 for array in arrays)


def forked() -> tuple[bool, list[float], bytes]:
    array = numpy.full(N, 1.0)
    to_child, from_child = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        array[0] = 5
        os.write(from_child[1], b"w")
        os.read(to_child[0], 1)
        seen = array[1:].tolist() == [1.0] * (N - 1) and array[0] == 5
        more = numpy.full(N, 3.0)
        del array, more
        os.write(from_child[1], b"y" if seen else b"n")
        os._exit(0)
    os.read(from_child[0], 1)
    found = array[:2].tolist()
    array[:] = 2
    os.write(to_child[1], b"x")
    answer = os.read(from_child[0], 1)
    os.waitpid(child, 0)
    for end in (*to_child, *from_child):
        os.close(end)
    return is_born(array), [*found, *set(array.tolist())], answer


def test_a_process_that_a_job_forks_has_its_own_copy(pool: Pool) -> None:
    for _ in range(5):
        assert pool.apply(forked) == (True, [1.0, 1.0, 2.0], b"y")
        assert set(pool.apply(filled, [1.0])[0].tolist()) == {1.0}


inherited: Any = None


def in_own_pool() -> tuple[bool, Any, list[Any]]:
    global inherited
    inherited = numpy.full(N, 4.0)
    with Pool(1) as own:
        arrays = [own.apply(return_inherited) for _ in range(3)]
        warm_up(own)
        arrays += [own.apply(filled, [5.0])[0] for _ in range(3)]
    return is_born(inherited), inherited, arrays


def return_inherited() -> Any:
    global inherited
    array, inherited = inherited, None
    return numpy.full(N, 9.0) if array is None else array


def test_a_jobs_own_pool_inherits_arrays_as_they_are(pool: Pool) -> None:
    born, array, arrays = pool.apply(in_own_pool)
    assert born and set(array.tolist()) == {4.0}
    assert [set(one.tolist()) for one in arrays] == [{4.0}, {9.0}, {9.0}, {5.0}, {5.0}, {5.0}]


# ---- In the midst of a reply --------------------------------------------------------------------


class SubmitsWhenDropped:
    """A job runs on top of the one whose result is being sent, and returns such an array, too."""

    def __reduce__(self) -> Any:
        return list, ()

    def __del__(self) -> None:
        workers = libpool.current()
        assert workers is not None
        array, _ = workers.submit(filled, 8.0).result()
        kept[:] = [array, numpy.full(N, 9.0)]


def result_that_submits() -> Any:
    return numpy.full(N, 1.0), SubmitsWhenDropped(), numpy.full(N, 2.0)


def test_a_job_that_runs_while_a_result_is_sent_sends_its_own(pool: Pool) -> None:
    for _ in range(10):
        first, _, second = pool.apply(result_that_submits)
        assert pool.apply(look) == [{8.0}, {9.0}]
        assert (set(first.tolist()), set(second.tolist())) == ({1.0}, {2.0})


def with_shared(value: float) -> Any:
    return numpy.full(N, value), shared.full(N, value + 1), [shared.full(3, i) for i in range(200)]


def test_together_with_shared_arrays(pool: Pool) -> None:
    for i in range(5):
        array, other, small = pool.apply(with_shared, [i])
        assert (set(array.tolist()), set(other.tolist())) == ({i}, {i + 1})
        assert [one.tolist() for one in small] == [[k] * 3 for k in range(200)]


shared_one: Any = None


def kept_shared_and_born() -> Any:
    global shared_one
    if shared_one is None:
        shared_one = shared.full(N, 5.0)
    return shared_one, numpy.full(N, 6.0)


def test_a_shared_array_that_another_result_has_is_copied_with_the_rest(pool: Pool) -> None:
    for _ in range(5):
        futures = [pool.submit(kept_shared_and_born) for _ in range(3)]
        for future in futures:
            first, second = future.result()
            assert (set(first.tolist()), set(second.tolist())) == ({5.0}, {6.0})


def too_large() -> Any:
    return numpy.full(N, 1.0), numpy.zeros(7 * N)


def test_a_result_for_which_there_is_no_room_is_a_memory_error() -> None:
    with Pool(1, shared_limit=6 * LARGE) as pool:
        for i in range(5):
            warm_up(pool)
            with pytest.raises(MemoryError):
                pool.apply(too_large)
            assert set(pool.apply(filled, [i])[0].tolist()) == {i}
        assert pool.apply(numpy.zeros, [4 * N])[0] == 0


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method: str) -> None:
    code = (
        "import multiprocessing; from libpool import Pool; from test_born import *\n"
        "if __name__ == '__main__':\n"
        f"    with Pool(1, context=multiprocessing.get_context('{method}')) as pool:\n"
        "        warm_up(pool)\n"
        "        print(pool.apply(zeros_after_use), set(pool.apply(filled, [3])[0].tolist()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.stdout, run.stderr) == ("(True, False) {3}\n", "")
