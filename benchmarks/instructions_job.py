"""What ``instructions.py`` counts, in Python: ``submit(f, 1).result()``, in batches.

    python instructions_job.py ROUNDS

The only worker is stopped while a batch is submitted, and has run it and sleeps again before the
first result is asked for. So neither side ever waits for the other, which would cost a number of
instructions that differs from run to run. Prints the process numbers of the host
and the worker.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import libpool

BATCH = 64


def number(value: int) -> int:
    """Do the job: nothing."""
    return value


def say(descriptor: int) -> None:
    """End a batch: what the host waits for with a read, and not with a future."""
    os.write(descriptor, b".")


def await_state(pid: int, state: str) -> None:
    """Wait until the process is in this state, as in proc(5)."""
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        time.sleep(0.001)


def play(executor: libpool.Executor, worker: int, ends: tuple[int, int]) -> None:
    """Submit a batch, let the worker run it, take the results."""
    os.kill(worker, signal.SIGSTOP)
    await_state(worker, "T")
    futures = [executor.submit(number, 1) for _ in range(BATCH)]
    last = executor.submit(say, ends[1])
    os.kill(worker, signal.SIGCONT)
    os.read(ends[0], 1)
    await_state(worker, "S")
    if [future.result() for future in futures] != [1] * BATCH or last.result() is not None:
        raise RuntimeError("a result is wrong")


def main() -> None:
    """Play so many rounds."""
    ends = os.pipe()
    os.set_inheritable(ends[1], True)
    with libpool.Executor(1) as executor:
        worker = executor.submit(os.getpid).result()
        print(os.getpid(), worker, flush=True)
        await_state(worker, "S")
        for _ in range(int(sys.argv[1])):
            play(executor, worker, ends)


if __name__ == "__main__":
    main()
