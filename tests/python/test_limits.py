"""Limits of workers and of the pool: memory, shared memory, jobs of a worker."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import MIB, Gate, pass_gates, program, until

import libpool
from libpool import Executor, Pool, WorkerDied

MEMORY = 128 * MIB


def square(x: int) -> int:
    return x * x


# ---- Memory of a worker -------------------------------------------------------------------------


def have(size: int) -> int:
    """Have so many bytes for a moment."""
    return len(bytearray(size))


def have_array(size: int) -> int:
    import numpy

    return int(numpy.ones(size, dtype=numpy.uint8).nbytes)


@pytest.fixture(params=[Pool, Executor])
def limited(request: pytest.FixtureRequest) -> Any:
    """A pool whose workers have little memory."""
    made = request.param(2, memory_limit=MEMORY)
    yield made
    made.terminate()


def check_note(error: BaseException) -> None:
    assert isinstance(error, MemoryError)
    assert any(f"{MEMORY} bytes" in note and "memory_limit" in note for note in error.__notes__)


def test_a_job_over_the_memory_limit_gets_a_memory_error_that_names_it(limited: Any) -> None:
    for _ in range(5):
        with pytest.raises(MemoryError) as caught:
            limited.submit(have, 2 * MEMORY).result(20)
        check_note(caught.value)
        assert limited.submit(have, MEMORY // 4).result(20) == MEMORY // 4
    assert limited.stats()["workers_started"] == 2


def test_numpy_over_the_memory_limit(limited: Any) -> None:
    pytest.importorskip("numpy")
    with pytest.raises(MemoryError) as caught:
        limited.submit(have_array, 2 * MEMORY).result(20)
    check_note(caught.value)
    assert limited.submit(have_array, MIB).result(20) == MIB


def test_many_small_objects_over_the_memory_limit(limited: Any) -> None:
    with pytest.raises(MemoryError) as caught:
        limited.submit(_grow).result(40)
    check_note(caught.value)
    assert limited.submit(_grow_to, 10_000).result(20) == 10_000


def _grow() -> None:
    kept: list[bytes] = []
    while len(kept) < 10 * MEMORY // 4096:
        kept.append(bytes(4096))


def _grow_to(count: int) -> int:
    return len([bytes(100) for _ in range(count)])


def test_other_workers_do_not_notice(started: Gate, held: Gate) -> None:
    with Executor(2, memory_limit=MEMORY) as executor:
        other = executor.submit(_hold_memory, started, held)
        started.wait_for()
        for _ in range(5):
            assert isinstance(executor.submit(have, 2 * MEMORY).exception(20), MemoryError)
        held.open()
        assert other.result(20) == MEMORY // 2
        assert executor.stats()["workers_started"] == 2


def _hold_memory(started: Gate, held: Gate) -> int:
    memory = bytearray(MEMORY // 2)
    pass_gates(started, held)
    return len(memory)


def test_native_code_that_does_not_look_at_what_it_got_dies_alone(limited: Any) -> None:
    with pytest.raises(WorkerDied, match="SIGSEGV") as caught:
        limited.submit(_write_to_malloc, 2 * MEMORY).result(20)
    assert caught.value.__notes__ == [
        f"it may have gone over the pool's memory_limit of {MEMORY} bytes"
    ]
    killed = limited.submit(signal.raise_signal, signal.SIGKILL).exception(20)
    assert isinstance(killed, WorkerDied)
    assert not hasattr(killed, "__notes__")  # that is somebody else's doing
    assert limited.submit(_write_to_malloc, MIB).result(20) == 1
    assert limited.submit(square, 3).result(20) == 9


def _write_to_malloc(size: int) -> int:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    memory = libc.malloc(size)
    ctypes.memset(memory, 1, 1)
    return ctypes.string_at(memory, 1)[0]


def test_a_replacement_has_the_limit_too(limited: Any) -> None:
    for _ in range(3):
        assert isinstance(limited.submit(os._exit, 1).exception(20), WorkerDied)
        assert isinstance(limited.submit(have, 2 * MEMORY).exception(20), MemoryError)


def test_an_initializer_may_have_more(gate: Callable[[], Gate]) -> None:
    with Executor(1, memory_limit=MEMORY, initializer=_keep, initargs=(2 * MEMORY,)) as executor:
        assert executor.submit(have, MEMORY // 4).result(20) == MEMORY // 4
        assert isinstance(executor.submit(have, 2 * MEMORY).exception(20), MemoryError)


def _keep(size: int) -> None:
    global kept
    kept = bytearray(size)


def test_what_the_host_has_does_not_count() -> None:
    mine = bytearray(3 * MEMORY)
    with Executor(1, memory_limit=MEMORY) as executor:
        assert executor.submit(have, MEMORY // 4).result(20) == MEMORY // 4
    assert len(mine) == 3 * MEMORY


def test_the_host_has_no_limit(limited: Any) -> None:
    limited.submit(square, 3).result(20)
    assert have(3 * MEMORY) == 3 * MEMORY


def test_an_own_memory_error_without_a_limit_has_no_note(workers: Any) -> None:
    with pytest.raises(MemoryError, match="mine") as caught:
        workers.submit(_raise_memory_error).result()
    assert not hasattr(caught.value, "__notes__")


def _raise_memory_error() -> None:
    raise MemoryError("mine")


def test_a_result_within_the_limit_and_an_argument(limited: Any) -> None:
    data = bytes(20 * MIB)
    assert limited.submit(len, data).result(20) == len(data)
    assert limited.submit(bytes, 20 * MIB).result(20) == data


def test_a_map_over_the_memory_limit_raises_when_the_others_are_done(limited: Any) -> None:
    with pytest.raises(MemoryError):
        list(limited.map(have, [MIB, MIB, 2 * MEMORY, MIB]))
    assert list(limited.map(have, [MIB] * 8)) == [MIB] * 8


@pytest.mark.parametrize("kind", [Pool, Executor])
@pytest.mark.parametrize("limit", [-1, 1 << 63, 1 << 64, 10**30])
def test_a_memory_limit_out_of_range_is_refused(kind: Any, limit: int) -> None:
    with pytest.raises(ValueError, match="memory_limit"):
        kind(1, memory_limit=limit)


@pytest.mark.parametrize("kind", [Pool, Executor])
@pytest.mark.parametrize("limit", [1.5, "1", None])
def test_a_memory_limit_that_is_no_integer_is_refused(kind: Any, limit: Any) -> None:
    with pytest.raises(TypeError):
        kind(1, memory_limit=limit)


def test_a_memory_limit_beyond_all_memory_is_none() -> None:
    with Executor(1, memory_limit=(1 << 63) - 1) as executor:
        assert executor.submit(have, 64 * MIB).result(20) == 64 * MIB


# ---- Shared memory ------------------------------------------------------------------------------


def test_arguments_over_the_shared_limit_are_an_error_of_submit(started: Gate, held: Gate) -> None:
    with Pool(1, shared_limit=8 * MIB) as pool:
        pool.submit(pass_gates, started, held)
        started.wait_for()
        futures = []
        with pytest.raises(MemoryError, match="no shared memory left"):
            for _ in range(100):
                futures.append(pool.submit(len, bytes(MIB)))  # noqa: PERF401
        assert 2 <= len(futures) <= 8
        assert pool.check() == 0
        held.open()
        assert [future.result(20) for future in futures] == [MIB] * len(futures)
        for _ in range(20):  # what they took is free again
            assert pool.submit(len, bytes(MIB)).result(20) == MIB


def test_an_argument_larger_than_the_shared_limit(workers: Any) -> None:
    with type(workers)(1, shared_limit=2 * MIB) as small:
        for _ in range(3):
            with pytest.raises((MemoryError, ValueError), match="shared"):
                small.submit(len, bytes(3 * MIB))
            assert small.submit(square, 3).result(20) == 9


def test_a_result_too_large_for_the_shared_limit_is_an_error_of_its_job() -> None:
    with Pool(2, shared_limit=4 * MIB) as pool:
        for _ in range(3):
            with pytest.raises(MemoryError, match="no shared memory left for"):
                pool.apply(bytes, (8 * MIB,))
            assert pool.apply(bytes, (MIB,)) == bytes(MIB)
        assert pool.stats()["workers_started"] == 2
        assert pool.stats()["memory"] <= 4 * MIB


def test_results_that_nobody_fetches_use_up_the_shared_limit_until_they_are() -> None:
    with Pool(1, shared_limit=8 * MIB) as pool:
        futures = [pool.submit(bytes, MIB) for _ in range(12)]
        until(lambda: all(future.done() for future in futures))  # which fetches none
        errors = [future.exception(20) for future in futures]
        assert any(errors)
        assert all(error is None or isinstance(error, MemoryError) for error in errors)
        futures.clear()
        assert pool.apply(bytes, (MIB,)) == bytes(MIB)


def test_a_map_goes_on_when_one_chunk_finds_no_memory() -> None:
    with Pool(1, shared_limit=4 * MIB) as pool:
        with pytest.raises(MemoryError):
            pool.map(bytes, [1, 8 * MIB, 2], chunksize=1)
        assert pool.map(bytes, [1, 2, 3]) == [bytes(1), bytes(2), bytes(3)]


@pytest.mark.parametrize("kind", [Pool, Executor])
@pytest.mark.parametrize("limit", [-1, 1, MIB - 1, 1 << 64, 10**30])
def test_a_shared_limit_out_of_range_is_refused(kind: Any, limit: int) -> None:
    with pytest.raises(ValueError, match="shared_limit"):
        kind(1, shared_limit=limit)


@pytest.mark.parametrize("kind", [Pool, Executor])
@pytest.mark.parametrize("limit", [2e6, "2000000", None])
def test_a_shared_limit_that_is_no_integer_is_refused(kind: Any, limit: Any) -> None:
    with pytest.raises(TypeError):
        kind(1, shared_limit=limit)


SMALL = """
    import ctypes, gc, os, platform, struct, sys
    import libpool

    # As on a kernel without memfd_create(): a filter that answers ENOSYS, so that the pool takes
    # shm_open(), which leads to the /dev/shm of this mount namespace.
    number = {"x86_64": 319, "aarch64": 279}[platform.machine()]
    answers = [(0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7FFF0000)]
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), *answers]
    filter = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = ctypes.create_string_buffer(
        struct.pack("@HP", len(code), ctypes.addressof(filter)))
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), none, none, none) == 0
    assert libc.prctl(22, ctypes.c_ulong(2), program, none, none) == 0
    try:
        os.memfd_create("x")
    except OSError:
        pass
    else:
        sys.exit("the filter does not work")

    def free():
        status = os.statvfs("/dev/shm")
        return status.f_bfree * status.f_frsize

    before = free()
    with libpool.Pool(1) as pool:
        assert free() < before <= 1 << 20
        assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))
        for round in range(3):
            futures = []
            try:
                while len(futures) < 100:
                    futures.append(pool.submit(len, bytes(60_000)))
            except MemoryError as error:
                assert "no shared memory left" in str(error)
            else:
                sys.exit("a mebibyte holds all")
            assert len(futures) > 1
            assert [future.result(20) for future in futures] == [60_000] * len(futures)
            futures.clear()
            try:
                pool.apply(bytes, (2 << 20,))
            except MemoryError as error:
                assert "no shared memory left" in str(error)
            else:
                sys.exit("a mebibyte holds two")
            assert pool.submit(len, bytes(60_000)).result(20) == 60_000
        assert pool.check() == 0
        assert pool.stats()["workers_started"] == 1
    del pool, futures  # with the last of what belongs to it, its memory goes
    gc.collect()
    assert free() == before
    print("good")
