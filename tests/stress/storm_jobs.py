"""What the workers run in the kill storm, and what has to come of it."""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import libpool
from libpool import _core

MIB = 1 << 20
EXIT_CODE = 7
RETRIES = 3
NUMBERS = 1 << 22
"""Numbers of jobs; more come round again."""

WEIGHTS = {
    "tiny": 40,
    "large": 8,
    "nested": 6,
    "raises": 6,
    "retried": 8,
    "limited": 8,
    "late": 3,
    "exits": 4,
}

ENDLESS = ("late", "exits")
"""Kinds that can't have a result."""

MORTAL = ("exits", "retried", "nested")
"""Kinds whose worker may have ended itself: a nested one waits while its worker runs others."""

# Shared by all processes: how often each job has begun, and which process each worker is.
_runs = mmap.mmap(-1, NUMBERS)
_ready = mmap.mmap(-1, 4096)


def _began(number: int) -> None:
    # Only one process at a time runs a job, unless what this is to find out is so.
    _runs[number] = min(255, _runs[number] + 1)


def runs_of(number: int) -> int:
    return _runs[number]


def most_runs() -> int:
    return max(_runs[:])


def begin_worker(first: int) -> None:
    """The initializer: from here on this worker may be sent signals that others would dump on."""
    faulthandler.disable()
    place = (first + _core.worker_index()) * 4
    _ready[place : place + 4] = os.getpid().to_bytes(4, "little")


def ready_pid(place: int) -> int:
    """The process that has become ready last in this place."""
    return int.from_bytes(_ready[place * 4 : place * 4 + 4], "little")


def from_outside(exitcode: int | None) -> bool:
    """Whether it is a death that the killer, a time limit or kill() brings about."""
    return exitcode in (-signal.SIGKILL, -signal.SIGSEGV)


# ---- Jobs ---------------------------------------------------------------------------------------


def tiny(number: int, value: int) -> int:
    _began(number)
    return value * 3 + 1


def retried(number: int, value: int) -> int:
    """Ends its worker as often as the last two bits of its value say."""
    if _runs[number] < value % (RETRIES + 1):
        _began(number)
        os._exit(EXIT_CODE)
    return tiny(number, value)


def large(number: int, data: bytes) -> bytes:
    _began(number)
    return data[::-1]


def raises(number: int, value: int) -> None:
    _began(number)
    raise ValueError(value)


def late(number: int, _: int) -> None:
    _began(number)
    time.sleep(3600)


def exits(number: int, _: int) -> None:
    _began(number)
    os._exit(EXIT_CODE)


def nested(number: int, value: int) -> int:
    """Submits to its own pool, and waits."""
    _began(number)
    pool = libpool.current()
    assert pool is not None
    futures = [pool.submit(square, value % 1000 + i) for i in range(3)]
    inner = pool.submit(_measure, bytes(value % (MIB // 8)))
    return sum(future.result() for future in futures) + inner.result()


def square(value: int) -> int:
    return value * value


def _measure(data: bytes) -> int:
    return len(data)


def make(kind: str, value: int) -> tuple[Callable[..., Any], Any, object]:
    """A function, its argument, and its result (or the argument of the exception)."""
    if kind == "large":
        data = value.to_bytes(4, "little") * (MIB // 4)
        return large, data, data[::-1]
    if kind == "nested":
        start = value % 1000
        total = sum((start + i) ** 2 for i in range(3))
        return nested, value, total + value % (MIB // 8)
    if kind in ("tiny", "retried", "limited"):
        return retried if kind == "retried" else tiny, value, value * 3 + 1
    return {"raises": raises, "late": late, "exits": exits}[kind], value, value
