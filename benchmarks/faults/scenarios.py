"""What the host of each fault does: a program that uses a pool, as many do.

A host tells the observer what became of its jobs, whether the pool can still be used, and how far
it has got. What the observer does to it from outside is in `catalogue`.
"""

from __future__ import annotations

import collections
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import jobs
from events import folder, phase, tell
from pools import Subject, collect

MEGABYTE = 1_000_000
VICTIM = 5
"""The number of the job that the fault hits."""

CLOSING = 6.0
"""Seconds to close a pool, and to end the interpreter."""

AFTERWARDS = 4.0
"""Seconds for one job after the fault."""

Calls = Iterable[tuple[Any, ...]]
"""A function and its arguments for each job; the first argument is the result it should have."""

limit = 10.0
"""Seconds in which all jobs should have ended; the observer sets it."""


# ---- The parts of a host ------------------------------------------------------------------------


def warm_up(subject: Subject) -> None:
    """Run some jobs, so that all workers are up."""
    phase("warming up", limit)
    for outcome in collect(subject, [subject.submit(jobs.same, x) for x in range(50)], limit):
        outcome.unwrap()


def submit(subject: Subject, calls: Calls) -> list[Any]:
    """Submit the jobs."""
    phase("submit", limit)
    return [subject.attempt(*call) for call in calls]


def account(subject: Subject, handles: Sequence[Any], begun: float) -> None:
    """Wait for the jobs, and tell what became of them."""
    phase("results", limit + 3)
    kinds: dict[str, int] = collections.Counter()
    errors: dict[str, int] = collections.Counter()
    wrong = 0
    for x, outcome in enumerate(collect(subject, handles, limit)):
        kinds[outcome.kind] += 1
        if outcome.kind == "result":
            wrong += outcome.value != x
        elif outcome.kind != "unended":
            errors[type(outcome.value).__name__] += 1
    tell(
        "jobs",
        results=kinds["result"] - wrong,
        wrong=wrong,
        errors=errors,
        refused=kinds["refused"],
        unended=kinds["unended"],
        seconds=time.monotonic() - begun,
    )


def run(subject: Subject, calls: Calls) -> None:
    """Submit the jobs, wait, tell."""
    begun = time.monotonic()
    account(subject, submit(subject, calls), begun)


def ask_again(subject: Subject) -> None:
    """Tell whether the pool still runs a job."""
    phase("a job afterwards", AFTERWARDS + 3)
    try:
        subject.renew()
        outcome = subject.outcome(subject.attempt(jobs.same, 1), AFTERWARDS)
    except Exception as error:
        tell("after", outcome=type(error).__name__)
        return
    works = outcome.kind == "result" and outcome.value == 1
    tell("after", outcome="works" if works else "hangs" if outcome.kind == "unended" else "broken")


def close(subject: Subject, error: BaseException | None = None) -> None:
    """Leave the pool's ``with`` statement, and then the program."""
    phase("close", CLOSING)
    try:
        subject.close(error)
    except Exception as failure:
        tell("close failed", by=type(failure).__name__)
    phase("exit", CLOSING)


def through(subject: Subject, calls: Calls) -> None:
    """Be the usual host: warm up, run the jobs, run one more, close."""
    warm_up(subject)
    run(subject, calls)
    ask_again(subject)
    close(subject)


def each(function: Callable[..., Any], count: int, *arguments: Any) -> Calls:
    """Call a function with the numbers up to `count`, and further arguments."""
    return ((function, x, *arguments) for x in range(count))


def wait_for_files(names: Iterable[str], seconds: float = 5.0) -> bool:
    """Wait until jobs have made these files. Returns whether they have."""
    deadline = time.monotonic() + seconds
    waiting = set(names)
    while waiting and time.monotonic() < deadline:
        waiting = {name for name in waiting if not (folder() / name).exists()}
        time.sleep(0.002)
    return not waiting