"""


def test_a_file_system_of_one_mebibyte_is_an_error_and_never_sigbus(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare program")
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace of one's own: {tried.stderr.strip()}")
    path = program(tmp_path / "small.py", SMALL)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$1"', sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", "")


# ---- Jobs of a worker ---------------------------------------------------------------------------


def pools_with_tasks(kind: Any, workers: int, tasks: int | None, **others: Any) -> Any:
    if kind is Pool:
        return Pool(workers, maxtasksperchild=tasks, **others)
    return Executor(workers, max_tasks_per_child=tasks, **others)


kinds = pytest.mark.parametrize("kind", [Pool, Executor])


@kinds
@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_a_worker_is_replaced_after_exactly_so_many_jobs(kind: Any, tasks: int) -> None:
    with pools_with_tasks(kind, 1, tasks) as workers:
        futures = [workers.submit(os.getpid) for _ in range(4 * tasks)]
        pids = [future.result(20) for future in futures]
        assert pids == [pid for pid in pids[::tasks] for _ in range(tasks)]
        assert len(set(pids)) == 4


@kinds
def test_no_job_is_lost_when_workers_are_replaced(kind: Any) -> None:
    with pools_with_tasks(kind, 3, 2) as workers:
        futures = [workers.submit(square, x) for x in range(100)]
        assert [future.result(40) for future in futures] == [x * x for x in range(100)]
        assert list(workers.map(square, range(20))) == [x * x for x in range(20)]
        assert workers.stats()["workers_started"] >= 50


@kinds
def test_a_chunk_counts_as_one_job(kind: Any) -> None:
    with pools_with_tasks(kind, 1, 1) as workers:
        pids = list(workers.map(_pid, range(9), chunksize=3))
        assert pids == [pid for pid in pids[::3] for _ in range(3)]
        assert len(set(pids)) == 3


def _pid(_: object) -> int:
    return os.getpid()


@kinds
def test_jobs_one_at_a_time_while_workers_end(kind: Any) -> None:
    with pools_with_tasks(kind, 2, 1) as workers:
        assert [workers.submit(square, x).result(20) for x in range(50)] == [
            x * x for x in range(50)
        ]


@kinds
def test_workers_are_replaced_while_the_pool_closes(kind: Any) -> None:
    workers = pools_with_tasks(kind, 2, 1)
    futures = [workers.submit(square, x) for x in range(15)]
    workers.close()
    assert workers.join(20)
    assert [future.result(0) for future in futures] == [x * x for x in range(15)]


@kinds
def test_a_worker_ends_in_an_orderly_way(kind: Any, started: Gate, tmp_path: Path) -> None:
    """What it has to do at its end is done: its buffers are written."""
    path = tmp_path / "out.py"
    name = "maxtasksperchild" if kind is Pool else "max_tasks_per_child"
    program(
        path,
        f"""
        import sys, libpool

        def tell(x):
            sys.stdout.write(f"<{{x}}>")

        workers = libpool.{kind.__name__}(1, {name}=2)
        for x in range(5):
            workers.submit(tell, x).result()
        workers.close()
        workers.join()
        """,
    )
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=40)
    assert (done.returncode, done.stdout, done.stderr) == (0, "<0><1><2><3><4>", "")


def test_nested_jobs_on_workers_that_are_replaced_after_each() -> None:
    with Executor(2, max_tasks_per_child=1) as executor:
        for _ in range(3):
            assert executor.submit(_sum_of_nested, 3).result(40) == 8


def _sum_of_nested(levels: int) -> int:
    if levels == 0:
        return 1
    workers = libpool.current()
    assert workers is not None
    futures = [workers.submit(_sum_of_nested, levels - 1) for _ in range(2)]
    return sum(future.result() for future in futures)


def test_what_the_last_job_of_a_worker_submitted_runs(started: Gate) -> None:
    with Executor(1, max_tasks_per_child=1) as executor:
        executor.submit(_submit_and_leave, started).result(20)
        for _ in range(5):
            started.wait_for()


def _submit_and_leave(gate: Gate) -> None:
    workers = libpool.current()
    assert workers is not None
    for _ in range(5):
        workers.submit(gate.open)


def test_each_worker_is_initialized(gate: Callable[[], Gate]) -> None:
    starts = gate()
    with Executor(1, max_tasks_per_child=2, initializer=starts.open) as executor:
        for x in range(6):
            executor.submit(square, x).result(20)
        for _ in range(3):
            starts.wait_for()


def test_deaths_and_replacements_together() -> None:
    with Executor(2, max_tasks_per_child=3) as executor:
        futures = [
            executor.submit(os._exit, 1) if x % 7 == 0 else executor.submit(square, x)
            for x in range(50)
        ]
        errors = [future.exception(40) for future in futures]
        assert [x for x in range(50) if errors[x] is not None] == list(range(0, 50, 7))
        assert all(isinstance(error, WorkerDied) for error in errors[::7])


def test_none_means_never(workers: Any) -> None:
    with pools_with_tasks(type(workers), 1, None) as other:
        assert len({other.submit(os.getpid).result(20) for _ in range(20)}) == 1
    with pools_with_tasks(type(workers), 1, 10**6) as other:
        assert len({other.submit(os.getpid).result(20) for _ in range(20)}) == 1


@kinds
@pytest.mark.parametrize("tasks", [0, -1])
def test_too_few_tasks_are_refused(kind: Any, tasks: int) -> None:
    with pytest.raises(ValueError, match="max_?tasks_?per_?child must be"):
        pools_with_tasks(kind, 1, tasks)


@kinds
@pytest.mark.parametrize("tasks", [1.5, "1", [1]])
def test_tasks_that_are_no_integer_are_refused(kind: Any, tasks: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_?tasks_?per_?child must be"):
        pools_with_tasks(kind, 1, tasks)


@kinds
def test_a_huge_number_of_tasks_is_never_or_refused(kind: Any) -> None:
    """And not what is left of it in 64 bits."""
    try:
        workers = pools_with_tasks(kind, 1, (1 << 64) + 1)
    except (ValueError, OverflowError):
        return
    with workers:
        assert len({workers.submit(os.getpid).result(20) for _ in range(5)}) == 1


def test_memory_limit_and_tasks_together() -> None:
    with Executor(1, max_tasks_per_child=1, memory_limit=MEMORY) as executor:
        for _ in range(3):
            assert isinstance(executor.submit(have, 2 * MEMORY).exception(20), MemoryError)
            assert executor.submit(have, MIB).result(20) == MIB
        until(lambda: executor.stats()["workers_started"] >= 6)
