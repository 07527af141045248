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
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Self

from libpool import _core, _pickling, _spawn
from libpool._functions import Registry

__all__ = ["MAX_WORKERS", "Base"]

MAX_WORKERS = 1024
"""POOL_MAX_WORKERS in libpool.h."""

_MIN_MEMORY = 1 << 20


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


class Base(_core.Workers):
    """What `Pool` and `Executor` have in common."""

    _all_ended = False
    """The interpreter ends, and has waited for all pools."""

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
                _begin_work, registry.token, memory_limit, initializer, initargs
            )
        else:
            launch = _spawn.make_launch(
                type(self), method, registry, memory_limit, initializer, initargs
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
            launch=launch,
        )
        _running.add(self)

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

    def close(self) -> None:
        """Take no more calls. Those that were submitted run, then the workers end."""
        super().close()
        _pickling.registries.discard(self._registry)

    def terminate(self) -> None:
        """End the pool now: calls that wait or run are cancelled, all its processes end."""
        super().terminate()
        _pickling.registries.discard(self._registry)

    def _usable(self) -> bool:
        """Whether this is the process that made the pool."""
        return self.check() != -errno.EXDEV

    def _linger(self) -> None:
        """Stay alive, closed, until all jobs have ended."""
        if self in _lingering:
            return
        _lingering.add(self)
        # No thread can be started when the interpreter ends; _at_exit() sees to it then.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=_drain, args=[self], name="libpool-drain", daemon=True).start()

    def _abandon(self) -> None:
        """Called when nobody has the pool any more: what was submitted runs."""
        # At the interpreter's very end there is not even a module to look things up in.
        if not self._all_ended and self._usable():
            self.close()
            if not _core.Workers.join(self, 0):
                self._linger()

    def _at_exit(self) -> None:
        """Called when the interpreter ends and the pool has not."""
        raise NotImplementedError


_running: weakref.WeakSet[Base] = weakref.WeakSet()
_lingering: set[Base] = set()


def _drain(workers: Base) -> None:
    try:
        workers.join()
    finally:
        _lingering.discard(workers)


def _at_exit() -> None:
    # After all threads have ended, and those handlers that were registered later than this one.
    for workers in {*_running, *_lingering}:
        if workers._usable():
            workers._at_exit()
    Base._all_ended = True


atexit.register(_at_exit)


# ---- In the worker ------------------------------------------------------------------------------


def _begin_work(
    token: str,
    memory_limit: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    worker: int,
) -> None:
    """The first thing that a worker does which is a fork of the host."""
    enter_worker(token, memory_limit, worker)
    initialize(initializer, initargs)


def detach_stdin() -> None:
    """What is typed is for the host."""
    with contextlib.suppress(OSError), open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)


def enter_worker(token: str, memory_limit: int, worker: int) -> None:
    """Make this process a worker."""
    signal.set_wakeup_fd(-1)  # an event loop of the host has set it
    detach_stdin()
    with contextlib.suppress(AttributeError, ValueError):  # what takes its place may lack it
        # A worker may be killed at any time, and what it has printed should be there all the same.
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _pickling.enter_worker(token, memory_limit)
    name = f"libpool-{worker}"
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(name)  # what ps and top show
    _enter_multiprocessing(name)


def initialize(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Call the initializer, in a worker."""
    if initializer is None:
        return
    try:
        initializer(*initargs)
    except BaseException:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        flush()
        os._exit(1)  # what the caller would do, but it would print the exception once more
    _pickling.keep_globals(initializer)


def _end_work() -> None:
    """The last thing that a worker does when the pool ends in an orderly way."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # a multiprocessing.Queue writes here what it has not yet written
    flush()


def _enter_multiprocessing(name: str) -> None:
    """Make this process known to multiprocessing, if the program uses that, as its workers are.

    Queues and locks that were inherited depend on it, and logging asks for the name.
    """
    if "multiprocessing.process" not in sys.modules or "multiprocessing.util" not in sys.modules:
        return
    from multiprocessing import process, util

    this = process.BaseProcess(name=name)
    process._current_process = this  # type: ignore[attr-defined]
    process._children = set()  # type: ignore[attr-defined]
    util._finalizer_registry.clear()  # type: ignore[attr-defined]
    util._run_after_forkers()  # type: ignore[attr-defined]


def flush() -> None:
    """Write out what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
