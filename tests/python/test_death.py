"""Who dies, and what becomes of the others."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Gate, descendants, is_alive, pass_gates, program, remaining_after, start, until

import libpool
from libpool import BrokenPool, Executor, Pool, WorkerDied


def square(x: int) -> int:
    return x * x


def kill_self_at_five(x: int) -> int:
    if x == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


# ---- A worker -----------------------------------------------------------------------------------


def test_a_job_that_kills_its_worker_is_the_only_one_that_is_lost(workers: Any) -> None:
    futures = [workers.submit(kill_self_at_five, x) for x in range(100)]
    outcomes = [future.exception(timeout=40) for future in futures]
    assert [x for x in range(100) if outcomes[x] is not None] == [5]
    error = outcomes[5]
    assert isinstance(error, WorkerDied)
    assert (error.exitcode, error.signal) == (-signal.SIGKILL, signal.SIGKILL)
    assert str(error).startswith(
        "a worker was killed by SIGKILL (signal 9) while it ran <function kill_self_at_five at 0x"
    )
    assert [future.result() for x, future in enumerate(futures) if x != 5] == [
        x for x in range(100) if x != 5
    ]
    assert [workers.submit(square, x).result() for x in range(100)] == [x * x for x in range(100)]
    until(lambda: workers.stats()["alive"] == 2)


def test_an_exit_code_is_told(workers: Any) -> None:
    with pytest.raises(WorkerDied, match="exited with code 3 while it ran") as caught:
        workers.submit(os._exit, 3).result()
    assert (caught.value.exitcode, caught.value.signal) == (3, None)
    with pytest.raises(WorkerDied, match="exited with code 0"):
        workers.submit(os._exit, 0).result()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_a_signal_is_told(workers: Any, number: signal.Signals) -> None:
    with pytest.raises(WorkerDied, match=f"killed by {number.name} \\(signal {int(number)}\\)"):
        workers.submit(_die_of, number).result()
    assert workers.submit(square, 2).result() == 4


def _die_of(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def test_a_crash_in_native_code_is_told(workers: Any) -> None:
    with pytest.raises(WorkerDied, match="SIGSEGV"):
        workers.submit(_crash).result()


def _crash() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def test_map_loses_the_chunk_of_the_worker_that_died(pool: Pool, executor: Executor) -> None:
    with pytest.raises(WorkerDied):
        pool.map(kill_self_at_five, range(20))
    assert pool.map(square, range(20)) == [x * x for x in range(20)]
    results = executor.map(kill_self_at_five, range(20))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(WorkerDied):
        next(results)


def test_a_worker_that_is_killed_from_outside(started: Gate, held: Gate, workers: Any) -> None:
    first = workers.submit(pass_gates, started, held, os.getpid())
    started.wait_for()
    until(lambda: len(workers.worker_pids()) == 2)
    pids = set(workers.worker_pids())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert isinstance(first.exception(timeout=20), WorkerDied)
    assert workers.submit(square, 3).result(timeout=20) == 9
    until(lambda: len(workers.worker_pids()) == 2 and not pids & set(workers.worker_pids()))


def test_every_worker_dies_again_and_again(workers: Any) -> None:
    for _ in range(10):
        futures = [workers.submit(os._exit, 1) for _ in range(4)]
        futures += [workers.submit(square, x) for x in range(20)]
        errors = [future.exception(timeout=40) for future in futures]
        assert [type(error) for error in errors] == [WorkerDied] * 4 + [type(None)] * 20
    assert workers.submit(square, 2).result() == 4


def test_workers_that_are_killed_at_random_lose_at_most_a_job_each(workers: Any) -> None:
    futures = [workers.submit(square, x) for x in range(20_000)]
    killed = 0
    while not futures[-1].done() and killed < 50:
        for pid in workers.worker_pids():
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
    lost = 0
    for x, future in enumerate(futures):
        error = future.exception(timeout=40)
        if error is None:
            assert future.result() == x * x
        else:
            assert isinstance(error, WorkerDied)
            lost += 1
    assert lost <= killed


def test_a_replacement_is_initialized(gate: Callable[[], Gate]) -> None:
    with Executor(1, initializer=_set_mark, initargs=(5,)) as executor:
        with pytest.raises(WorkerDied):
            executor.submit(os._exit, 1).result()
        assert executor.submit(_get_mark).result() == 5


def _set_mark(value: int) -> None:
    global mark
    mark = value


def _get_mark() -> int:
    return mark  # type: ignore[name-defined, no-any-return] # noqa: F821


def test_a_nested_job_that_kills_its_worker(workers: Any) -> None:
    with pytest.raises(WorkerDied):
        workers.submit(_submit_death).result(timeout=20)
    assert workers.submit(square, 2).result(timeout=20) == 4


def _submit_death() -> None:
    pool = libpool.current()
    assert pool is not None
    raise pool.submit(os._exit, 1).exception() or AssertionError("it lives")


def test_what_waits_when_a_worker_dies_runs_by_function_that_was_cached(workers: Any) -> None:
    for _ in range(5):
        assert workers.submit(square, 2).result() == 4
    with pytest.raises(WorkerDied):
        workers.submit(os._exit, 1).result()
    assert [workers.submit(square, 2).result() for _ in range(20)] == [4] * 20


# ---- The supervisor -----------------------------------------------------------------------------


def test_the_death_of_the_supervisor_breaks_the_pool(
    started: Gate, held: Gate, workers: Any
) -> None:
    futures = [workers.submit(pass_gates, started, held) for _ in range(10)]
    callbacks: list[object] = []
    futures[-1].add_done_callback(callbacks.append)
    started.wait_for()
    until(lambda: len(workers.worker_pids()) == 2)
    pids = workers.worker_pids()
    os.kill(workers.supervisor_pid, signal.SIGKILL)
    for future in futures:
        with pytest.raises(BrokenPool, match="broken"):
            future.result(timeout=20)
    with pytest.raises(BrokenPool):
        workers.submit(square, 1).result()
    until(lambda: callbacks == [futures[-1]])
    assert remaining_after(pids, 2) == set()


def test_a_map_ends_when_the_supervisor_dies(started: Gate, held: Gate, pool: Pool) -> None:
    def kill() -> None:
        started.wait_for()
        os.kill(pool.supervisor_pid, signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(BrokenPool):
        pool.starmap(pass_gates, [(started, held)] * 10, chunksize=1)


def test_a_broken_pool_can_be_ended(workers: Any) -> None:
    os.kill(workers.supervisor_pid, signal.SIGKILL)
    until(lambda: workers.check() != 0)
    if isinstance(workers, Executor):
        workers.shutdown()
    workers.terminate()
    workers.join()


# ---- The host -----------------------------------------------------------------------------------

HOST = """
    import os, sys, time, libpool

    def busy(x):
        while True:
            x += 1

    def sleeping(x):
        time.sleep(1000)

    def blocked(x):
        os.read(read_end, 1)

    read_end, write_end = os.pipe()
    job = globals()[sys.argv[1]]
    pool = libpool.Pool(3)
    executor = libpool.Executor(2)
    futures = [w.submit(job, x) for w in (pool, executor) for x in range(50)]
    while not all(w.stats()["alive"] == w.workers and any(f.running() for f in futures)
                  for w in (pool, executor)):
        time.sleep(0.001)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("job", ["busy", "sleeping", "blocked"])
