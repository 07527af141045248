"""The workers as `multiprocessing.Process` objects would show them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from libpool import _core

__all__ = ["WorkerProcess", "wait_for_any", "worker_processes"]

_LONGEST_START = 5.0
"""Seconds that `worker_processes` waits for workers that are just being started."""


class WorkerProcess:
    """A worker process, to be looked at and signalled from the process that made the pool.

    It holds a descriptor of the process, so what it says and does never hits another one that was
    given the same number later.

    Parameters
    ----------
    pid : int
        The worker's process id.
    parent : int
        That of the pool's supervisor. A process with another parent is no worker: it has been
        given the number of one that ended.

    Raises
    ------
    ProcessLookupError
        There is no such worker any more.

    Attributes
    ----------
    pid : int
        The process id.
    sentinel : int
        A descriptor that is ready to read when the process has ended, as for
        `multiprocessing.connection.wait`.
    """

    def __init__(self, pid: int, parent: int) -> None:
        self.pid = pid
        self.sentinel = os.pidfd_open(pid)
        # Read after the descriptor was opened, of a process that is still there after that: so
        # both are of the same process.
        found = _parent_of(pid)
        if found != parent or not self.is_alive():
            raise ProcessLookupError(f"process {pid} is no worker of this pool")

    def __repr__(self) -> str:
        state = "started" if self.is_alive() else "stopped"
        return f"<{type(self).__name__} pid={self.pid} {state}>"

    def __del__(self) -> None:
        if hasattr(self, "sentinel"):
            with contextlib.suppress(OSError):
                os.close(self.sentinel)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return not self._ended(0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most. Default: for ever.
        """
        self._ended(None if timeout is None else max(0, timeout) * 1000)

    def terminate(self) -> None:
        """Send SIGTERM. The pool replaces the worker, unless it has been shut down."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL. The pool replaces the worker, unless it has been shut down."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(self.sentinel, number)

    def _ended(self, milliseconds: float | None) -> bool:
        return _any_ended([self], milliseconds)


def worker_processes(workers: _core.Workers) -> dict[int, WorkerProcess]:
    """The workers that there are now, by their process ids.

    Parameters
    ----------
    workers : Pool or Executor
        Whose workers.

    Returns
    -------
    dict of int to WorkerProcess
        A snapshot. A worker that was in an earlier one is the same object in both.
    """
    _await_start(workers)
    known: dict[int, WorkerProcess] = workers.__dict__.get("_known_processes", {})
    supervisor = workers.supervisor_pid
    current: dict[int, WorkerProcess] = {}
    for pid in workers.worker_pids():
        process = known.get(pid)
        if process is None or not process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                current[pid] = WorkerProcess(pid, supervisor)
        else:
            current[pid] = process
    workers.__dict__["_known_processes"] = current
    return dict(current)


def _await_start(workers: _core.Workers) -> None:
    # The supervisor forks on its own, and nothing tells of it.
    end = time.monotonic() + _LONGEST_START
    while (
        workers.check() == 0
        and len(workers.worker_pids()) < workers.workers
        and time.monotonic() < end
    ):
        time.sleep(0.0005)


def wait_for_any(processes: Iterable[WorkerProcess], timeout: float) -> bool:
    """Wait until one of some processes has ended.

    Parameters
    ----------
    processes : iterable of WorkerProcess
        At least one.
    timeout : float
        Seconds to wait at most.

    Returns
    -------
    bool
        False if the time ran out.
    """
    return _any_ended(processes, timeout * 1000)


def _any_ended(processes: Iterable[WorkerProcess], milliseconds: float | None) -> bool:
    poll = select.poll()
    for process in processes:
        poll.register(process.sentinel, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _parent_of(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[1])
