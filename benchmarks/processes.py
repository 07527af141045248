"""What the kernel says about processes: children, processor time, memory, mappings. Linux."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def parent_of(pid: int) -> int | None:
    """Return the parent of a process, None if there is no such process any more."""
    try:
        status = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may contain anything; the state and the parent follow it.
    return int(status.rpartition(")")[2].split()[1])


def descendants(pid: int) -> list[int]:
    """List the processes that descend from `pid`, without itself."""
    parents = {
        int(entry.name): parent_of(int(entry.name))
        for entry in PROC.iterdir()
        if entry.name.isdigit()
    }
    found: list[int] = []
    waiting = [pid]
    while waiting:
        ancestor = waiting.pop()
        children = [child for child, parent in parents.items() if parent == ancestor]
        found += children
        waiting += children
    return sorted(found)


def processor_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far.

    From ``schedstat``, in nanoseconds; where the kernel was built without it from ``stat``, in
    hundredths of a second.
    """
    try:
        threads = list((PROC / str(pid) / "task").iterdir())
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    except FileNotFoundError:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_bytes(pid: int) -> int:
    """Anonymous memory of a process: its heap and stacks, not files, not shared memory."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def shared_bytes() -> int:
    """Memory committed by the shared segments of this process's pools."""
    total = 0
    for descriptor in (PROC / "self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
            if "libpool" in target and target.endswith("(deleted)"):
                total += os.stat(descriptor).st_blocks * 512
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return total


def descriptors() -> int:
    """Count the open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) - 1  # the listing has one open itself


def mappings() -> int:
    """Count the memory mappings of this process."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        return sum(1 for _ in lines)
