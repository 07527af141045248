"""The pools, behind the few operations that the faults need.

Everything goes through the interface that the pool offers its users. What a ``with`` statement
does at its end is what `Subject.close` does.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

WORKERS = 2

Function = Callable[..., Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    kind : {"result", "error", "unended", "refused"}
        Refused: the submit itself raised.
    value : object
        The result, or the exception.
    """

    kind: str
    value: Any = None

    def unwrap(self) -> Any:
        """Return the result or raise the exception."""
        if self.kind == "result":
            return self.value
        raise self.value if self.kind != "unended" else TimeoutError("it has not ended")


class Subject:
    """A pool whose futures are those of `concurrent.futures`.

    Attributes
    ----------
    name : str
        The heading of its column.
    requires : str
        The module and distribution that must be installed; empty for the standard library's.
    pool : object
        The pool itself, once it is open.
    """

    name = ""
    requires = ""
    pool: Any

    def make(self, initializer: Function | None) -> Any:
        """Make a pool of `WORKERS` workers."""
        raise NotImplementedError

    def open(self, initializer: Function | None = None) -> None:
        """Make the pool."""
        global opened
        self.pool = self.make(initializer)
        opened = self

    def submit(self, function: Function, *arguments: Any) -> Any:
        """Submit one job. Returns something for `outcome`."""
        return self.pool.submit(function, *arguments)

    def submit_within(self, seconds: float, function: Function, *arguments: Any) -> Any:
        """Submit one job that may run for so long; None where the pool has no such thing."""
        return None

    def attempt(self, function: Function, *arguments: Any) -> Any:
        """Submit one job; if that raises, return the refusal, which `outcome` takes as well."""
        try:
            return self.submit(function, *arguments)
        except Exception as error:
            return Outcome("refused", error)

    def outcome(self, handle: Any, timeout: float | None) -> Outcome:
        """Wait for a job."""
        if isinstance(handle, Outcome):
            return handle
        try:
            error = handle.exception(timeout)
        except TimeoutError:
            if not handle.done():
                return Outcome("unended")
            raise
        except Exception as cancelled:
            return Outcome("error", cancelled)
        if error is not None:
            return Outcome("error", error)
        return Outcome("result", handle.result())

    def map(self, function: Function, items: Sequence[Any], chunksize: int) -> Iterator[Any]:
        """Map in chunks. The iterator may raise, and may go on after that."""
        return iter(self.pool.map(function, items, chunksize=chunksize))

    def close(self, error: BaseException | None = None) -> None:
        """Leave the ``with`` statement, because of an exception or without one."""
        self.pool.__exit__(type(error) if error else None, error, None)

    def renew(self) -> None:
        """Do what a program is expected to do when it goes on after an error."""

    def helper(self) -> int | None:
        """Return the process that manages the workers; None where the host does it in a thread."""
        return None


class LibpoolPool(Subject):
    """`libpool.Pool`."""

    name = "libpool.Pool"
    requires = "libpool"

    def make(self, initializer: Function | None) -> Any:
        """See `Subject`."""
        return import_module("libpool").Pool(WORKERS, initializer)

    def submit_within(self, seconds: float, function: Function, *arguments: Any) -> Any:
        """See `Subject`."""
        return self.pool.options(timeout=seconds).submit(function, *arguments)

    def helper(self) -> int | None:
        """See `Subject`."""
        pid: int = self.pool.supervisor_pid
        return pid


class LibpoolExecutor(LibpoolPool):
    """`libpool.Executor`."""

    name = "libpool.Executor"

    def make(self, initializer: Function | None) -> Any:
        """See `Subject`."""
        return import_module("libpool").Executor(WORKERS, initializer=initializer)


class Multiprocessing(Subject):
    """`multiprocessing.Pool`, whose handles are no futures."""

    name = "multiprocessing.Pool"

    def make(self, initializer: Function | None) -> Any:
        """See `Subject`."""
        return multiprocessing.Pool(WORKERS, initializer)

    def submit(self, function: Function, *arguments: Any) -> Any:
        """See `Subject`."""
        return self.pool.apply_async(function, arguments)

    def outcome(self, handle: Any, timeout: float | None) -> Outcome:
        """See `Subject`."""
        if isinstance(handle, Outcome):
            return handle
        handle.wait(timeout)
        if not handle.ready():
            return Outcome("unended")
        try:
            return Outcome("result", handle.get())
        except (Exception, SystemExit) as error:
            return Outcome("error", error)


class StandardExecutor(Subject):
    """`concurrent.futures.ProcessPoolExecutor`."""

    name = "ProcessPoolExecutor"

    def make(self, initializer: Function | None) -> Any:
        """See `Subject`."""
        return ProcessPoolExecutor(WORKERS, initializer=initializer)


class Loky(Subject):
    """``loky.get_reusable_executor``, which gives a new executor when the last one has broken."""

    name = "loky"
    requires = "loky"

    def make(self, initializer: Function | None) -> Any:
        """See `Subject`."""
        self.initializer = initializer
        get = import_module("loky").get_reusable_executor
        return get(max_workers=WORKERS, initializer=initializer)

    def renew(self) -> None:
        """See `Subject`."""
        self.open(self.initializer)


class Pebble(Subject):
    """``pebble.ProcessPool``."""

    name = "pebble"
    requires = "pebble"

    def make(self, initializer: Function | None) -> Any:
        """See `Subject`."""
        return import_module("pebble").ProcessPool(max_workers=WORKERS, initializer=initializer)

    def submit(self, function: Function, *arguments: Any) -> Any:
        """See `Subject`."""
        return self.pool.schedule(function, args=arguments)

    def submit_within(self, seconds: float, function: Function, *arguments: Any) -> Any:
        """See `Subject`."""
        return self.pool.schedule(function, args=arguments, timeout=seconds)

    def map(self, function: Function, items: Sequence[Any], chunksize: int) -> Iterator[Any]:
        """See `Subject`."""
        results: Iterator[Any] = self.pool.map(function, items, chunksize=chunksize).result()
        return results


SUBJECTS: dict[str, type[Subject]] = {
    kind.name: kind
    for kind in (LibpoolPool, LibpoolExecutor, Multiprocessing, StandardExecutor, Loky, Pebble)
}


def installed(name: str) -> bool:
    """Whether there is this pool here."""
    requires = SUBJECTS[name].requires
    return not requires or find_spec(requires) is not None


# ---- In a worker --------------------------------------------------------------------------------

opened: Subject | None = None
"""The pool that this process has made, or inherited the object of."""


def in_worker(name: str) -> Subject:
    """Return the pool as a job can get at it: the host's own object, which only a fork inherits."""
    if name.startswith("libpool"):
        subject = SUBJECTS[name]()
        subject.pool = import_module("libpool").current()
        return subject
    if opened is None:
        raise LookupError("a job can't get at the pool")
    return opened


# ---- In the host --------------------------------------------------------------------------------


def collect(subject: Subject, handles: Sequence[Any], limit: float) -> Iterator[Outcome]:
    """Yield what became of each job, in order; those that take longer together have not ended."""
    deadline = time.monotonic() + limit
    for handle in handles:
        yield subject.outcome(handle, max(0.0, deadline - time.monotonic()))
