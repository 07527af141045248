"""The thread that kills workers from outside."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import storm_jobs as jobs

HOW = {signal.SIGKILL: 6, signal.SIGSEGV: 3, signal.SIGSTOP: 2}


class Killer(threading.Thread):
    """Sends signals to random workers of the pools until it is stopped."""

    def __init__(self, pools: list[Any], seed: int, rate: float) -> None:
        super().__init__(name="killer")
        self.pools = pools
        self.chance = random.Random(seed)
        self.rate = rate
        self.kills: Counter[str] = Counter()
        self.replaced = 0
        self._end = threading.Event()
        self._stopped: list[tuple[float, int]] = []  # when to go on, and a pidfd

    def run(self) -> None:
        while not self._end.wait(self.chance.random() * 2 / self.rate):
            self._wake(time.monotonic())
            place = self.chance.randrange(len(self.pools))
            self._strike(self.pools[place], place * 2)
        self._wake(float("inf"))

    def stop(self) -> None:
        self._end.set()
        self.join()
        self.replaced = sum(pool.stats()["workers_started"] for pool in self.pools)
        self.pools = []  # for them to end when nobody else has them

    def _strike(self, pool: Any, first: int) -> None:
        pid = self.chance.choice(pool.worker_pids() or [0])  # none while all are being replaced
        how = self.chance.choices(list(HOW), list(HOW.values()))[0]
        ready = pid and pid in (jobs.ready_pid(first), jobs.ready_pid(first + 1))
        # One that has not begun is spared as a rule: a pool whose workers never do breaks.
        if not pid or (not ready and (how != signal.SIGKILL or self.chance.random() < 0.8)):
            return
        pidfd = open_child(pid, pool.supervisor_pid)
        if pidfd is None:
            return
        try:
            signal.pidfd_send_signal(pidfd, how)
        except ProcessLookupError:
            os.close(pidfd)
            return
        self.kills[how.name] += 1
        if how == signal.SIGSTOP:
            self._stopped.append((time.monotonic() + self.chance.random() * 0.02, pidfd))
        else:
            os.close(pidfd)

    def _wake(self, now: float) -> None:
        for due, pidfd in [entry for entry in self._stopped if entry[0] <= now]:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            except ProcessLookupError:
                pass  # killed meanwhile
            os.close(pidfd)
            self._stopped.remove((due, pidfd))


def open_child(pid: int, parent: int) -> int | None:
    """A pidfd of this process if it is `parent`'s child, and not another that got its number."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        fields = []
    if len(fields) > 1 and int(fields[1]) == parent and parent:
        return pidfd
    os.close(pidfd)
    return None