def ended(pid: int, seconds: float) -> bool:
    """Wait for the end of a process. Returns whether it has ended."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            return bool(select.select([descriptor], [], [], seconds)[0])
        finally:
            os.close(descriptor)
    return True


# ---- Workers die --------------------------------------------------------------------------------


def one_worker_ends(subject: Subject, end: str) -> None:
    """One of 100 jobs ends its worker."""
    through(subject, each(jobs.end_at, 100, end, VICTIM))


def many_workers_end(subject: Subject) -> None:
    """Every 20th of 1000 jobs kills its worker."""
    through(subject, each(jobs.end_every, 1000, "kill", 20))


def worker_is_stopped(subject: Subject) -> None:
    """One of 100 jobs stops its worker, which goes on a second later."""
    warm_up(subject)
    begun = time.monotonic()
    handles = submit(subject, each(jobs.end_at, 100, "stop", VICTIM))
    phase("the stop", limit)
    if wait_for_files(["stopped"]):
        time.sleep(1)
        meanwhile = collect(subject, handles, 0)
        tell("meanwhile", results=sum(outcome.kind == "result" for outcome in meanwhile))
        with suppress(ProcessLookupError):
            os.kill(int((folder() / "stopped").read_text()), signal.SIGCONT)
    account(subject, handles, begun)
    ask_again(subject)
    close(subject)


def idle_workers_die(subject: Subject) -> None:
    """All workers are killed while they have nothing to do; then there are 20 jobs."""
    warm_up(subject)
    handles = submit(subject, ((jobs.where, 0.1) for _ in range(8)))
    pids = {outcome.unwrap() for outcome in collect(subject, handles, limit)}
    time.sleep(0.2)  # whatever a worker does after its last job, it has done
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        ended(pid, 5)
    run(subject, each(jobs.same, 20))
    ask_again(subject)
    close(subject)


def worker_dies_in_map(subject: Subject) -> None:
    """A worker is killed in a map of 1000 items, in chunks of 50."""
    warm_up(subject)
    phase("map", limit)
    begun = time.monotonic()
    values: list[int] = []
    errors: dict[str, int] = collections.Counter()
    try:
        iterator = subject.map(jobs.die_at_500, range(1000), 50)
        while True:
            try:
                values.append(next(iterator))
            except StopIteration:
                break
            except Exception as error:  # pebble's goes on after one
                errors[type(error).__name__] += 1
    except Exception as error:
        errors[type(error).__name__] += 1
    seconds = time.monotonic() - begun
    wrong = len(values) if values != sorted(set(values) & set(range(1000))) else 0
    right = len(values) - wrong
    tell("jobs", results=right, wrong=wrong, errors=errors, unended=0, seconds=seconds)
    ask_again(subject)
    close(subject)


def worker_dies_with_large_argument(subject: Subject) -> None:
    """A worker is killed while it has an argument of 100 MB; there are nine other jobs."""
    large = bytes(100 * MEGABYTE)
    through(subject, ((jobs.die_with_data, x, large if x == VICTIM else b"") for x in range(10)))


def job_is_late(subject: Subject) -> None:
    """One of 20 jobs that may run for 0.5 s does not end."""
    warm_up(subject)
    begun = time.monotonic()
    phase("submit", limit)
    calls = each(jobs.never_end_at, 20, VICTIM)
    handles = [subject.submit_within(0.5, *call) for call in calls]
    if None in handles:
        tell("not offered", cell="has no deadlines")
    else:
        account(subject, handles, begun)
        ask_again(subject)
    close(subject)


def helper_dies(subject: Subject) -> None:
    """The process that manages the workers is killed in a run of 20 jobs."""
    helper = subject.helper()
    if helper is None:
        tell("not offered", cell="is a thread of the host")
        close(subject)
        return
    warm_up(subject)
    begun = time.monotonic()
    handles = submit(subject, each(jobs.hold, 20, 0.2))
    wait_for_files(["started-0", "started-1"])
    os.kill(helper, signal.SIGKILL)
    account(subject, handles, begun)
    ask_again(subject)
    close(subject)


# ---- What can't be sent -------------------------------------------------------------------------


def one_can_not_be_sent(subject: Subject, function: Callable[..., Any]) -> None:
    """One of 20 jobs returns or raises what can't be sent."""
    through(subject, each(function, 20, VICTIM))


