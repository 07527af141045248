"""What `Pool.apply_async` and `Pool.map_async` return."""

from __future__ import annotations

import errno
import functools
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

from libpool import _core
from libpool._errors import note_lost_items
from libpool._progress import Bar

__all__ = ["AsyncResult", "MapResult", "ended", "terminated"]

T = TypeVar("T")


class AsyncResult(Generic[T]):
    """The result of a call, now or later.

    Parameters
    ----------
    pool : Workers
        Where it runs; it is kept alive.
    future : Future
        Of the call.
    callback, error_callback : callable, optional
        Called with the result, or with the exception, by the pool's thread that tells of ends, one
        at a time. When an AsyncResult is ready they have returned.
    """

    def __init__(
        self,
        pool: _core.Workers,
        future: _core.Future[T],
        callback: Callable[[T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._begin(pool, callback, error_callback)
        self._future: _core.Future[T] | None = future
        if self._told is not None:
            pool._when_done(future, self._finish)

    def _begin(
        self,
        pool: _core.Workers,
        callback: Callable[[T], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._pool: _core.Workers | None = pool
        self._callback = callback
        self._error_callback = error_callback
        # Set when the callbacks have returned; without any, the futures say all.
        self._told: threading.Event | None = None
        if callback is not None or error_callback is not None:
            self._told = threading.Event()
        self._known: tuple[T | None, BaseException | None] | None = None

    def get(self, timeout: float | None = None) -> T:
        """Return the result, waiting for it if need be.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default there is no limit.

        Raises
        ------
        libpool.TimeoutError
            It is not there in time. The job goes on.
        Exception
            What the call raised; `libpool.WorkerDied` if its worker died.
        concurrent.futures.CancelledError
            The pool was terminated.
        """
        if not self._wait(timeout):
            from libpool._timeout import TimeoutError

            raise TimeoutError("the result is not there yet")
        result, error = self._outcome()
        if error is None:
            return result  # type: ignore[return-value]
        try:
            raise error
        finally:
            del error  # breaks a cycle with this frame

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default there is no limit.
        """
        self._wait(timeout)

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._told.is_set() if self._told is not None else self._done()

    def successful(self) -> bool:
        """Whether the call has ended without an exception.

        Raises
        ------
        ValueError
            It has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._outcome()[1] is None

    def _wait(self, timeout: float | None) -> bool:
        told, pool = self._told, self._pool
        # A child of this process would wait for ever; there the future raises.
        inherited = pool is not None and pool.check() == -errno.EXDEV
        if told is not None and not inherited:
            return told.wait(timeout)
        return self._settled(None if timeout is None else time.monotonic() + timeout)

    def _done(self) -> bool:
        future = self._future
        return future is None or future.done()

    def _settled(self, deadline: float | None) -> bool:
        """Wait for the end; whether it has come."""
        future = self._future
        return future is None or ended(future, deadline)

    def _outcome(self) -> tuple[T | None, BaseException | None]:
        """The result and the exception. It has ended."""
        # Several threads may be here at once. Each reads all, and the first one's word counts.
        known = self._known
        if known is None:
            known = self._read()
            if self._known is None:
                self._known = known
            self._forget()
        return self._known or known

    def _read(self) -> tuple[T | None, BaseException | None]:
        future = self._future
        if future is None:  # another thread was faster
            assert self._known is not None
            return self._known
        error = ended_with(future)
        return (future.result(), None) if error is None else (None, error)

    def _forget(self) -> None:
        """Let go of what was read; the future's callback refers to this object."""
        self._pool = self._future = None

    def _finish(self, _: object) -> None:
        """Call what was asked for. In the thread that tells of ends."""
        told = self._told
        assert told is not None
        try:
            result, error = self._outcome()
            if error is None:
                _call(self._callback, result)
            elif not isinstance(error, CancelledError):  # of which nobody hears there, either
                _call(self._error_callback, error)
        finally:
            self._callback = self._error_callback = None
            told.set()


class MapResult(AsyncResult[list[T]]):
    """The results of a map, now or later.

    Parameters
    ----------
    pool : Workers
        Where it runs; it is kept alive.
    futures : list
        Of the chunks, in order; each with the number of its items.
    callback, error_callback : callable, optional
        As for `AsyncResult`: once, with the list of all results, or with the exception of the first
        item, in order, that failed.
    bar : Bar, optional
        Shows how many items are done.
    """

    def __init__(
        self,
        pool: _core.Workers,
        futures: Sequence[tuple[_core.Future[list[T]], int]],
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        bar: Bar | None = None,
    ) -> None:
        if not futures:
            callback = error_callback = None  # nobody is told of nothing
        self._begin(pool, callback, error_callback)
        self._futures: Sequence[tuple[_core.Future[list[T]], int]] | None = futures
        self._bar = bar
        self._ended = 0  # the first so many have been seen to have ended
        self._pending = len(futures)
        if self._told is None and bar is None:
            return
        if not futures and bar is not None:
            bar.close()
        for future, count in futures:
            pool._when_done(future, functools.partial(self._one_ended, count))

    def _one_ended(self, count: int, _: object) -> None:
        """One chunk has ended. In the thread that tells of ends."""
        self._pending -= 1
        try:
            if self._bar is not None:
                _call(self._bar.update, count)
                if not self._pending:
                    _call(self._bar.close)
        finally:
            if not self._pending and self._told is not None:
                self._finish(None)

    def _done(self) -> bool:
        futures = self._futures
        if futures is None:
            return True
        while self._ended < len(futures):
            if not futures[self._ended][0].done():
                return False
            self._ended += 1
        return True

    def _settled(self, deadline: float | None) -> bool:
        futures = self._futures
        return futures is None or all(ended(future, deadline) for future, _ in futures)

    def _read(self) -> tuple[list[T] | None, BaseException | None]:
        futures = self._futures
        if futures is None:
            assert self._known is not None
            return self._known
        results: list[T] = []
        first = 0
        failure = None
        for future, count in futures:
            error = ended_with(future)
            if error is None:
                results.extend(future.result())
            else:
                note_lost_items(error, first, count, failure)
                failure = failure or error
            first += count
        return (results, None) if failure is None else (None, failure)

    def _forget(self) -> None:
        self._pool = self._futures = None


def ended(future: _core.Future[Any], deadline: float | None = None) -> bool:
    """Wait for a future to end, or for the deadline, by `time.monotonic`; whether it has ended."""
    try:
        future.exception(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except CancelledError:
        return True
    except TimeoutError:
        return False
    return True


def ended_with(future: _core.Future[Any]) -> BaseException | None:
    """The exception of a future that has ended."""
    try:
        return future.exception()
    except CancelledError:
        return terminated()


def terminated() -> CancelledError:
    """What becomes of a call whose pool is terminated."""
    return CancelledError("the pool was terminated before the job ended")


def _call(callback: Callable[..., object] | None, *args: Any) -> None:
    """Call back. What it raises is shown as that of a thread, which lives on."""
    if callback is None:
        return
    try:
        callback(*args)
    except BaseException:
        threading.excepthook(
            threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
        )