def test_nothing_is_left_a_second_after_the_host_was_killed(tmp_path: Path, job: str) -> None:
    host = start(program(tmp_path / "host.py", HOST), job, stdin=-1)
    try:
        assert host.stdout is not None and host.stdout.readline() == "ready\n"
        others = descendants(host.pid)
        assert len(others) == 2 + 3 + 2
        before = time.monotonic()
        host.kill()
        assert remaining_after(others, 1) == set()
        assert time.monotonic() - before < 1
        assert not list(Path("/dev/shm").glob("libpool*"))
    finally:
        host.kill()
        host.communicate()


def test_nothing_is_left_when_the_host_dies_while_it_makes_pools(tmp_path: Path) -> None:
    code = """
        import os, libpool
        print("ready", flush=True)
        while True:
            libpool.Executor(2).submit(os.getpid)
    """
    host = start(program(tmp_path / "host.py", code))
    try:
        assert host.stdout is not None and host.stdout.readline() == "ready\n"
        until(lambda: len(descendants(host.pid)) > 3)
        os.kill(host.pid, signal.SIGSTOP)
        others = descendants(host.pid)
        host.kill()
        assert remaining_after(others, 1) == set()
    finally:
        host.kill()
        host.communicate()


def test_a_pool_made_in_a_thread_outlives_the_thread() -> None:
    made: list[Pool] = []
    thread = threading.Thread(target=lambda: made.append(Pool(2)))
    thread.start()
    thread.join()
    with made[0] as pool:
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
        until(lambda: len(pool.worker_pids()) == 2)
        pids = set(pool.worker_pids())
        with pytest.raises(WorkerDied):
            pool.apply(os._exit, (1,))
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
        # The supervisor has not ended with the thread: one worker is still the same.
        until(lambda: len(pids & set(pool.worker_pids())) == 1)
        until(lambda: len(pool.worker_pids()) == 2)


def test_a_job_may_start_processes_that_are_its_own_affair(workers: Any) -> None:
    assert workers.submit(_run_true).result() == 0
    assert workers.submit(_fork_and_wait).result() == 7


def _run_true() -> int:
    import subprocess

    return subprocess.run(["true"], check=False).returncode


def _fork_and_wait() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_stopped_worker_delays_its_own_job_only(started: Gate, held: Gate) -> None:
    with Executor(2) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGSTOP)
        try:
            assert [executor.submit(square, x).result(timeout=20) for x in range(50)] == [
                x * x for x in range(50)
            ]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert is_alive(pid)
