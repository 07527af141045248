"""The exceptions that libpool raises."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

__all__ = [
    "BrokenPool",
    "RemoteError",
    "RemoteTraceback",
    "WorkerDied",
    "adopt_bases",
    "broken_pool",
    "short_repr",
    "worker_died",
]


class WorkerDied(BrokenExecutor):
    """The worker that ran this job died before the job had a result.

    Only the job that the worker ran gets this error. The worker is replaced and all other jobs
    finish. Where `concurrent.futures.process` has been imported, this is also a
    `BrokenProcessPool`.

    Parameters
    ----------
    message : str
        What happened.
    exitcode : int or None
        See the attribute.

    Attributes
    ----------
    exitcode : int or None
        The worker's exit code, or the negative number of the signal that killed it, as in
        `multiprocessing.Process.exitcode`.
    """

    def __init__(self, message: str = "a worker died", exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode

    @property
    def signal(self) -> int | None:
        """The signal that killed the worker (a `signal.Signals` where it has a name), or None."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return signal.Signals(-self.exitcode)
        except ValueError:  # real-time signals have no name
            return -self.exitcode

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.exitcode), self.__dict__


class BrokenPool(BrokenExecutor):
    """The pool can't run jobs any more: its supervisor died, or its workers don't start.

    Where they have been imported, it is also a `concurrent.futures.process.BrokenProcessPool` and a
    `concurrent.futures.thread.BrokenThreadPool`.
    """


class RemoteError(Exception):
    """Stands in for a job's exception that could not be sent to the host.

    Its message names the type and the text of the original; its `__cause__` has the worker's
    traceback.
    """


class RemoteTraceback(Exception):
    """The worker's traceback, as text: the `__cause__` of an exception that a job raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def tb(self) -> str:
        """The same text, under the name that it has in multiprocessing."""
        return self.text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def adopt_bases() -> None:
    """Make the errors what code that catches those of concurrent.futures expects.

    Only modules that somebody has imported count: whoever names `BrokenProcessPool` in an
    ``except`` has done that, and for others they would be slow to import.
    """
    process = _loaded("concurrent.futures.process", "BrokenProcessPool")
    thread = _loaded("concurrent.futures.thread", "BrokenThreadPool")
    _derive(WorkerDied, process)
    _derive(BrokenPool, process + thread)


def _loaded(module: str, name: str) -> tuple[type[BaseException], ...]:
    # Another thread may be in the middle of importing it.
    found = getattr(sys.modules.get(module), name, None)
    return () if found is None else (found,)


def _derive(error: type[BaseException], bases: tuple[type[BaseException], ...]) -> None:
    if bases and error.__bases__ != bases:
        error.__bases__ = bases


adopt_bases()


def broken_pool() -> BrokenPool:
    """Make the error for a pool whose supervisor has ended."""
    adopt_bases()
    return BrokenPool(
        "the pool is broken: its supervisor process ended unexpectedly, or its workers could not "
        "be started, and then what they raised is on standard error"
    )


def worker_died(
    wait_status: int, fn: Callable[..., Any] | None = None, memory_limit: int = 0
) -> WorkerDied:
    """Make the error for a job whose worker died.

    Parameters
    ----------
    wait_status : int
        The worker's status as `os.waitpid` gives it.
    fn : callable, optional
        What the worker ran.
    memory_limit : int
        The pool's; 0: none. Native code that does not look whether it got memory dies of it.
    """
    adopt_bases()
    exitcode = os.waitstatus_to_exitcode(wait_status)
    if exitcode >= 0:
        how = f"exited with code {exitcode}"
    else:
        how = f"was killed by {_signal_name(-exitcode)}"
    where = "" if fn is None else f" while it ran {short_repr(fn)}"
    error = WorkerDied(f"a worker {how}{where}", exitcode)
    if memory_limit and exitcode != -signal.SIGKILL:
        error.add_note(f"it may have gone over the pool's memory_limit of {memory_limit} bytes")
    return error


def job_timeout(part: int, fn: Callable[..., Any] | None = None) -> TimeoutError:
    """Make the error for a job that ran longer than it was allowed to.

    Parameters
    ----------
    part : int
        Which of its items a chunk of a map was running; `lost_items()` asks for it.
    fn : callable, optional
        What the worker ran.
    """
    what = "a job" if fn is None else short_repr(fn)
    error = TimeoutError(f"{what} ran longer than its time limit, and its worker was killed")
    error._libpool_part = part  # type: ignore[attr-defined]
    return error


class Failed:
    """In the place of a result of a chunk: the call raised."""

    __slots__ = ("exception",)

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception


def with_failures(chunk: tuple[list[Any], dict[int, bytes]]) -> list[Any]:
    """Make the results of a chunk in which some calls raised.

    Parameters
    ----------
    chunk : tuple
        The results, and for some of their indices the exception as `dumps_exception()` gave it.
    """
    from libpool._exceptions import loads_exception  # which imports this module

    results, failures = chunk
    for index, data in failures.items():
        results[index] = Failed(loads_exception(data))
    return results


def note_lost_items(
    error: BaseException, first: int, count: int, earlier: BaseException | None = None
) -> None:
    """Say which items of a map are lost with a chunk that ended by a death or a time-out.

    Parameters
    ----------
    error : BaseException
        What the chunk's future raised; others than these are left as they are.
    first, count : int
        The index of the chunk's first item, and how many it has.
    earlier : BaseException, optional
        The error of a chunk before this one, which is what the map raises: it is to tell of both.
    """
    if isinstance(error, WorkerDied):
        ran = "a chunk"
    elif isinstance(error, TimeoutError) and hasattr(error, "_libpool_part"):
        ran = f"item {first + error._libpool_part}"
    else:
        return
    lost = f"ran {ran} of a map: the results of items {first} to {first + count - 1} are lost"
    if earlier is None:
        error.add_note(f"it {lost}")
    else:
        earlier.add_note(f"besides, {type(error).__name__}: another worker {lost}")


def short_repr(obj: object, limit: int = 200) -> str:
    """`repr(obj)`, cut to `limit` characters, and never an exception."""
    try:
        text = repr(obj)
    except Exception as error:
        text = f"<{type(obj).__qualname__} object whose repr() raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