def argument_can_not_be_sent(subject: Subject) -> None:
    """One of 20 arguments is a lock."""
    arguments: list[Any] = list(range(20))
    arguments[VICTIM] = threading.Lock()
    through(subject, ((jobs.same, argument) for argument in arguments))


# ---- The host -----------------------------------------------------------------------------------


def host_is_busy(subject: Subject) -> None:
    """Wait for 20 jobs that take an hour each."""
    warm_up(subject)
    handles = submit(subject, each(jobs.hold_an_hour, 20))
    phase("results", limit)
    for outcome in collect(subject, handles, 3600):
        outcome.unwrap()


def host_is_idle(subject: Subject) -> None:
    """Have a pool without jobs."""
    warm_up(subject)
    phase("idle", limit)
    time.sleep(0.2)  # whatever a worker does after its last job, it has done
    tell("idle")
    time.sleep(3600)


def host_submits(subject: Subject) -> None:
    """Submit jobs with arguments of 1 MB, for ever."""
    warm_up(subject)
    phase("submit", limit)
    data = bytes(MEGABYTE)
    handles = collections.deque([subject.submit(len, data) for _ in range(50)])
    tell("submitting")
    while True:
        subject.outcome(handles.popleft(), None).unwrap()
        handles.append(subject.submit(len, data))


def host_is_interrupted(subject: Subject, wait: Callable[[Subject], Any]) -> None:
    """Press Ctrl-C while the host waits."""
    warm_up(subject)
    phase("Ctrl-C", limit)
    reason: BaseException | None = None
    try:
        wait(subject)
    except BaseException as error:  # perhaps a worker's, which may come first
        reason = error
        tell("interrupted", by=type(error).__name__)
    close(subject, reason)


def wait_for_map(subject: Subject) -> list[Any]:
    """Map over 20 jobs that take an hour each."""
    return list(subject.map(jobs.hold_an_hour, range(20), 1))


def wait_for_result(subject: Subject) -> Any:
    """Submit as many jobs of an hour as there are workers, and wait for the first result."""
    first, _ = [subject.submit(jobs.hold_an_hour, x) for x in range(2)]
    return subject.outcome(first, 3600).unwrap()


def host_exits(subject: Subject) -> None:
    """Call `sys.exit` and leave the pool open; all jobs have ended."""
    warm_up(subject)
    phase("exit", CLOSING)
    tell("leaving")
    sys.exit(3)


def host_exits_while_jobs_run(subject: Subject) -> None:
    """Come to the end of the program while two of four jobs run."""
    warm_up(subject)
    submit(subject, each(jobs.hold, 4, 0.5))
    wait_for_files(["started-0", "started-1"])
    phase("exit", CLOSING)
    tell("leaving")


def host_forks(subject: Subject) -> None:
    """Fork; the child exits as programs do; the host goes on with 20 jobs."""
    warm_up(subject)
    phase("fork", 8)
    child = os.fork()
    if child == 0:
        sys.exit(0)
    if ended(child, 5):
        tell("child", code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    else:
        tell("child", code=None)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    run(subject, each(jobs.same, 20))
    ask_again(subject)
    close(subject)


def jobs_use_their_pool(subject: Subject) -> None:
    """Four jobs give two jobs each to the pool that they run in, and wait for them."""
    through(subject, each(jobs.nested, 4, subject.name))


def initializer_fails(subject: Subject) -> None:
    """The initializer raises; there are 10 jobs."""
    run(subject, each(jobs.same, 10))
    ask_again(subject)
    close(subject)


def jobs_are_plain(subject: Subject) -> None:
    """Run 20 jobs."""
    through(subject, each(jobs.same, 20))


# ---- How the pool is made -----------------------------------------------------------------------


def plainly(subject: Subject) -> None:
    """Make the pool in the main thread."""
    subject.open()


def with_failing_initializer(subject: Subject) -> None:
    """Make the pool with an initializer that raises."""
    subject.open(jobs.fail)


def in_a_thread(subject: Subject) -> None:
    """Make the pool, and let the workers start, in a thread that has ended then."""

    def make() -> None:
        subject.open()
        warm_up(subject)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
