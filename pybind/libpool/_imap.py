"""What `Pool.imap` and `Pool.imap_unordered` return."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from typing import Any, Generic, Self, TypeVar

from libpool._errors import Failed
from libpool._flow import Flow, Late, outcomes
from libpool._progress import Bar

__all__ = ["IMapIterator"]

T_co = TypeVar("T_co", covariant=True)


class IMapIterator(Generic[T_co]):
    """The results of `Pool.imap` or `Pool.imap_unordered`; an iterator.

    An exception that the function raised is raised in the place of the result, and the iteration
    can go on. One of the iterable comes after the results of the items before it, and ends the
    iteration.

    Several threads may take results from it. The iterable is advanced by whoever asks for a
    result. When it is closed or dropped, calls that no worker has begun are cancelled.
    """

    def __init__(self, flow: Flow, bar: Bar | None, unfed: Unfed) -> None:
        self._flow: Flow | None = flow
        self._bar = bar
        self._unfed: Unfed | None = unfed
        self._results: deque[Any] = deque()
        self._lock = threading.Lock()
        unfed.add(self)
        flow.feed()
        self._note_fed()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        try:
            result = self._results.popleft()
        except IndexError:
            result = self._next(None)
        if type(result) is Failed:
            raise result.exception
        return result  # type: ignore[no-any-return]

    def next(self, timeout: float | None = None) -> T_co:
        """Return the next result, waiting for it if need be.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default there is no limit.

        Raises
        ------
        StopIteration
            There are no more.
        libpool.TimeoutError
            It is not there in time; it can be asked for again.
        Exception
            What the function, or the iterable, raised; `libpool.WorkerDied` if the worker died.
        concurrent.futures.CancelledError
            The pool was terminated.
        """
        try:
            result = self._results.popleft()
        except IndexError:
            result = self._next(timeout)
        if type(result) is Failed:
            raise result.exception
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Cancel the calls that no worker has begun; there are no more results."""
        with self._lock:
            self._end()
            self._results.clear()

    def __del__(self) -> None:
        if getattr(self, "_flow", None) is not None:
            self._end()

    def _next(self, timeout: float | None) -> Any:
        deadline = None if timeout is None else time.monotonic() + max(timeout, 0)
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise _timeout_error()
        try:
            while True:
                try:
                    return self._results.popleft()
                except IndexError:
                    self._fetch(deadline)
        except Late:
            raise _timeout_error() from None
        finally:
            self._lock.release()

    def _fetch(self, deadline: float | None) -> None:
        """Wait for one more chunk of results."""
        flow = self._flow
        if flow is None:
            raise StopIteration
        try:
            chunk = flow.take(deadline)
            if chunk is None:
                error = flow.items.error
                self._end()
                if error is None:
                    raise StopIteration
                raise error
            found = outcomes(flow, chunk)
        except (Late, StopIteration):
            raise
        except Exception:  # not an interrupt: after that, it goes on
            self._end()
            raise
        self._results.extend(found)
        more = flow.drain(self._results)
        if self._bar is not None:
            self._bar.update(len(found) + more)
        self._note_fed()

    def feed_all(self) -> None:
        """Send all that is left, which may be much; called when the pool ends."""
        with self._lock:
            if self._flow is not None:
                self._flow.feed_all()
            self._note_fed()

    def _note_fed(self) -> None:
        """Tell the pool when it will not get more."""
        unfed = self._unfed
        if unfed is not None and (self._flow is None or self._flow.exhausted):
            self._unfed = None
            unfed.discard(self)

    def _end(self) -> None:
        flow, self._flow = self._flow, None
        bar, self._bar = self._bar, None
        if flow is not None:
            flow.cancel()
        if bar is not None:
            bar.close()
        self._note_fed()


class Unfed:
    """The iterators of a pool that have more to send. Until then it can't quite be closed.

    Parameters
    ----------
    pool : Pool
    """

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.ref(pool)
        self._iterators: weakref.WeakSet[IMapIterator[Any]] = weakref.WeakSet()
        self._closing = False

    def add(self, iterator: IMapIterator[Any]) -> None:
        """There is one more."""
        self._iterators.add(iterator)

    def discard(self, iterator: IMapIterator[Any]) -> None:
        """It has sent all, or is closed."""
        self._iterators.discard(iterator)
        if self._closing and not self._iterators:
            pool = self._pool()
            if pool is not None and pool._usable():
                pool.close()

    def closing(self) -> bool:
        """The pool is to be closed; whether that has to wait."""
        self._closing = True
        return len(self._iterators) > 0

    def feed_all(self) -> None:
        """Have all of them send what they have."""
        for iterator in list(self._iterators):
            iterator.feed_all()


def _timeout_error() -> Exception:
    from libpool._timeout import TimeoutError

    return TimeoutError("the next result is not there yet")
