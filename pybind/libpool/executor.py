"""The interface of `concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import concurrent.futures
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, TypeVar

from libpool import _core
from libpool._errors import note_lost_items
from libpool._lifetime import Base

__all__ = ["Executor"]

T = TypeVar("T")


class Executor(Base, concurrent.futures.Executor):
    """Runs calls in worker processes; a `concurrent.futures.Executor`.

    The workers are forked at once, and are copies of this process as it is now.

    Parameters
    ----------
    max_workers : int, optional
        How many worker processes, 1 to 1024. Default: one for each core that may be used, see
        `libpool.cpu_count()`.
    mp_context : multiprocessing context, optional
        One whose start method is ``fork``, the only one that is supported.
    initializer : callable, optional
        Called as ``initializer(*initargs)`` once in each worker before its first job. If it
        raises, the pool is broken.
    initargs : tuple
        Its arguments.
    max_tasks_per_child : int, optional
        A worker is replaced after so many jobs. Default: never.
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

    Raises
    ------
    ValueError
        `max_workers`, `shared_limit` or the context's start method is out of range.
    TypeError
        `initializer` is not callable.
    OSError, MemoryError
        The system has no more processes, descriptors or memory.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        shared_limit: int = 0,
        memory_limit: int = 0,
        timeout: float | None = None,
        retries: int = 0,
    ) -> None:
        if max_workers is None:
            max_workers = _core.cpu_count()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if mp_context is not None:
            method = mp_context.get_start_method()
            if method != "fork":
                raise ValueError(
                    f"libpool does not support the start method {method!r}, only 'fork'"
                )
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        self._launch(
            max_workers,
            "max_workers",
            initializer,
            initargs,
            shared_limit=shared_limit,
            memory_limit=memory_limit,
            timeout=timeout,
            retries=retries,
            tasks=max_tasks_per_child,
        )

    _finishes_at_exit = True

    @staticmethod
    def _closed_error() -> RuntimeError:
        return RuntimeError("cannot schedule new futures after shutdown")

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, in parallel; like the built-in `map`.

        The iterables are exhausted at once.

        Parameters
        ----------
        fn : callable
            Takes one item of each iterable.
        *iterables
            Up to the end of the shortest.
        timeout : float, optional
            Seconds from now in which all results have to be there.
        chunksize : int
            How many calls go to a worker at a time.

        Returns
        -------
        iterator
            The results in order. When it is closed, or raises, the calls that still wait are
            cancelled.

        Raises
        ------
        ValueError
            `chunksize` is less than 1.
        TimeoutError
            From the iterator: a result was not there in time.
        Exception
            From the iterator: what `fn` raised.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        end = None if timeout is None else timeout + time.monotonic()
        if chunksize == 1:
            calls = [(self.submit(fn, *args), 1) for args in zip(*iterables, strict=False)]
            return _results(calls, end)
        chunks: Iterator[list[Any]]
        if len(iterables) == 1:
            chunks = _chunks(iter(iterables[0]), chunksize)
        else:
            chunks = _chunks(zip(*iterables, strict=False), chunksize)
        star = len(iterables) != 1
        sent = [(self.submit_chunk(fn, chunk, star), len(chunk)) for chunk in chunks]
        return _flattened(_results(sent, end))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; the workers end when those that were submitted have ended.

        Parameters
        ----------
        wait : bool
            Return when all jobs and workers have ended. Otherwise they end in the background,
            and the interpreter waits for them at its own end.
        cancel_futures : bool
            Cancel the jobs that no worker has begun.
        """
        self.close()
        if cancel_futures:
            self.cancel_waiting()
        if wait:
            self.join()
        else:
            self._linger()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        # Ctrl-C interrupts ProcessPoolExecutor's workers, too, and so ends its jobs. Here it is
        # the host's alone.
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            self.terminate()
        self.shutdown()
        return False

    def _at_exit(self) -> None:
        self.shutdown()


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _results(
    sent: list[tuple[_core.Future[T], int]], end: float | None
) -> Generator[T, None, None]:
    # `sent` are futures, and how many calls each has. Not to be a reason for a result to live
    # longer, each future is dropped before its result is handed out.
    sent.reverse()
    first = 0
    try:
        while sent:
            count = sent[-1][1]
            yield _result_or_cancel(sent.pop()[0], end, first, count)
            first += count
    finally:
        for future, _ in sent:
            future.cancel()


def _result_or_cancel(future: _core.Future[T], end: float | None, first: int, count: int) -> T:
    try:
        try:
            return future.result(None if end is None else end - time.monotonic())
        except Exception as error:
            note_lost_items(error, first, count)
            raise
        finally:
            future.cancel()
    finally:
        del future  # breaks a cycle with the exception


def _flattened(lists: Generator[list[T], None, None]) -> Generator[T, None, None]:
    try:
        for results in lists:
            results.reverse()
            while results:
                yield results.pop()
    finally:
        lists.close()
