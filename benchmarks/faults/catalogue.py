"""The faults: what the host does, what is done to it from outside, and what is said about it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jobs
import scenarios
from pools import Subject

Host = Callable[[Subject], None]


# ---- What is done to a host from outside --------------------------------------------------------


def kill(host: int) -> None:
    """Kill the host, and no other process."""
    os.kill(host, signal.SIGKILL)


def stop_and_kill(host: int) -> None:
    """Kill the host when it has been stopped."""
    os.kill(host, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while not _is_stopped(host) and time.monotonic() < deadline:
        time.sleep(0.001)
    kill(host)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def terminate(host: int) -> None:
    """Ask the host, and no other process, to end."""
    os.kill(host, signal.SIGTERM)


def interrupt(host: int) -> None:
    """Do what Ctrl-C does in a terminal: interrupt all processes of the host's group."""
    os.killpg(host, signal.SIGINT)


# ---- The catalogue ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes
    ----------
    name : str
        For the command line.
    title : str
        The row's heading.
    meaning : str
        What is done, for the list below the table.
    host : callable
        What the host does with the pool that it has opened.
    inject : callable, optional
        What is done from outside, to the process with the given number.
    when : (str, int)
        It is done after so many events of this name.
    open : callable
        How the host opens the pool.
    """

    name: str
    title: str
    meaning: str
    host: Host
    inject: Callable[[int], None] | None = None
    when: tuple[str, int] = ("started", 2)
    open: Host = scenarios.plainly


def _ends(end: str) -> Host:
    return partial(scenarios.one_worker_ends, end=end)


def _unsendable(function: Callable[..., object]) -> Host:
    return partial(scenarios.one_can_not_be_sent, function=function)


WORKERS_DIE = (
    Fault(
        "kill",
        "a worker is killed",
        "One of 100 short jobs sends SIGKILL to its own process.",
        _ends("kill"),
    ),
    Fault(
        "kill-many",
        "50 workers are killed",
        "Every 20th of 1000 short jobs sends SIGKILL to its own process.",
        scenarios.many_workers_end,
    ),
    Fault(
        "kill-map",
        "a worker is killed in a map",
        "A map of 1000 items in chunks of 50; item 500 kills its worker. A `map` that returns a "
        "list has none to return then, as after any other error.",
        scenarios.worker_dies_in_map,
    ),
    Fault(
        "kill-idle",
        "idle workers are killed",
        "Both workers are killed while they have nothing to do. Then 20 jobs are submitted.",
        scenarios.idle_workers_die,
    ),
    Fault(
        "kill-large",
        "a worker is killed that has a large argument",
        "As the kernel does when memory runs out: one of ten jobs is killed while it has an "
        "argument of 100 MB.",
        scenarios.worker_dies_with_large_argument,
    ),
    Fault(
        "segfault",
        "a worker crashes",
        "One of 100 short jobs reads from address 0.",
        _ends("segfault"),
    ),
    Fault("exit", "`os._exit(3)` in a job", "One of 100 short jobs calls it.", _ends("exit")),
    Fault(
        "sys-exit", "`sys.exit(3)` in a job", "One of 100 short jobs calls it.", _ends("sys.exit")
    ),
    Fault(
        "stop",
        "a worker is stopped for a second",
        "One of 100 short jobs sends SIGSTOP to its own process; a second later it gets SIGCONT.",
        scenarios.worker_is_stopped,
    ),
    Fault(
        "deadline",
        "a job with a deadline does not end",
        "One of 20 short jobs, each of which may run for 0.5 s, loops for ever. "
        "`options(timeout=)` in libpool, `schedule(timeout=)` in pebble.",
        scenarios.job_is_late,
    ),
    Fault(
        "initializer",
        "the initializer raises",
        "The pool is made with an initializer that raises. Then 10 jobs are submitted.",
        scenarios.initializer_fails,
        open=scenarios.with_failing_initializer,
    ),
    Fault(
        "helper",
        "the process that manages the workers is killed",
        "While two of 20 jobs of 0.2 s run. Other pools than libpool manage their workers in a "
        "thread of the host.",
        scenarios.helper_dies,
    ),
)

CAN_NOT_BE_SENT = (
    Fault(
        "argument",
        "an argument that can't be pickled",
        "One of 20 jobs gets a lock.",
        scenarios.argument_can_not_be_sent,
    ),
    Fault(
        "result",
        "a result that can't be pickled",
        "One of 20 jobs returns a lock.",
        _unsendable(jobs.return_lock),
    ),
    Fault(
        "result-load",
        "a result that can't be loaded",
        "One of 20 jobs returns an object whose pickle raises when it is loaded.",
        _unsendable(jobs.return_unloadable),
    ),
    Fault(
        "exception",
        "an exception that can't be pickled",
        "One of 20 jobs raises `ValueError(lock)`.",
        _unsendable(jobs.raise_with_lock),
    ),
    Fault(
        "exception-load",
        "an exception that can't be loaded",
        "One of 20 jobs raises an exception whose `__init__` takes two arguments and gives one to "
        "its base class, so that its pickle raises when it is loaded.",
        _unsendable(jobs.raise_two_arguments),
    ),
)

HOST_DIES = (
    Fault(
        "host-kill",
        "the host is killed while jobs run",
        "SIGKILL to the host, and to nobody else, while two of 20 jobs of an hour run.",
        scenarios.host_is_busy,
        kill,
    ),
    Fault(
        "host-kill-idle",
        "the host is killed while the pool is idle",
        "SIGKILL to the host, and to nobody else, when all jobs have ended.",
        scenarios.host_is_idle,
        kill,
        when=("idle", 1),
    ),
    Fault(
        "host-kill-submit",
        "the host is killed while it submits",
        "SIGKILL to the host, and to nobody else, while it submits jobs with arguments of 1 MB.",
        scenarios.host_submits,
        kill,
        when=("submitting", 1),
    ),
    Fault(
        "host-stop-kill",
        "the host is stopped, then killed",
        "SIGSTOP, then SIGKILL, to the host, while two of 20 jobs of an hour run.",
        scenarios.host_is_busy,
        stop_and_kill,
    ),
    Fault(
        "host-term",
        "the host gets SIGTERM",
        "SIGTERM to the host, which has no handler for it, while two of 20 jobs of an hour run.",
        scenarios.host_is_busy,
        terminate,
    ),
    Fault(
        "ctrl-c-map",
        "Ctrl-C in a map",
        "SIGINT to the host and all its processes while it maps over 20 jobs of an hour. The host "
        "catches KeyboardInterrupt, leaves the pool's `with` statement and ends.",
        partial(scenarios.host_is_interrupted, wait=scenarios.wait_for_map),
        interrupt,
    ),
    Fault(
        "ctrl-c-result",
        "Ctrl-C while waiting for a result",
        "The same while two jobs of an hour run, none waits, and the host wants the result of one.",
        partial(scenarios.host_is_interrupted, wait=scenarios.wait_for_result),
        interrupt,
    ),
)

PROGRAM = (
    Fault(
        "exit-open",
        "`sys.exit(3)` with the pool open",
        "All jobs have ended, nobody has closed the pool.",
        scenarios.host_exits,
    ),
    Fault(
        "exit-running",
        "the program ends while jobs run",
        "Two of four jobs of 0.5 s run, nobody has closed the pool. `multiprocessing.Pool` and its "
        "imitations terminate; executors finish what was submitted.",
        scenarios.host_exits_while_jobs_run,
    ),
    Fault(
        "fork",
        "`os.fork()` with the pool open",
        "The child calls `sys.exit(0)`. Then the host submits 20 jobs.",
        scenarios.host_forks,
    ),
    Fault(
        "thread",
        "the pool was made in a thread that has ended",
        "Then 20 jobs are submitted.",
        scenarios.jobs_are_plain,
        open=scenarios.in_a_thread,
    ),
    Fault(
        "nested",
        "jobs use the pool that they run in",
        "Four jobs in two workers submit two jobs each and wait for them. In libpool through "
        "`libpool.current()`, elsewhere through the host's object, where workers have it.",
        scenarios.jobs_use_their_pool,
    ),
)

GROUPS: dict[str, tuple[Fault, ...]] = {
    "Workers": WORKERS_DIE,
    "What can't be sent": CAN_NOT_BE_SENT,
    "The host": HOST_DIES,
    "The program": PROGRAM,
}

FAULTS: dict[str, Fault] = {fault.name: fault for group in GROUPS.values() for fault in group}
