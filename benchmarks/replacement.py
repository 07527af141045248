"""A worker dies: how soon its replacement takes jobs, and what the other worker feels.

First the only worker of a pool is killed while it runs a long job and another job waits; that other
job returns when it ran. Then two workers are kept supplied with jobs that sleep for a millisecond,
so that a gap between results means that somebody waited for something, and not that the machine has
too few cores. Now and then one of the jobs kills its worker. Each job returns its process and when
it ran, by `time.monotonic`, which is one clock for all processes of a machine.

Of the peers, ``ProcessPoolExecutor`` and ``loky`` break when a worker dies, so there is nothing to
time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from contenders import LIBPOOL, MULTIPROCESSING, PEBBLE
from harness import Limit, Options, Row, Skipped, Target, alternate, bar

import libpool

ALONE = "from the only worker's SIGKILL until its replacement runs a job"
DEATH = "from a worker's SIGKILL, at full load, until its replacement takes a job"
GAP = "longest gap between two results of the other worker, in 50 ms"
PAUSE = "longest time that the other worker is without a job, in 50 ms"
WORKERS = 2
BEGIN = 0.05
"""Seconds after which an only worker has begun with the job that it is to die in."""

JOB = 0.001
DEPTH = 32
"""So many jobs wait or run at any time: some 15 ms of work for two workers."""

WINDOW = 0.05
"""Seconds before and after a death in which the results of the other worker are looked at."""

PATIENCE = 10.0
"""Seconds after which a pool has no replacement."""

LIMIT = Limit(0.02)
PAUSE_LIMIT = Limit(0.001)
SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "longest": max,
}


def job() -> tuple[int, float, float]:
    """Take a millisecond. Returns the process, and when it began and ended."""
    begun = time.monotonic()
    time.sleep(JOB)
    return os.getpid(), begun, time.monotonic()


def die(file: str) -> None:
    """Write when this is, and kill this process."""
    descriptor = os.open(file, os.O_WRONLY)
    os.write(descriptor, repr(time.monotonic()).encode())
    os.kill(os.getpid(), signal.SIGKILL)


# ---- The pools ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Feed:
    """What this needs of a pool.

    Attributes
    ----------
    submit : callable
        Submits ``function(*arguments)``.
    finished : callable
        Whether what `submit` returned has ended.
    value : callable
        Its result, or its exception if it died.
    """

    submit: Callable[..., Any]
    finished: Callable[[Any], bool]
    value: Callable[[Any], Any]


def _outcome(future: Any) -> Any:
    error = future.exception()
    return future.result() if error is None else error


@contextmanager
def feed_libpool(workers: int) -> Iterator[Feed]:
    """Open `libpool.Executor`."""
    with libpool.Executor(workers) as executor:
        yield Feed(executor.submit, libpool.Future.done, _outcome)


@contextmanager
def feed_multiprocessing(workers: int) -> Iterator[Feed]:
    """Open `multiprocessing.Pool`, in which the job of a worker that died never ends."""
    with multiprocessing.Pool(workers) as pool:
        yield Feed(
            lambda function, *arguments: pool.apply_async(function, arguments),
            lambda result: bool(result.ready()),
            lambda result: result.get(),
        )


@contextmanager
def feed_pebble(workers: int) -> Iterator[Feed]:
    """Open ``pebble.ProcessPool``."""
    with import_module("pebble").ProcessPool(max_workers=workers) as pool:
        yield Feed(
            lambda function, *arguments: pool.schedule(function, args=arguments),
            lambda future: bool(future.done()),
            _outcome,
        )


# ---- The only worker dies ----------------------------------------------------------------------


def now() -> float:
    """Return the time in seconds of a clock that all processes share."""
    return time.monotonic()


def measure_alone(name: str, opened: Callable[[int], Any], deaths: int) -> float:
    """Median time until the replacement runs a job, over `deaths` in one pool of one worker."""
    times: list[float] = []
    with opened(1) as feed:
        for _ in bar(range(deaths), name):
            pid: int = feed.value(feed.submit(os.getpid))
            lost = feed.submit(time.sleep, 3600)
            following = feed.submit(now)
            time.sleep(BEGIN)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            times.append(feed.value(following) - killed)
            if name == LIBPOOL.name and not isinstance(feed.value(lost), libpool.WorkerDied):
                raise RuntimeError("libpool did not report the death")
    return statistics.median(times)


# ---- One death at full load ---------------------------------------------------------------------


class Load:
    """Keeps a pool supplied, and keeps what the jobs return."""

    def __init__(self, feed: Feed, name: str) -> None:
        self._feed = feed
        self._name = name
        self._pending: list[Any] = []
        self.results: list[tuple[int, float, float]] = []

    def keep_up(self) -> None:
        """Collect what has ended and fill up; then pause for a moment."""
        waiting = []
        for handle in self._pending:
            if not self._feed.finished(handle):
                waiting.append(handle)
                continue
            value = self._feed.value(handle)
            if not isinstance(value, tuple):
                raise RuntimeError(f"{self._name}: a job that harms nobody ended with {value!r}")
            self.results.append(value)
        waiting += [self._feed.submit(job) for _ in range(DEPTH - len(waiting))]
        self._pending = waiting
        time.sleep(JOB / 2)

    def keep_up_for(self, seconds: float) -> None:
        """Do so for a time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.keep_up()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Do so until something has come about."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise RuntimeError(f"{self._name} has not replaced a worker in {PATIENCE:g} s")
            self.keep_up()

    def workers(self) -> set[int]:
        """Return the processes of the results that were kept."""
        return {pid for pid, _, _ in self.results}

    def shows_replacement(self, known: set[int], died: float) -> bool:
        """Whether a process that is new, and one that is not, have given results since."""
        since = {pid for pid, _, ended in self.results if ended > died}
        return bool(since - known) and bool(since & known)

    def kill_one(self, file: Path) -> float:
        """Let the next free worker run a job that kills it. Returns when it did."""
        file.write_bytes(b"")
        lost = self._feed.submit(die, str(file))
        self.wait_for(lambda: file.stat().st_size > 0)
        if self._name == LIBPOOL.name:
            self.wait_for(lambda: self._feed.finished(lost))
            if not isinstance(self._feed.value(lost), libpool.WorkerDied):
                raise RuntimeError("libpool did not report the death")
        return float(file.read_text())


