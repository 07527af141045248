"""Ctrl-C goes to all processes of the terminal, and is the host's to act on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import program, remaining_after, start

from libpool import Pool

HOST = """
    import os, sys, time, libpool

    def job(x):
        os.write(2, b"ready\\n")
        while True:
            {work}

    workers = libpool.{kind}(2)
    try:
        {wait}
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
    pids = [*workers.worker_pids(), workers.supervisor_pid]
    print(*pids, flush=True)
    workers.terminate()
"""

WAITS = {
    "map": ("Pool", "workers.map(job, range(4))"),
    "apply": ("Pool", "workers.apply(job, (1,))"),
    "result": ("Executor", "workers.submit(job, 1).result()"),
    "result with timeout": ("Executor", "workers.submit(job, 1).result(1000)"),
    "executor map": ("Executor", "list(workers.map(job, range(4)))"),
    "shutdown": ("Executor", "workers.submit(job, 1); workers.shutdown()"),
    "wait": (
        "Executor",
        "import concurrent.futures as c; c.wait([workers.submit(job, 1)])",
    ),
}


BUSY = "pass"
WORK = [BUSY, "time.sleep(0.01)", "os.read(os.pipe()[0], 1)"]


@pytest.mark.parametrize(
    "wait, work", [*(("map", work) for work in WORK), *((wait, BUSY) for wait in WAITS)]
)
def test_ctrl_c_interrupts_the_host_and_workers_print_nothing(
    tmp_path: Path, wait: str, work: str
) -> None:
    kind, call = WAITS[wait]
    path = program(tmp_path / "host.py", HOST.format(kind=kind, wait=call, work=work))
    # The host competes for the processor with its workers and whatever else runs on this machine,
    # so being late once proves nothing.
    assert any(interrupt(path) < 0.1 for _ in range(3))


def interrupt(path: Path) -> float:
    """Interrupt a host; how many seconds later it raised KeyboardInterrupt."""
    host = start(path, start_new_session=True)
    try:
        assert host.stderr is not None and host.stderr.readline() == "ready\n"
        sent = time.monotonic()
        os.killpg(host.pid, signal.SIGINT)
        output, errors = host.communicate(timeout=20)
    finally:
        host.kill()
    assert host.returncode == 0, errors
    caught, pids = output.splitlines()
    assert errors.replace("ready\n", "") == ""
    assert remaining_after(map(int, pids.split()), 1) == set()
    return float(caught) - sent


def test_ctrl_c_that_nobody_catches_ends_everything(tmp_path: Path) -> None:
    path = program(
        tmp_path / "host.py",
        """
        import sys, time, libpool

        def job(x):
            print("ready", flush=True)
            time.sleep(1000)

        with libpool.Pool(2) as pool:
            print(*pool.worker_pids(), pool.supervisor_pid, flush=True)
            pool.map(job, range(4))
        """,
    )
    host = start(path, start_new_session=True)
    try:
        assert host.stdout is not None
        pids = host.stdout.readline()
        assert host.stdout.readline() == "ready\n"
        os.killpg(host.pid, signal.SIGINT)
        _, errors = host.communicate(timeout=20)
    finally:
        host.kill()
    assert host.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert remaining_after(map(int, pids.split()), 1) == set()


def test_a_program_that_a_job_starts_can_be_interrupted(pool: Pool) -> None:
    assert pool.apply(_interrupt_child) == -signal.SIGINT


def _interrupt_child() -> int:
    child = subprocess.Popen(["sleep", "1000"])
    child.send_signal(signal.SIGINT)
    return child.wait(timeout=20)


def test_a_signal_handler_of_the_host_runs_while_it_waits(tmp_path: Path) -> None:
    path = program(
        tmp_path / "host.py",
        """
        import os, signal, threading, libpool

        read_end, write_end = os.pipe()

        def job():
            return os.read(read_end, 1)

        def handle(number, frame):
            os.write(write_end, b"x")

        signal.signal(signal.SIGUSR1, handle)
        with libpool.Executor(1) as executor:
            future = executor.submit(job)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            print(future.result())
        """,
    )
    process = start(path)
    output, errors = process.communicate(timeout=20)
    assert (output, errors) == ("b'x'\n", "")
