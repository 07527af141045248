"""What a job makes in shared memory and returns is the host's, without a copy."""

from __future__ import annotations

import gc
import os
import signal
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
    with Pool(1) as pool:
        yield pool


def address(array: Any) -> int:
    """Where its content is: the same in all processes of a pool that was forked."""
    return int(array.__array_interface__["data"][0])


def made(value: float, size: int = LARGE) -> tuple[Any, int]:
    array = shared.full(size // 8, value)
    return array, address(array)


@pytest.mark.parametrize("size", [0, 8, LARGE])
def test_a_shared_array_comes_back_in_the_very_memory(pool: Pool, size: int) -> None:
    for i in range(3):
        array, where = pool.apply(made, [i, size])
        assert array.tolist() == [i] * (size // 8)
        assert size == 0 or address(array) == where
        assert array.flags.writeable


def a_part() -> tuple[Any, Any, int]:
    array = numpy.arange(20_000.0)
    whole = shared.array(array)
    return whole[5_000:10_000], whole[10_000:], address(whole)


def test_parts_of_an_array_stay_parts_of_one(pool: Pool) -> None:
    first, second, where = pool.apply(a_part)
    assert (address(first), address(second)) == (where + 40_000, where + 80_000)
    assert (first[0], second[0], len(second)) == (5_000, 10_000, 10_000)
    del first
    gc.collect()
    noise = [pool.apply(made, [99.0]) for _ in range(4)]
    assert second.tolist() == list(range(10_000, 20_000)) and len(noise) == 4


def made_buffer() -> memoryview:
    memory = shared.buffer(LARGE)
    memory[:3] = b"abc"
    return memory


def test_a_buffer_comes_back_as_one(pool: Pool) -> None:
    memory = pool.apply(made_buffer)
    assert (type(memory), bytes(memory[:4]), len(memory)) == (memoryview, b"abc\0", LARGE)


def test_results_of_a_map(pool: Pool) -> None:
    for chunksize in (1, 4):
        results = pool.map(made, range(9), chunksize=chunksize)
        assert [address(array) for array, _ in results] == [where for _, where in results]
        assert [array[-1] for array, _ in results] == list(range(9))


def many() -> list[Any]:
    return [shared.full(10, i) for i in range(300)]


def test_more_than_can_be_given_with_one_result(pool: Pool) -> None:
    before = pool.stats()["memory"]
    for _ in range(20):
        assert [array.tolist() for array in pool.apply(many)] == [[i] * 10 for i in range(300)]
    assert pool.stats()["memory"] - before < LARGE


def write(array: Any, value: float) -> None:
    array[:] = value


def test_it_is_a_shared_array_of_the_host(pool: Pool) -> None:
    array, _ = pool.apply(made, [1.0])
    pool.apply(write, [array, 2.0])
    assert (array == 2).all()


def test_its_memory_is_free_when_the_host_drops_it() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(40):
            array, _ = pool.apply(made, [i])
            assert (array == i).all()


def test_it_is_free_with_a_future_that_nobody_asked() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(40):
            pool.submit(made, i)
            assert pool.apply(len, ["abc"]) == 3
        assert pool.apply(made, [5.0, 4 * LARGE])[0][0] == 5


def test_it_is_the_hosts_after_the_workers_death(pool: Pool) -> None:
    array, _ = pool.apply(made, [3.0])
    with pytest.raises(WorkerDied):
        pool.apply(os.kill, [pool.apply(os.getpid), signal.SIGKILL])
    noise = [pool.apply(made, [99.0]) for _ in range(4)]
    assert (array == 3).all() and len(noise) == 4


kept: list[Any] = []


def make_and_keep(value: float) -> Any:
    kept.append(shared.full(LARGE // 8, value))
    return kept[-1]


def write_to_kept(value: float) -> None:
    kept[-1][:] = value


def look_at_kept() -> list[float]:
    return [array[0] for array in kept if len(set(array.tolist())) == 1]


def return_kept() -> Any:
    return kept[0]


def test_what_the_job_keeps_host_and_job_have_in_common(pool: Pool) -> None:
    array = pool.apply(make_and_keep, [1.0])
    pool.apply(write_to_kept, [2.0])
    assert (array == 2).all()
    array[:] = 3
    assert pool.apply(look_at_kept) == [3.0]
    del array
    noise = [pool.apply(made, [99.0]) for _ in range(4)]
    assert pool.apply(look_at_kept) == [3.0] and len(noise) == 4


def test_what_the_job_keeps_can_be_returned_again(pool: Pool) -> None:
    first = pool.apply(make_and_keep, [1.0])
    second = pool.apply(return_kept)
    assert address(first) == address(second)
    third, fourth = pool.submit(return_kept), pool.submit(return_kept)
    arrays = [third.result(), fourth.result()]  # one of them waited for the other: a copy
    first[:] = 2
    assert (arrays[0] == 2).all() or (arrays[1] == 2).all()
    del first, second, arrays
    gc.collect()
    assert (pool.apply(return_kept) == 2).all()


def make_and_keep_with_another() -> Any:
    return make_and_keep(1.0), numpy.ones(LARGE)


def same(value: Any) -> Any:
    return value


def test_what_the_host_sends_back_to_who_made_it_stays_one(pool: Pool) -> None:
    array, another = pool.apply(make_and_keep_with_another)  # which keeps the job's memory
    again = pool.apply(same, [array])
    assert address(again) == address(array) and (another == 1).all()
    pool.apply(write_to_kept, [4.0])
    assert (again == 4).all() and (array == 4).all()


def make_and_die(path: str) -> Any:
    array = shared.full(LARGE // 8, 1.0)
    kept.append(array)
    if os.path.exists(path):
        return array
    open(path, "x").close()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_that_is_run_again_makes_it_again(tmp_path: Any) -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(10):
            future = pool.options(retries=1).submit(make_and_die, str(tmp_path / str(i)))
            assert (future.result() == 1).all()


class DiesWhenDropped:
    """The worker dies when it has written the result, and before the job ends."""

    def __reduce__(self) -> Any:
        return list, ()

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def make_and_die_late() -> Any:
    return shared.full(LARGE // 8, 1.0), DiesWhenDropped()


def test_what_a_worker_gave_and_died_before_its_job_ended_is_free() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for _ in range(20):
            with pytest.raises(WorkerDied):
                pool.apply(make_and_die_late)
        assert pool.apply(made, [5.0, 4 * LARGE])[0][0] == 5


def nested(value: float) -> tuple[float, Any]:
    workers = libpool.current()
    assert workers is not None
    array, _ = workers.submit(made, value).result()
    workers.submit(write, array, value + 1).result()  # a copy of it
    return float(array[0]), array


def test_a_job_takes_it_from_a_job_and_passes_it_on() -> None:
    with Pool(2, shared_limit=24 * LARGE) as pool:
        for i in range(20):
            seen, array = pool.apply(nested, [i])
            assert seen == i and (array == i).all()


@pytest.mark.parametrize("end", ["terminate", "close", "break"])
def test_it_outlives_each_end_of_a_pool(end: str) -> None:
    pool = Pool(1)
    array, _ = pool.apply(made, [3.0])
    if end == "break":
        os.kill(pool.supervisor_pid, signal.SIGKILL)
    else:
        getattr(pool, end)()
        pool.join()
    assert (array == 3).all()
    pool.terminate()


def record(array: Any, path: str) -> None:
    signal.sigtimedwait([signal.SIGUSR1], 0.2)
    with open(path, "a") as file:
        file.write(f"{array[0]:.0f} {len(set(array.tolist()))}\n")


def test_jobs_of_a_dropped_pool_find_what_another_job_made(tmp_path: Any) -> None:
    path = tmp_path / "log"
    executor = Executor(1)
    array, _ = executor.submit(made, 7.0).result()
    executor.submit(record, array, str(path))
    executor.shutdown(wait=False)
    del executor, array
    gc.collect()
    until(lambda: path.exists() and path.read_text() == "7 1\n")


interrupted = False


class Interrupts:
    def __reduce__(self) -> Any:
        return _interrupt_host, (os.getpid(),)


def _interrupt_host(sender: int) -> str:
    global interrupted
    if sender != os.getpid() and not interrupted:
        interrupted = True
        raise KeyboardInterrupt
    return "read"


def made_and_interrupts() -> Any:
    return shared.full(LARGE // 8, 4.0), Interrupts()


def test_a_result_that_was_read_in_part_is_read_again(pool: Pool) -> None:
    future = pool.submit(made_and_interrupts)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    array, word = future.result()
    noise = [pool.apply(made, [99.0]) for _ in range(4)]
    assert (array == 4).all() and word == "read" and len(noise) == 4


def share_in_job() -> Any:
    workers = libpool.current()
    assert workers is not None
    return workers.share({"a": numpy.ones(LARGE // 8)})


def test_an_object_that_a_job_shares_can_be_returned(pool: Pool) -> None:
    content = pool.apply(share_in_job)
    assert (content["a"] == 1).all() and not content["a"].flags.writeable
