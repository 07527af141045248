"""What to do when something hangs: show where every process is, and end."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

HANG = 60.0
"""Seconds after which a job that nobody has kept from ending counts as hung."""


def descendants(pid: int) -> set[int]:
    """The processes that `pid` has started, and those that they have; zombies are reaped."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found.update(children)
            todo += children
    for child in set(found):
        try:
            if os.waitpid(child, os.WNOHANG)[0]:
                found.discard(child)
        except ChildProcessError:
            pass  # somebody else's
    return found


class dump_stacks:  # noqa: N801 -- used like a function that has to be prepared
    """Shows the stacks of this process and of all that it has started."""

    @staticmethod
    def prepare() -> None:
        """Before the pools are made, so that workers show theirs on SIGUSR1, too."""
        faulthandler.register(signal.SIGUSR1, all_threads=True)

    def __init__(self) -> None:
        faulthandler.dump_traceback(all_threads=True)
        processes = sorted(descendants(os.getpid()))
        for pid in processes:
            if _catches_usr1(pid):
                print(f"\nProcess {pid}:", file=sys.stderr, flush=True)
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGUSR1)
                time.sleep(0.2)  # or the stacks would be mixed up
        if shutil.which("gdb"):
            for pid in (os.getpid(), *processes):
                command = ["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 20"]
                subprocess.run(command, stdout=sys.stderr, stderr=subprocess.DEVNULL, timeout=60)


def _catches_usr1(pid: int) -> bool:
    """Not so a supervisor, which runs no Python."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGUSR1 - 1)


def fail_hard(text: str) -> NoReturn:
    """Say what hangs and where, and end this process, from any thread."""
    print(f"WRONG: {text}", flush=True)
    dump_stacks()
    os._exit(1)
