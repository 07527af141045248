"""The interface of `multiprocessing.pool.Pool`."""

from __future__ import annotations

import errno
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias, TypeVar

from libpool import _core
from libpool._async_result import AsyncResult, MapResult, ended_with, terminated
from libpool._chunks import LARGEST_LAZY, Items, Sizes, guided_sizes
from libpool._errors import note_lost_items
from libpool._flow import CHUNKS_AHEAD, Flow
from libpool._imap import IMapIterator, Unfed
from libpool._lifetime import Base
from libpool._processes import WorkerProcess, worker_processes
from libpool._progress import Bar, Progress, make_bar

__all__ = ["Pool"]

S = TypeVar("S")
T = TypeVar("T")


_Items: TypeAlias = list[Any] | tuple[Any, ...] | range

_FEW = 8
"""Chunks of so few items are cut from a list: cutting a range takes longer than its numbers do."""


class Pool(Base):
    """Runs calls in worker processes.

    The workers are started at once. As a context manager, the pool is terminated at the end.

    Parameters
    ----------
    processes : int, optional
        How many worker processes, 1 to 1024. Default: one for each core that may be used, see
        `libpool.cpu_count()`.
    initializer : callable, optional
        Called as ``initializer(*initargs)`` once in each worker before its first job. If it
        raises, the pool is broken. Pickled, by value where need be, unless the start method is
        ``fork``.
    initargs : tuple
        Its arguments; the same goes for them.
    maxtasksperchild : int, optional
        A worker is replaced after so many jobs. Default: never.
    context : multiprocessing context, optional
        Its start method is used: with ``fork`` the workers are copies of this process as it is
        now; with ``forkserver`` they are copies of a new interpreter that has imported
        `__main__`, with ``spawn`` of one that has not. Then the program needs its
        ``if __name__ == "__main__":``, as with `multiprocessing`. Default: what
        `multiprocessing.set_start_method()` chose, else ``fork`` while this process has one
        Python thread, ``forkserver`` when it has more.
    shared_limit : int
        The most shared memory, in bytes, that arguments and results may take; 0: what this
        machine or container has. Results that nobody has fetched count too: they take memory
        until their future is asked for them, or is dropped.
    memory_limit : int
        Bytes that a worker may allocate beyond what it has at its start; 0: no limit. A job that
        goes over it gets `MemoryError`; in native code that does not look whether it got memory
        its worker dies.
    timeout, retries
        For all jobs; see `options`.
    name : str, optional
        What ``ps`` and ``top`` show for the workers, with their number. Default: ``libpool``.

    Raises
    ------
    ValueError
        `processes` or `shared_limit` is out of range.
    TypeError
        `initializer` is not callable.
    RuntimeError
        The main module is being imported by a worker: it lacks its guard.
    OSError, MemoryError
        The system has no more processes, descriptors or memory.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        shared_limit: int = 0,
        memory_limit: int = 0,
        timeout: float | None = None,
        retries: int = 0,
        name: str | None = None,
    ) -> None:
        if processes is None:
            processes = _core.cpu_count()
        elif processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        self._unfed = Unfed(self)
        self._launch(
            processes,
            "processes",
            initializer,
            initargs,
            shared_limit=shared_limit,
            memory_limit=memory_limit,
            timeout=timeout,
            retries=retries,
            tasks=maxtasksperchild,
            name=name,
            context=context,
        )

    def _attached(self) -> None:
        self._unfed = Unfed(self)

    @staticmethod
    def _closed_error() -> ValueError:
        return ValueError("Pool not running")

    @property
    def _processes(self) -> int:
        """How many workers; programs divide by it to choose a `chunksize`."""
        return self.workers

    @property
    def _pool(self) -> list[WorkerProcess]:
        """The workers that there are now."""
        return list(worker_processes(self).values())

    def _check_running(self) -> None:
        if self.check() == -errno.ESHUTDOWN:
            raise self._closed_error()

    def apply(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},  # noqa: B006 -- the imitated signature
    ) -> T:
        """Call ``func(*args, **kwds)`` in a worker and wait for the result.

        Raises
        ------
        ValueError
            The pool is closed.
        Exception
            What `func` raised; `libpool.WorkerDied` if its worker died.
        """
        return self.submit(func, *args, **kwds).result()

    def apply_async(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},  # noqa: B006 -- the imitated signature
        callback: Callable[[T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[T]:
        """Have a worker call ``func(*args, **kwds)``, and do not wait.

        Parameters
        ----------
        func, args, kwds
            The call.
        callback : callable, optional
            Called with the result.
        error_callback : callable, optional
            Called with the exception, if there is one. Both are called in a thread of this
            process, one at a time.

        Raises
        ------
        ValueError
            The pool is closed.
        """
        return AsyncResult(self, self.submit(func, *args, **kwds), callback, error_callback)

    def map(
        self,
        func: Callable[[S], T],
        iterable: Iterable[S],
        chunksize: int | None = None,
        *,
        progress: Progress = False,
    ) -> list[T]:
        """Call `func` with each item, in parallel, and wait for all results.

        Parameters
        ----------
        func : callable
            Takes one item.
        iterable : iterable
            The items. All are taken before the first call.
        chunksize : int, optional
            How many items go to a worker at a time. By default as many as take about a
            millisecond, as the calls turn out, and fewer towards the end: short calls are
            bundled, long ones go to the workers one at a time.
        progress : bool or dict
            Show a progress bar on stderr, if that is a terminal; a dict has keywords for `tqdm`,
            which has to be installed.

        Returns
        -------
        list
            The results in order.

        Raises
        ------
        ValueError
            The pool is closed, or `chunksize` is less than 1.
        Exception
            The first, in order, that `func` raised; it is raised when all chunks have ended. The
            rest of its chunk is not called.
        """
        return self._map(func, iterable, chunksize, False, progress)

    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        progress: Progress = False,
    ) -> list[T]:
        """Like `map`, but call ``func(*item)``."""
        return self._map(func, iterable, chunksize, True, progress)

    def map_async(
        self,
        func: Callable[[S], T],
        iterable: Iterable[S],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        progress: Progress = False,
    ) -> AsyncResult[list[T]]:
        """Like `map`, but do not wait.

        Parameters
        ----------
        func, iterable, progress
            As for `map`.
        chunksize : int, optional
            As for `map`. By default, since nothing is known of the calls when they are sent, about
            a 256th of the items, and fewer towards the end.
        callback : callable, optional
            Called once, with the list of all results; not if there are no items.
        error_callback : callable, optional
            Called once, with what `map` would raise. Both are called in a thread of this process,
            one at a time.
        """
        return self._map_async(func, iterable, chunksize, callback, error_callback, False, progress)

    def starmap_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        progress: Progress = False,
    ) -> AsyncResult[list[T]]:
        """Like `map_async`, but call ``func(*item)``."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, True, progress)

    def imap(
        self,
        func: Callable[[S], T],
        iterable: Iterable[S],
        chunksize: int | None = None,
        *,
        progress: Progress = False,
    ) -> IMapIterator[T]:
        """Like `map`, but lazily: an iterator over the results.

        The iterable may be infinite. It is advanced here, and then whenever a result is asked
        for, by who asks, so that at most 16 chunks for each worker have been taken from it whose
        results have not been handed out: 4096 items for each worker where `chunksize` is not
        given.

        Parameters
        ----------
        func, progress
            As for `map`.
        iterable : iterable
            The items. An exception that it raises is raised by the iterator, after the results of
            the items before it; with a `chunksize`, after those of full chunks.
        chunksize : int, optional
            As for `map`, at most 256 by default. In multiprocessing the default is 1.

        Returns
        -------
        IMapIterator
            The results in order. What `func` raises for an item is raised in its place, and the
            iteration can go on.

        Raises
        ------
        ValueError
            The pool is closed, or `chunksize` is less than 1.
        """
        return self._imap(func, iterable, chunksize, True, progress)

    def imap_unordered(
        self,
        func: Callable[[S], T],
        iterable: Iterable[S],
        chunksize: int | None = None,
        *,
        progress: Progress = False,
    ) -> IMapIterator[T]:
        """Like `imap`, but each chunk's results come when it has ended."""
        return self._imap(func, iterable, chunksize, False, progress)

    def _map(
        self,
        func: Callable[..., T],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        progress: Progress,
    ) -> list[T]:
        self._check_running()
        items, bar = _sequence(iterable, chunksize, progress)
        if bar is None and (chunksize is not None or self._in_worker):
            return _gather(*self._send_all(func, items, chunksize, star))
        results: list[Any] = [None] * len(items)
        failures: list[tuple[int, int, BaseException]] = []
        flow = Flow(
            self,
            func,
            Items(items),
            Sizes(self.workers, chunksize),
            star=star,
            each=False,
            ordered=False,
            ahead=CHUNKS_AHEAD if chunksize is None else math.inf,
        )
        try:
            while (chunk := flow.take()) is not None:
                first, count, future = chunk.first, len(chunk.items), chunk.release()
                error = ended_with(future)
                if error is None:
                    results[first : first + count] = future.result()
                else:
                    failures.append((first, count, error))
                if bar is not None:
                    bar.update(count)
            if flow.items.error is not None:
                raise flow.items.error
            if failures:
                raise _first_of(failures)
            return results
        finally:
            flow.cancel()
            if bar is not None:
                bar.close()
            future = error = None  # type: ignore[assignment] # breaks a cycle
            failures.clear()

    def _send_all(
        self, func: Callable[..., T], items: _Items, chunksize: int | None, star: bool
    ) -> tuple[list[_core.Future[list[T]]], list[int]]:
        """Send all items at once; the chunks' futures, and how many items each has."""
        count = len(items)
        futures: list[_core.Future[list[T]]] = []
        if chunksize is not None:
            sizes = [chunksize] * (count // chunksize)
            if count % chunksize:
                sizes.append(count % chunksize)
            if chunksize <= _FEW:
                items = list(items)
            self.submit_chunks(func, items, chunksize, star, False, futures)
            return futures, sizes
        sizes = list(guided_sizes(count, self.workers))
        start = 0
        for size in sizes:
            futures.append(self.submit_chunk(func, items[start : start + size], star))
            start += size
        return futures, sizes

    def _map_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callable[[list[T]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        star: bool,
        progress: Progress,
    ) -> AsyncResult[list[T]]:
        self._check_running()
        items, bar = _sequence(iterable, chunksize, progress)
        futures, sizes = self._send_all(func, items, chunksize, star)
        sent = list(zip(futures, sizes, strict=True))
        return MapResult(self, sent, callback, error_callback, bar)

    def _imap(
        self,
        func: Callable[[S], T],
        iterable: Iterable[S],
        chunksize: int | None,
        ordered: bool,
        progress: Progress,
    ) -> IMapIterator[T]:
        self._check_running()
        _check_chunksize(chunksize)
        items = Items(iterable, whole=chunksize is not None)
        bar = make_bar(progress, items.total)
        sizes = Sizes(self.workers, chunksize, LARGEST_LAZY)
        flow = Flow(self, func, items, sizes, star=False, each=True, ordered=ordered)
        return IMapIterator(flow, bar, self._unfed)

    def close(self) -> None:
        """Take no more calls. Those that were submitted run, then the workers end.

        The rest of the items of an unfinished `imap` is still taken as its results are, or by
        `join()`.
        """
        if self._unfed.closing():
            self._close_later()
        else:
            super().close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all jobs and workers have ended. Call `close` or `terminate` first.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default there is no limit.

        Returns
        -------
        bool
            Whether they have ended.

        Raises
        ------
        ValueError
            The pool is still running.
        """
        if self.check() == 0:
            raise ValueError("Pool is still running")
        self._unfed.feed_all()
        return super().join(timeout)

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        ending = "TERMINATE" if self._terminated else "CLOSE"
        state = {0: "RUN", -errno.ESHUTDOWN: ending, -errno.EXDEV: "INHERITED"}
        name = state.get(self.check(), "BROKEN")
        return f"<libpool.Pool state={name} pool_size={self.workers}>"

    def _abandon(self) -> None:
        if not self._all_ended and self.check() == 0:
            warnings.warn(f"unclosed running pool {self!r}", ResourceWarning, source=self)  # noqa: B028

    def _at_exit(self) -> None:
        self.terminate()


def _first_of(failures: list[tuple[int, int, BaseException]]) -> BaseException:
    """The first failure, in order, of (first item, number of items, error); it tells of all."""
    failures.sort(key=operator.itemgetter(0))
    failure = failures[0][2]
    for first, count, error in failures:
        note_lost_items(error, first, count, None if error is failure else failure)
    return failure


def _gather(futures: list[_core.Future[list[T]]], sizes: list[int]) -> list[T]:
    """Wait for all chunks; their results, or the first exception."""
    results: list[T] = []
    taken = _core.gather(futures, results)
    if taken == len(futures):
        return results
    first = sum(sizes[:taken])
    failure: BaseException | None = None
    del futures[:taken]
    futures.reverse()
    for count in sizes[taken:]:
        future = futures.pop()  # so that its memory is free for others
        try:
            error = future.exception()
        except CancelledError:
            error = terminated()
        if error is None:
            results.extend(future.result())
        else:
            note_lost_items(error, first, count, failure)
            failure = failure or error
        first += count
    if failure is None:
        return results
    try:
        raise failure
    finally:
        del failure, error  # breaks a cycle with this frame


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def _sequence(
    iterable: Iterable[Any], chunksize: int | None, progress: Progress
) -> tuple[_Items, Bar | None]:
    """What a map needs before its first call: all items, and the bar."""
    _check_chunksize(chunksize)
    items: Any = iterable
    if type(iterable) not in (list, tuple, range):
        items = list(iterable)
    return items, make_bar(progress, len(items))
