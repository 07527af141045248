"""The workers of an Executor as processes: looking at them, and ending them by force."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from support import Gate, is_alive, open_descriptors, pass_gates, program, run, until

import libpool
from libpool import Executor, Pool
from libpool._processes import WorkerProcess

OPERATIONS = ["terminate_workers", "kill_workers"]
SIGNALS = {"terminate_workers": signal.SIGTERM, "kill_workers": signal.SIGKILL}


# ---- By force -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_workers_end_at_once_and_their_jobs_with_an_error(
    started: Gate, held: Gate, operation: str
) -> None:
    executor = Executor(2)
    futures = [executor.submit(pass_gates, started, held) for _ in range(10)]
    started.wait_for()
    started.wait_for()
    pids = [*executor.worker_pids(), executor.supervisor_pid]
    getattr(executor, operation)()
    for future in futures[:2]:
        with pytest.raises(libpool.WorkerDied) as caught:
            future.result(20)
        assert caught.value.signal == SIGNALS[operation]
        assert isinstance(caught.value, BrokenProcessPool)
    assert all(future.cancelled() for future in futures[2:])
    executor.shutdown()
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_afterwards_the_executor_takes_no_jobs(operation: str) -> None:
    with Executor(1) as executor:
        executor.submit(abs, -1).result()
        getattr(executor, operation)()
        with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
            executor.submit(abs, -1)
        getattr(executor, operation)()
    getattr(executor, operation)()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_job_with_retries_does_not_run_again(started: Gate, held: Gate, operation: str) -> None:
    with Executor(1, retries=100) as executor:
        future = executor.submit(pass_gates, started, held)
        started.wait_for()
        getattr(executor, operation)()
        with pytest.raises((libpool.WorkerDied, concurrent.futures.CancelledError)):
            future.result(20)
    assert executor.stats()["jobs_started"] <= 10  # it is a race, but hardly ever lost


def test_a_job_may_handle_sigterm_and_finish(started: Gate, held: Gate) -> None:
    with Executor(1) as executor:
        future = executor.submit(ignore_sigterm, started, held)
        started.wait_for()
        executor.terminate_workers()
        held.open()
        assert future.result(20) == "done"


def ignore_sigterm(started: Gate, held: Gate) -> object:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return pass_gates(started, held, "done")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_broken_executor_can_be_ended_by_force(operation: str) -> None:
    with Executor(1) as executor:
        os.kill(executor.supervisor_pid, signal.SIGKILL)
        until(lambda: executor._broken)
        getattr(executor, operation)()


def test_an_unknown_operation_is_refused(executor: Executor) -> None:
    with pytest.raises(ValueError, match="^Unsupported operation: 'stop'$"):
        executor._force_shutdown("stop")
    assert executor.submit(abs, -1).result() == 1


# ---- What others look at ------------------------------------------------------------------------


def test_processes_are_the_workers(started: Gate, held: Gate) -> None:
    with Executor(2) as executor:
        processes = executor._processes
        assert sorted(processes) == sorted(executor.worker_pids())
        assert len(processes) == executor._max_workers == 2
        assert all(process.is_alive() for process in processes.values())
        assert all(executor._processes[pid] is processes[pid] for pid in processes)
        future = executor.submit(os.getpid)
        assert future.result() in processes
    for process in processes.values():
        process.join()
        assert not process.is_alive()
        process.kill()  # does nothing
    assert executor._processes == {}


def test_a_pool_lists_its_workers() -> None:
    with Pool(2) as pool:
        assert sorted(worker.pid for worker in pool._pool) == sorted(pool.worker_pids())
        assert all(worker.is_alive() for worker in pool._pool)
        assert pool._processes == 2


@pytest.mark.parametrize("operation", ["terminate", "kill"])
def test_a_worker_that_is_ended_is_replaced(operation: str) -> None:
    with Executor(1) as executor:
        (worker,) = executor._processes.values()
        getattr(worker, operation)()
        assert wait([worker.sentinel], 20) == [worker.sentinel]
        until(lambda: executor._processes and worker.pid not in executor._processes)
        assert executor.submit(os.getpid).result() in executor._processes


def test_joining_a_worker_can_time_out(executor: Executor) -> None:
    worker = next(iter(executor._processes.values()))
    begin = time.monotonic()
    worker.join(0.05)
    assert 0.05 <= time.monotonic() - begin < 20
    assert worker.is_alive()


def test_a_process_that_is_no_worker_is_left_alone(executor: Executor) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(ProcessLookupError, match="is no worker of this pool"):
            WorkerProcess(stranger.pid, executor.supervisor_pid)
    finally:
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def test_looking_at_processes_leaks_no_descriptors() -> None:
    def look() -> None:
        with Executor(2) as executor:
            for _ in range(5):
                assert len(executor._processes) == 2

    look()
    gc.collect()
    before = open_descriptors()
    look()
    gc.collect()
    assert open_descriptors() == before


def test_an_executor_says_whether_it_is_broken(executor: Executor) -> None:
    assert executor._broken is False
    os.kill(executor.supervisor_pid, signal.SIGKILL)
    until(lambda: executor._broken)
    assert "supervisor" in str(executor._broken)


# ---- What code catches --------------------------------------------------------------------------


def test_a_death_is_caught_as_a_broken_process_pool(executor: Executor) -> None:
    with pytest.raises(BrokenProcessPool) as caught:
        executor.submit(os._exit, 3).result()
    assert type(caught.value) is libpool.WorkerDied
    assert caught.value.exitcode == 3


def test_a_broken_pool_is_caught_as_those_of_processes_and_of_threads() -> None:
    for expected in (BrokenProcessPool, BrokenThreadPool):
        with Executor(1) as executor:
            os.kill(executor.supervisor_pid, signal.SIGKILL)
            until(lambda: executor._broken)  # noqa: B023
            with pytest.raises(expected) as caught:
                executor.submit(abs, -1)
            assert type(caught.value) is libpool.BrokenPool


def test_importing_libpool_does_not_import_multiprocessing(tmp_path: Path) -> None:
    code = """
        import os, sys
        import libpool
        heavy = {"multiprocessing", "concurrent.futures.process", "concurrent.futures.thread"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        executor = libpool.Executor(1)
        early = executor.submit(os._exit, 1)
        assert type(early.exception()) is libpool.WorkerDied
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        from concurrent.futures.process import BrokenProcessPool
        try:
            executor.submit(os._exit, 1).result()
        except BrokenProcessPool:
            pass
        assert issubclass(libpool.WorkerDied, BrokenProcessPool)
        assert isinstance(early.exception(), BrokenProcessPool)
        executor.shutdown()
    """
    run(program(tmp_path / "main.py", textwrap.dedent(code)))


def test_a_failing_initializer_is_caught_as_a_broken_process_pool() -> None:
    with Executor(1, initializer=fail) as executor:
        until(lambda: executor._broken)
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, -1)


def fail() -> None:
    raise ValueError("on purpose")


# ---- In the place of threads --------------------------------------------------------------------


def test_it_is_made_as_a_thread_pool_executor_is() -> None:
    with Executor(max_workers=1, thread_name_prefix="loader") as executor:
        assert executor.name_prefix == "loader"
        assert executor.submit(abs, -1).result() == 1
    with Executor(1, "loader", print, ("ready",)) as executor:
        assert executor.name_prefix == "loader"
        assert executor.submit(abs, -1).result() == 1


class Account:
    """Has bound methods."""

    def __init__(self, balance: int) -> None:
        self.balance = balance

    def after(self, payment: int) -> int:
        return self.balance - payment


def make_adder(k: int) -> Callable[[int], int]:
    return lambda x: x + k


def test_calls_that_only_threads_take_otherwise(executor: Executor) -> None:
    account = Account(10)

    def twice(fn: Callable[[int], int], x: int) -> int:
        return fn(fn(x))

    assert executor.submit(twice, make_adder(3), 1).result() == 7
    assert list(executor.map(lambda x: x * 2, range(3))) == [0, 2, 4]
    assert list(executor.map(account.after, [1, 2])) == [9, 8]
    account.balance = 20  # after the workers were started
    assert executor.submit(account.after, 1).result() == 19


def test_functions_of_a_session_that_come_after_the_start() -> None:
    session = """
import libpool
executor = libpool.Executor(1)
def double(x):
    return 2 * x

class Point:
    def __init__(self, x):
        self.x = x
    def moved(self, by):
        return Point(self.x + by)

print(executor.submit(double, 4).result())
print(executor.submit(Point(1).moved, 2).result().x)
k = 5
print(executor.submit(lambda: k).result())
k = 6
print(executor.submit(lambda: k).result())
executor.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=session, capture_output=True, text=True, timeout=40
    )
    assert done.stdout.split() == ["8", "3", "5", "6"], done.stderr


def test_shutdown_without_waiting_after_a_call_that_could_not_be_sent() -> None:
    executor = Executor(2)
    assert executor.submit(id, 42).exception() is None
    pids = [*executor.worker_pids(), executor.supervisor_pid]
    future = executor.submit(id, Unsendable())
    executor.shutdown(wait=False)
    with pytest.raises(LookupError, match="on purpose"):
        future.result(0)
    until(lambda: not any(map(is_alive, pids)))


class Unsendable:
    def __reduce__(self) -> str:
        raise LookupError("on purpose")
