"""A kill storm from Python: full pools, whose workers are killed at random, hundreds a second.

Each job that is submitted is accounted for: it has its right result, or one error that says what
happened and fits. At the end nothing is left over. Run it with `./dev stress`, or by itself:

    python tests/stress/storm.py --seconds 60 --seed 1

It prints what it did, and exits with 1 where anything was wrong; then also which seed it had.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import storm_jobs as jobs
from storm_killer import Killer
from storm_watch import HANG, descendants, dump_stacks, fail_hard

import libpool

PR_SET_CHILD_SUBREAPER = 36
WINDOW = 48
"""Jobs that a thread has in flight."""
LOOSE_BYTES = 4 << 20
"""Shared memory that a pool keeps for good once it has been busy: tables, and small blocks."""


@dataclass
class Job:
    """What was submitted, and what may come of it."""

    kind: str
    number: int
    future: Any
    expected: object
    retries: int = 0
    cancelled: bool = False
    killed: bool = False
    called_back: int = 0
    has_callback: bool = False


class Account:
    """What has become of all jobs; shared by the threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.submitted: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.numbers = 0
        self.wrong: list[str] = []

    def number(self, kind: str) -> int:
        with self.lock:
            self.submitted[kind] += 1
            self.numbers += 1
            return self.numbers % jobs.NUMBERS

    def settle(self, outcome: str) -> None:
        with self.lock:
            self.outcomes[outcome] += 1

    def complain(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)


class Submitter:
    """One thread of the host, with jobs of its own in flight."""

    def __init__(self, account: Account, workers: Any, seed: int) -> None:
        self.account = account
        self.chance = random.Random(seed)
        self.workers = workers
        self.views = {
            "late": workers.options(timeout=0.02),
            "retried": workers.options(retries=jobs.RETRIES),
            "limited": workers.options(timeout=600.0, retries=1),
        }
        self.flying: list[Job] = []

    def run(self, end: float) -> None:
        try:
            while time.monotonic() < end:
                self.step()
            while self.flying:
                self.collect(self.flying.pop())
        except BaseException as error:
            self.account.complain(f"a thread of the host ended with {error!r}")
            raise

    def step(self) -> None:
        if self.chance.random() < 0.02:
            self.map()
        elif self.chance.random() < 0.04:
            self.detach()
        else:
            self.flying.append(self.submit())
        job = self.chance.choice(self.flying) if self.flying else None
        if job and not job.killed and self.chance.random() < 0.05:
            job.cancelled |= job.future.cancel()  # of a killed one it may say True, too
        elif job and self.chance.random() < 0.03:
            job.killed |= job.future.kill()
        if len(self.flying) >= WINDOW:
            self.collect(self.flying.pop(self.chance.randrange(len(self.flying))))

    def submit(self) -> Job:
        kind = self.chance.choices(list(jobs.WEIGHTS), list(jobs.WEIGHTS.values()))[0]
        number = self.account.number(kind)
        value = self.chance.randrange(1 << 30)
        function, argument, expected = jobs.make(kind, value)
        view = self.views.get(kind, self.workers)
        retries = {"retried": jobs.RETRIES, "limited": 1}.get(kind, 0)
        job = Job(kind, number, view.submit(function, number, argument), expected, retries)
        if self.chance.random() < 0.2:
            job.has_callback = True
            job.future.add_done_callback(lambda _: setattr(job, "called_back", job.called_back + 1))
        return job

    def detach(self) -> None:
        """Nobody keeps the future: what comes of it shows only in how often it ran."""
        number = self.account.number("detached")
        self.workers.submit(jobs.tiny, number, number)
        self.account.settle("detached")

    def map(self) -> None:
        self.account.number("map")
        items = range(self.chance.randrange(40))
        try:
            if isinstance(self.workers, libpool.Pool):
                results = self.workers.map(jobs.square, items, chunksize=3)
            else:
                results = list(self.workers.map(jobs.square, items, timeout=HANG, chunksize=3))
        except libpool.WorkerDied as error:
            text = str(error.__notes__)
            if not jobs.from_outside(error.exitcode) or "are lost" not in text:
                self.account.complain(f"map: {error!r}, {text}")
            self.account.settle("map: WorkerDied")
        else:
            if results != [item * item for item in items]:
                self.account.complain(f"map: {results} for {items}")
            self.account.settle("map: results")

    def collect(self, job: Job) -> None:
        try:
            error = job.future.exception(HANG)
        except CancelledError as cancelled:
            error = cancelled
        except TimeoutError:
            fail_hard(f"job {job.number}, {job.kind}, hangs: {job.future}")
        complaint = check(job, error)
        if complaint:
            self.account.complain(f"job {job.number}, {job.kind}: {complaint}")
        self.account.settle("result" if error is None else type(error).__name__)
        if job.has_callback and not settled_soon(job):
            self.account.complain(f"job {job.number}: {job.called_back} callbacks instead of one")


def settled_soon(job: Job) -> bool:
    """The callback is called by another thread, perhaps a moment after the result is there."""
    deadline = time.monotonic() + HANG
    while job.called_back == 0 and time.monotonic() < deadline:
        time.sleep(0.0005)
    return job.called_back == 1


