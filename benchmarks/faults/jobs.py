"""What the workers run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pools
from events import folder, tell


def same(x: Any) -> Any:
    """Return the argument."""
    return x


# ---- Workers that die ---------------------------------------------------------------------------


def _stop() -> None:
    # Whoever sees it can read it.
    (folder() / "stopping").write_text(str(os.getpid()))
    (folder() / "stopping").rename(folder() / "stopped")
    os.kill(os.getpid(), signal.SIGSTOP)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    ctypes.string_at(0)


def _exit() -> None:
    os._exit(3)


def _sys_exit() -> None:
    sys.exit(3)


ENDS: dict[str, Callable[[], None]] = {
    "kill": _kill,
    "segfault": _segfault,
    "exit": _exit,
    "sys.exit": _sys_exit,
    "stop": _stop,
}


def end_at(x: int, end: str, victim: int) -> int:
    """Return `x`; but end this process, in the way that `ENDS` names, if it is the victim."""
    if x == victim:
        ENDS[end]()
    return x


def end_every(x: int, end: str, period: int) -> int:
    """Return `x`; but end this process if it is the last of each `period` numbers."""
    end_at(x % period, end, period - 1)
    return x


def die_at_500(x: int) -> int:
    """Return `x`; but kill this process at item 500."""
    return end_at(x, "kill", 500)


def die_with_data(x: int, data: bytes) -> int:
    """Return `x`; but kill this process if there is any data."""
    if data:
        _kill()
    return x


def where(seconds: float) -> int:
    """Return in which process this is, after a time in which another worker takes a job, too."""
    time.sleep(seconds)
    return os.getpid()


# ---- Jobs that take long ------------------------------------------------------------------------


def hold(x: int, seconds: float) -> int:
    """Tell the observer, and whoever looks into the folder, that it has begun; take long."""
    (folder() / f"started-{x}").touch()
    tell("started")
    time.sleep(seconds)
    tell("finished")
    return x


def hold_an_hour(x: int) -> int:
    """Take longer than anybody waits here."""
    return hold(x, 3600)


def never_end_at(x: int, victim: int) -> int:
    """Return `x`; but run for ever if it is the victim."""
    while x == victim:
        pass
    return x


# ---- What can't be sent -------------------------------------------------------------------------


class TwoArguments(Exception):
    """As many programs define them: pickle would call it with the one argument of its base."""

    def __init__(self, place: str, number: int) -> None:
        super().__init__(f"{number} in {place}")


def _fail_to_load() -> None:
    raise ValueError("it can't be loaded")


class Unloadable:
    """Can be pickled, but not be loaded again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _fail_to_load, ()


def raise_two_arguments(x: int, victim: int) -> int:
    """Return `x`; but raise an exception that pickle can't make again."""
    if x == victim:
        raise TwoArguments("the job", x)
    return x


def raise_with_lock(x: int, victim: int) -> int:
    """Return `x`; but raise an exception that has a lock among its arguments."""
    if x == victim:
        raise ValueError(threading.Lock())
    return x


def return_lock(x: int, victim: int) -> Any:
    """Return `x`; but a lock in the place of the victim's."""
    return threading.Lock() if x == victim else x


def return_unloadable(x: int, victim: int) -> Any:
    """Return `x`; but what can't be loaded in the place of the victim's."""
    return Unloadable() if x == victim else x


# ---- Others -------------------------------------------------------------------------------------


def nested(x: int, name: str) -> int:
    """Let the same pool run two more jobs, and wait for them."""
    pool = pools.in_worker(name)
    handles = [pool.submit(same, x), pool.submit(same, 0)]
    return sum(pool.outcome(handle, None).unwrap() for handle in handles)


def fail() -> None:
    """As an initializer: raise."""
    raise ValueError("the initializer fails")
