"""What the tests need to look at processes from outside, and to hold jobs at a certain point."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MIB = 1 << 20


class Gate:
    """Holds jobs until the test opens it. Make it before the pool, so that workers inherit it."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def wait(self) -> None:
        """In a job: wait until the test has opened the gate once more."""
        os.read(self.read_end, 1)

    def open(self, times: int = 1) -> None:
        os.write(self.write_end, b"x" * times)

    def wait_for(self, timeout: float = 20) -> None:
        """In the test: wait until a job has opened the gate."""
        assert select.select([self.read_end], [], [], timeout)[0], "no job has come by"
        os.read(self.read_end, 1)

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


def pass_gates(started: Gate, held: Gate, result: object = None) -> object:
    """A job: say that it has started, wait, return `result`."""
    started.open()
    held.wait()
    return result


def check_change(
    call: Callable[[], Any], before: Any, change: Callable[[], Any], after: Any
) -> None:
    """The pool gives `before`, and `after` from the moment of the change on, cached or not."""
    assert [call() for _ in range(3)] == [before] * 3
    change()
    assert [call() for _ in range(3)] == [after] * 3


# ---- Processes ----------------------------------------------------------------------------------


def stat_of(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, or None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than a zombie."""
    fields = stat_of(pid)
    return fields is not None and fields[0] not in "ZX"


def cpu_seconds(pid: int) -> float:
    fields = stat_of(pid)
    assert fields is not None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> set[int]:
    """The processes that `pid` has started, and those that they have started, as of now."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_of(int(entry))) is not None:
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in parents.get(todo.pop(), ()):
            found.add(child)
            todo.append(child)
    return found


def remaining_after(pids: Iterable[int], timeout: float) -> set[int]:
    """Wait until these processes have ended; which have not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    remaining = set()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0] and is_alive(pid):
                remaining.add(pid)
        finally:
            os.close(descriptor)
    return remaining


def until(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it has not come about in time"
        select.select([], [], [], 0.002)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("\n")


# ---- Programs -----------------------------------------------------------------------------------


def program(path: Path, code: str) -> Path:
    """Write a program, whose code may be indented."""
    path.write_text(textwrap.dedent(code))
    return path


def start(path: Path, *args: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(path), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        **options,  # type: ignore[call-overload]
    )


def run(path: Path, *args: str, timeout: float = 40, **options: object) -> str:
    """Run a program that must succeed and be silent on stderr; what it printed."""
    process = start(path, *args, **options)
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert errors == ""
    return output