@dataclass
class Felt:
    """What the surviving worker felt in `WINDOW` before each death, or after it, in seconds.

    Attributes
    ----------
    gaps : list of float
        The longest time from one result to the next. It contains the job, and what the machine
        does meanwhile: a process ends, and another starts.
    pauses : list of float
        The longest time from the end of a job to the start of the next.
    """

    gaps: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def add(self, ran: list[tuple[float, float]], first: float, last: float) -> None:
        """Add what there was from `first` to `last`, of jobs with a start and an end."""
        inside = sorted(job for job in ran if first < job[1] < last)
        ends = [first, *(ended for _, ended in inside), last]
        self.gaps.append(max(y - x for x, y in pairwise(ends)))
        self.pauses.append(max((y[0] - x[1] for x, y in pairwise(inside)), default=last - first))


@dataclass
class Deaths:
    """What was measured, one value for each death.

    Attributes
    ----------
    replaced : list of float
        Seconds from the death to the start of the first job in a process that is new.
    before, after : Felt
        By the worker that survived.
    """

    replaced: list[float] = field(default_factory=list)
    before: Felt = field(default_factory=Felt)
    after: Felt = field(default_factory=Felt)

    def add(self, load: Load, known: set[int], died: float) -> None:
        """Work out one death from the results around it."""
        starts = [begun for pid, begun, _ in load.results if pid not in known]
        self.replaced.append(min(starts) - died)
        (survivor,) = known & {pid for pid, _, ended in load.results if ended > died}
        ran = [(begun, ended) for pid, begun, ended in load.results if pid == survivor]
        self.before.add(ran, died - WINDOW, died)
        self.after.add(ran, died, died + WINDOW)


def measure(name: str, opened: Callable[[int], Any], deaths: int) -> Deaths:
    """Let workers die, one after another, in one pool."""
    measured = Deaths()
    with tempfile.TemporaryDirectory() as folder, opened(WORKERS) as feed:
        load = Load(feed, name)
        for _ in bar(range(deaths), name):
            load.results.clear()
            load.keep_up_for(2 * WINDOW)
            load.wait_for(lambda: len(load.workers()) == WORKERS)
            known = load.workers()
            died = load.kill_one(Path(folder) / "died")
            load.wait_for(partial(load.shows_replacement, known, died))
            load.keep_up_for(max(0.0, died + 1.5 * WINDOW - time.monotonic()))
            measured.add(load, known, died)
    return measured


# ---- The rows -----------------------------------------------------------------------------------


def median_replacement(name: str, opened: Callable[[int], Any], deaths: int) -> float:
    """Median time until the replacement takes a job."""
    return statistics.median(measure(name, opened, deaths).replaced)


def felt_rows(found: list[Deaths]) -> Iterator[Row]:
    """Compare what the other worker felt after deaths with what it felt before them."""
    for what, limit in ((GAP, None), (PAUSE, PAUSE_LIMIT)):
        for name, summary in SUMMARIES.items():
            row = Row(what, f"no death, {name}", limit=limit)
            for each in found:
                pair = (each.before, each.after)
                before, after = ((felt.gaps if what == GAP else felt.pauses) for felt in pair)
                row.peer_samples.append(summary(before))
                row.libpool_samples.append(summary(after))
            yield row


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with the peers that replace their workers, and libpool with itself undisturbed."""
    deaths = options.count(50)
    peers = ((MULTIPROCESSING, feed_multiprocessing), (PEBBLE, feed_pebble))
    for what, measured, count in (
        (ALONE, measure_alone, options.count(10)),
        (DEATH, median_replacement, deaths // 3 + 1),
    ):
        for contender, opened in peers:
            if not contender.installed:
                yield Skipped(what, contender.why_not)
                continue
            yield alternate(
                Row(what, contender.name, target=Target(1)),
                partial(measured, contender.name, opened, count),
                partial(measured, LIBPOOL.name, feed_libpool, count),
                options.rounds,
            )

    found = [measure(LIBPOOL.name, feed_libpool, deaths) for _ in bar(range(options.rounds), DEATH)]
    replaced = [statistics.median(each.replaced) for each in found]
    yield Row(DEATH, limit=LIMIT, libpool_samples=replaced)
    yield from felt_rows(found)