def check(job: Job, error: BaseException | None) -> str | None:
    """What is wrong with how the job ended, if anything is."""
    runs = jobs.runs_of(job.number)
    if runs > 1 + job.retries:
        return f"ran {runs} times"
    # One that waits to be run again can be cancelled, too.
    if job.cancelled and (not isinstance(error, CancelledError) or runs > job.retries):
        return f"cancel() said True, it ran {runs} times and ended with {error!r}"
    if error is None:
        right = job.kind not in jobs.ENDLESS and job.future.result() == job.expected
        return None if right and runs > 0 else f"wrong result {job.future.result()!r:.80}"
    if isinstance(error, CancelledError):
        return None if job.cancelled or job.killed else "cancelled by nobody"
    if isinstance(error, libpool.WorkerDied):
        own = error.exitcode == jobs.EXIT_CODE and job.kind in jobs.MORTAL
        return None if own or jobs.from_outside(error.exitcode) else f"died: {error!r}"
    if isinstance(error, TimeoutError):
        return None if job.kind == "late" else f"no limit, but {error!r}"
    if isinstance(error, ValueError):
        return None if job.kind == "raises" and error.args == (job.expected,) else repr(error)
    return "unexpected " + "".join(traceback.format_exception(error))


# ---- The storm ----------------------------------------------------------------------------------


def progress(account: Account, killer: Killer, seconds: float) -> Any:
    """A bar on a terminal, which a call updates; elsewhere nothing."""
    try:
        from tqdm import tqdm
    except ImportError:
        return lambda: None
    bar = tqdm(total=int(seconds), disable=None, unit="s", leave=False)
    start = time.monotonic()

    def update() -> None:
        bar.n = min(int(time.monotonic() - start), int(seconds))
        done = sum(account.outcomes.values())
        bar.set_postfix(jobs=done, kills=sum(killer.kills.values()), refresh=True)

    return update


def storm(account: Account, seconds: float, seed: int, rate: float) -> Killer:
    pools = [
        libpool.Pool(2, jobs.begin_worker, (0,)),
        libpool.Executor(2, initializer=jobs.begin_worker, initargs=(2,)),
    ]
    for pool in pools:
        pool.submit(jobs.square, 1).result(HANG)
    before = [pool.stats()["memory"] for pool in pools]
    killer = Killer(pools, seed, rate)
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=Submitter(account, pool, seed * 100 + number).run, args=[end])
        for number, pool in enumerate(pools)
    ]
    for thread in (killer, *threads):
        thread.start()
    update = progress(account, killer, seconds)
    for thread in threads:
        while thread.is_alive() and time.monotonic() < end + HANG:
            thread.join(0.5)
            update()
        if thread.is_alive():
            fail_hard("a thread of the host hangs")
    killer.stop()
    finish(account, pools, before)
    return killer


def finish(account: Account, pools: list[Any], before: list[int]) -> None:
    """Look at what is left over while the pools are still there, and end them."""
    deadline = time.monotonic() + 30
    for pool, memory in zip(pools, before, strict=True):
        # Free blocks go back to the system some seconds after the last job.
        while pool.stats()["memory"] > memory + LOOSE_BYTES and time.monotonic() < deadline:
            time.sleep(0.1)
        left = pool.stats()["memory"] - memory
        if left > LOOSE_BYTES:
            account.complain(f"{left} bytes of shared memory more than at the start")
        pool.close()
        if not pool.join(HANG):
            fail_hard("join() hangs")


def leftovers(descriptors: int, files: set[str]) -> list[str]:
    found = []
    gc.collect()
    deadline = time.monotonic() + 5
    while (processes := descendants(os.getpid())) and time.monotonic() < deadline:
        time.sleep(0.01)
    if processes:
        found.append(f"processes left: {processes}")
    more = len(os.listdir("/proc/self/fd")) - descriptors
    if more:
        found.append(f"{more} descriptors left")
    new = {path.name for path in Path("/dev/shm").glob("libpool*")} - files
    if new:
        found.append(f"in /dev/shm: {new}")
    return found


def check_runs(account: Account) -> None:
    """No job, collected or not, has run more often than it may."""
    often = jobs.most_runs()
    if often > 1 + jobs.RETRIES:
        account.complain(f"a job ran {often} times")


def report(account: Account, killer: Killer, seed: int, seconds: float) -> None:
    def line(title: str, counter: Counter[str]) -> None:
        parts = ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
        print(f"{title:9} {sum(counter.values())}: {parts}")

    print(f"seed      {seed}, {seconds:.0f} s")
    line("jobs", account.submitted)
    line("outcomes", account.outcomes)
    line("kills", killer.kills)
    print(f"workers   {killer.replaced} started, {killer.replaced / seconds:.0f} a second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--kills", type=float, default=350, help="from outside, a second")
    options = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans come to this process
    faulthandler.enable()
    dump_stacks.prepare()
    faulthandler.dump_traceback_later(options.seconds + 5 * HANG, exit=True)
    descriptors = len(os.listdir("/proc/self/fd"))
    files = {path.name for path in Path("/dev/shm").glob("libpool*")}
    account = Account()
    killer = storm(account, options.seconds, options.seed, options.kills)
    check_runs(account)
    account.wrong += leftovers(descriptors, files)
    if sum(account.submitted.values()) != sum(account.outcomes.values()):
        account.wrong.append("not as many outcomes as jobs")
    report(account, killer, options.seed, options.seconds)
    for text in account.wrong[:20]:
        print("WRONG:", text)
    print(f"{len(account.wrong)} wrong" if account.wrong else "all accounted for, nothing left")
    faulthandler.cancel_dump_traceback_later()
    return 1 if account.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
