"""Every test has a time-out that shows what all processes were doing, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support")

from support import (  # noqa: E402
    Gate,
    descendants,
    is_alive,
    open_descriptors,
    remaining_after,
)

from libpool import Executor, Pool  # noqa: E402

TIMEOUT = 60
PR_SET_CHILD_SUBREAPER = 36

# Orphans come to this process, so that none escapes notice.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

# A shell ignores it for what it runs in the background, and programs inherit that: no Ctrl-C then.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Also in tests with threads, where it is not the default. test_start_methods.py has the others.
multiprocessing.set_start_method("fork")

_stderr = os.fdopen(os.dup(2), "w")  # pytest puts something else in the place of descriptor 2
faulthandler.register(signal.SIGUSR1, file=_stderr, all_threads=True)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than some seconds")


def pytest_unconfigure() -> None:
    faulthandler.unregister(signal.SIGUSR1)
    _stderr.close()


# ---- Time-outs ----------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> bool:
    """In the place of pytest-timeout's own timer: show the stacks of the workers as well."""
    limit: float = settings.timeout  # type: ignore[attr-defined]

    def show_and_fail(*_: object) -> None:
        print(f"\n{item.nodeid} took more than {limit} s", file=_stderr, flush=True)
        for pid in filter(catches_usr1, (*descendants(os.getpid()), os.getpid())):
            print(f"\nProcess {pid}:", file=_stderr, flush=True)
            os.kill(pid, signal.SIGUSR1)
            time.sleep(0.1)  # or the stacks would be mixed up
        pytest.fail(f"took more than {limit} s", pytrace=True)

    signal.signal(signal.SIGALRM, show_and_fail)
    signal.setitimer(signal.ITIMER_REAL, limit)
    # For a test that hangs without ever looking at signals.
    faulthandler.dump_traceback_later(limit + 20, exit=True, file=_stderr)
    return True


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()
    return True


def catches_usr1(pid: int) -> bool:
    """Whether this is a process that shows its stacks: not a supervisor, which runs no Python."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << signal.SIGUSR1 - 1)


# ---- Nothing stays behind -----------------------------------------------------------------------


def left_behind() -> list[str]:
    """Reap zombies that have come to this process, and tell what else there is."""
    gc.collect()
    children = descendants(os.getpid())
    remaining = remaining_after(children, 5)
    for pid in children - remaining:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
    shared = [str(path) for path in Path("/dev/shm").glob("libpool*")]
    return [f"process {pid}" for pid in remaining if is_alive(pid)] + shared


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    assert left_behind() == []


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_descriptors] = open_descriptors()


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = left_behind()
    more = open_descriptors() - session.config.stash[_descriptors]
    if more > 0:
        found.append(f"{more} descriptors")
    if found:
        print("\nThe tests left behind:", ", ".join(found), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_descriptors = pytest.StashKey[int]()


# ---- Fixtures -----------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as made:
        yield made


@pytest.fixture(params=[Pool, Executor])
def workers(request: pytest.FixtureRequest) -> Iterator[Pool | Executor]:
    """A pool of either kind, for what is the same in both."""
    made = request.param(2)
    yield made
    made.terminate()


@pytest.fixture
def gate() -> Iterator[Callable[[], Gate]]:
    """Makes gates. To be named before `pool` and the like, which inherit them."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def started(gate: Callable[[], Gate]) -> Gate:
    return gate()


@pytest.fixture
def held(gate: Callable[[], Gate]) -> Gate:
    return gate()
