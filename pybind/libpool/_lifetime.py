"""How pools start, and how they end when nobody ends them."""

from __future__ import annotations

import atexit
import contextlib
import enum
import errno
import functools
import logging
import math
import operator
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from libpool import _core, _exceptions, _output, _pickling, _spawn
from libpool._functions import Registry
from libpool.shared import Shared

if TYPE_CHECKING:
    from libpool.aio import Asyncio

__all__ = ["MAX_WORKERS", "Base"]

MAX_WORKERS = 1024
"""POOL_MAX_WORKERS in libpool.h."""

_MIN_MEMORY = 1 << 20

T = TypeVar("T")


class _Same(enum.Enum):
    """What `Base.options` is not told."""

    SAME = "as before"


_SAME = _Same.SAME


def _nanoseconds(timeout: float | None) -> int | None:
    """A time limit in the unit of the C library."""
    if timeout is None or timeout == math.inf:
        return None
    if not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds or None, not {timeout!r}")
    return max(1, int(min(timeout * 1e9, float(1 << 62))))


def _checked_retries(retries: int) -> int:
    number = operator.index(retries)
    if not 0 <= number <= 255:
        raise ValueError(f"retries must be between 0 and 255, not {retries!r}")
    return number


def _checked_name(name: str | None) -> str:
    if name is None:
        return "libpool"
    if not isinstance(name, str):
        raise TypeError(f"name must be a str or None, not {name!r}")
    if not name or not name.isprintable():
        raise ValueError(f"name must be printable and not empty, not {name!r}")
    return name


class Base(_core.Workers):
    """What `Pool` and `Executor` have in common."""

    _all_ended = False
    """The interpreter ends, and has waited for all pools."""

    _terminated = False
    """`terminate()` was called, and not only `close()`."""

    _finishes_at_exit = False
    """The interpreter waits for the jobs of a pool that nobody has; else it cancels them."""

    def _launch(
        self,
        workers: int,
        what: str,
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
        *,
        shared_limit: int,
        memory_limit: int,
        timeout: float | None,
        retries: int,
        tasks: int | None,
        name: str | None = None,
        context: Any = None,
    ) -> None:
        """Start the workers.

        Parameters
        ----------
        workers : int
            How many; at least 1.
        what : str
            What the imitated interface calls their number, for an error message.
        initializer, initargs
            Called once in each worker.
        shared_limit : int
            Bytes of shared memory; 0: what this machine or container has.
        memory_limit : int
            Bytes that a worker may allocate; 0: no limit.
        timeout, retries
            See `options`.
        tasks : int or None
            After how many jobs a worker is replaced; None: never.
        name : str, optional
            What `ps` and `top` show for the workers, with their numbers. Default: libpool.
        context : multiprocessing context, optional
            See `_spawn.choose_method`.
        """
        workers = operator.index(workers)
        if workers > MAX_WORKERS:
            raise ValueError(f"{what} must be at most {MAX_WORKERS}, not {workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        shared_limit = operator.index(shared_limit)
        if shared_limit != 0 and shared_limit < _MIN_MEMORY:
            raise ValueError(f"shared_limit must be 0 or at least {_MIN_MEMORY} bytes")
        memory_limit = operator.index(memory_limit)
        if not 0 <= memory_limit < 1 << 63:
            raise ValueError(f"memory_limit must not be negative or huge, not {memory_limit}")
        name = _checked_name(name)
        _spawn.refuse_in_preparation()
        method = _spawn.choose_method(context)
        initargs = tuple(initargs)
        self._registry = registry = Registry(_spawn.make_snapshot(method))
        if initializer is not None:
            registry.keep(_pickling.stored_globals(initializer))
        start = launch = None
        if method == "fork":
            flush()  # or each worker would print once more what waits in the buffers
            start = functools.partial(
                _begin_work, registry.token, memory_limit, initializer, initargs, name
            )
        else:
            launch = _spawn.make_launch(
                type(self), method, registry, memory_limit, initializer, initargs, name
            )
            # Their semaphores and shared memory live as long as they do, and replaced workers
            # will ask for them.
            self._initargs = initargs
        self._start(
            workers,
            shared_limit=shared_limit,
            start=start,
            stop=_end_work,
            registry=registry,
            timeout=_nanoseconds(timeout),
            retries=_checked_retries(retries),
            memory_limit=memory_limit,
            worker_jobs=min(tasks or 0, (1 << 64) - 1),
            finishes_at_exit=self._finishes_at_exit,
            name=name,
            launch=launch,
        )
        _running.add(self)
        global _newest
        _newest = weakref.ref(self)

    def options(
        self, *, timeout: float | None | _Same = _SAME, retries: int | _Same = _SAME
    ) -> Self:
        """Give the same workers under other options for single jobs.

        Parameters
        ----------
        timeout : float or None
            Seconds that a job may run, not counting the time that it waits for a worker: then its
            worker is killed and replaced, and its future raises `TimeoutError`. In `map` it goes
            for each item; when one is late, the results of its chunk are lost, and the error
            says which those are. None: no limit. Default: as this object has it.
        retries : int
            How often a job is run again when its worker died, 0 to 255; not when it raised, was
            late or was killed. What it did before it died it then does twice. Default: as this
            object has it.

        Returns
        -------
        Pool or Executor
            An object like this one, with the same methods, for the same workers: closing it
            closes the pool.

        Raises
        ------
        ValueError
            `timeout` is not positive, or `retries` is out of range.
        """
        limit, again = self._options
        if not isinstance(timeout, _Same):
            limit = _nanoseconds(timeout)
        if not isinstance(retries, _Same):
            again = _checked_retries(retries)
        view = self._view(limit, again)
        view.__dict__.update(self.__dict__)
        return view

    def share(self, obj: T) -> Shared[T]:
        """Put an object in shared memory once, for many jobs.

        Parameters
        ----------
        obj : object
            Anything that can be pickled. It is sent as it is now.

        Returns
        -------
        libpool.shared.Shared
            As an argument of a job, or anywhere in one, it arrives as the object. Its large
            arrays and buffers are not copied, and can't be written to; jobs have no business
            changing the rest either: what they change, later jobs of the same worker may see. The
            memory is free again when this object is dropped and no job needs it any more.

        Raises
        ------
        MemoryError
            `shared_limit` does not allow it.
        Exception
            The object can't be pickled.
        """
        return Shared(obj, self._put(obj))

    @property
    def aio(self) -> Asyncio:
        """The pool for a running asyncio event loop: ``await pool.aio.submit(fn, x)``."""
        from libpool.aio import Asyncio  # asyncio is slow to import, and most do without

        return Asyncio(self)

    def close(self) -> None:
        """Take no more calls. Those that were submitted run, then the workers end."""
        super().close()
        _pickling.registries.discard(self._registry)

    def terminate(self) -> None:
        """End the pool now: calls that wait or run are cancelled, all its processes end."""
        super().terminate()
        self._terminated = True
        _pickling.registries.discard(self._registry)

    def _attached(self) -> None:
        """Called in an interpreter that was started for the pool, instead of the constructor."""

    def _usable(self) -> bool:
        """Whether this is the process that made the pool."""
        return self.check() != -errno.EXDEV

    def _at_exit(self) -> None:
        """Called when the interpreter ends and the pool has not."""
        raise NotImplementedError


_running: weakref.WeakSet[Base] = weakref.WeakSet()
_newest: Callable[[], Base | None] = lambda: None  # noqa: E731


def newest() -> Base | None:
    """Give the pool that was made last in this process, if it still takes jobs."""
    workers = _newest()
    return workers if workers is not None and workers.check() == 0 else None


def _at_exit() -> None:
    # After all threads have ended, and those handlers that were registered later than this one.
    for workers in list(_running):
        if workers._usable():
            workers._at_exit()
    _core.finish()  # those that nobody has
    Base._all_ended = True


atexit.register(_at_exit)


# ---- In the worker ------------------------------------------------------------------------------


def _begin_work(
    token: str,
    memory_limit: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    name: str,
    worker: int,
) -> None:
    """The first thing that a worker does which is a fork of the host."""
    enter_worker(token, memory_limit, name, worker)
    initialize(initializer, initargs)


def detach_stdin() -> None:
    """What is typed is for the host."""
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)
    else:
        os.set_inheritable(0, True)


def enter_worker(token: str, memory_limit: int, name: str, worker: int) -> None:
    """Make this process a worker."""
    _output.enter_worker()
    signal.set_wakeup_fd(-1)  # an event loop of the host has set it
    detach_stdin()
    if sys.stdin is not None and sys.stdin is sys.__stdin__:
        # A thread of the host may be reading, with the buffer's lock; and what it has read ahead
        # is the host's.
        sys.stdin = open(0, closefd=False)
    _pickling.enter_worker(token)
    _exceptions.memory_limit = memory_limit
    _enter_multiprocessing(f"{name}-{worker}", int(token.partition("-")[0]))


def initialize(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Call the initializer, in a worker."""
    if initializer is None:
        return
    try:
        initializer(*initargs)
    except BaseException:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        _end_work()  # what was logged may wait in a multiprocessing.Queue
        os._exit(1)  # what the caller would do, but it would print the exception once more
    _output.watch_streams()
    _pickling.keep_globals(initializer)


def _end_work() -> None:
    """The last thing that a worker does when the pool ends in an orderly way."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # a multiprocessing.Queue writes here what it has not yet written
    flush()


def _enter_multiprocessing(name: str, host: int) -> None:
    """Make this process known to multiprocessing, if the program uses that, as its workers are.

    Queues and locks that were inherited depend on it, and logging asks for the name.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    if process is None:
        return
    with contextlib.suppress(OSError):  # the host has ended, and this process is about to
        process._parent_process = process._ParentProcess("MainProcess", host, os.pidfd_open(host))
    process._current_process = process.BaseProcess(name=name)
    process._children = set()
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()


def flush() -> None:
    """Write out what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
