"""The interface of `multiprocessing.pool.Pool`."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

from libpool import _core
from libpool._errors import note_lost_items
from libpool._lifetime import Base

__all__ = ["Pool"]

T = TypeVar("T")

_TASKS_PER_WORKER = 4
"""Into how many chunks `map` divides its items for each worker, as in multiprocessing."""


class Pool(Base):
    """Runs calls in worker processes.

    The workers are forked at once, and are copies of this process as it is now. As a context
    manager, the pool is terminated at the end.

    Parameters
    ----------
    processes : int, optional
        How many worker processes, 1 to 1024. Default: one for each core that may be used, see
        `libpool.cpu_count()`.
    initializer : callable, optional
        Called as ``initializer(*initargs)`` once in each worker before its first job. If it
        raises, the pool is broken.
    initargs : tuple
        Its arguments.
    maxtasksperchild : int, optional
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
        `processes` or `shared_limit` is out of range.
    TypeError
        `initializer` is not callable.
    OSError, MemoryError
        The system has no more processes, descriptors or memory.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        shared_limit: int = 0,
        memory_limit: int = 0,
        timeout: float | None = None,
        retries: int = 0,
    ) -> None:
        if processes is None:
            processes = _core.cpu_count()
        elif processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
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
        )

    @staticmethod
    def _closed_error() -> ValueError:
        return ValueError("Pool not running")

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

    def map(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[T]:
        """Call `func` with each item, in parallel, and wait for all results.

        Parameters
        ----------
        func : callable
            Takes one item.
        iterable : iterable
            The items.
        chunksize : int, optional
            How many items go to a worker at a time. By default the items are divided into four
            chunks for each worker.

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
        return self._map(func, iterable, chunksize, star=False)

    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[T]:
        """Like `map`, but call ``func(*item)``."""
        return self._map(func, iterable, chunksize, star=True)

    def _map(
        self, func: Callable[..., T], iterable: Iterable[Any], chunksize: int | None, star: bool
    ) -> list[T]:
        self._check_running()
        items: Sequence[Any]
        items = iterable if isinstance(iterable, list | tuple | range) else list(iterable)
        if chunksize is None:
            chunksize = -(-len(items) // (self.workers * _TASKS_PER_WORKER)) or 1
        elif chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        futures: list[Any] = [
            self.submit_chunk(func, items[start : start + chunksize], star)
            for start in range(0, len(items), chunksize)
        ]
        results: list[T] = []
        failure: BaseException | None = None
        for number, future in enumerate(futures):
            error = future.exception()
            if error is None:
                results.extend(future.result())
            else:
                first = number * chunksize
                note_lost_items(error, first, min(chunksize, len(items) - first), failure)
                failure = failure or error
            futures[number] = None  # its memory is free for others
        if failure is None:
            return results
        try:
            raise failure
        finally:
            del failure, error  # breaks a cycle with this frame

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
        state = {0: "RUN", -errno.ESHUTDOWN: "CLOSE", -errno.EXDEV: "INHERITED"}
        name = state.get(self.check(), "BROKEN")
        return f"<libpool.Pool state={name} pool_size={self.workers}>"

    def _abandon(self) -> None:
        if not self._all_ended and self.check() == 0:
            warnings.warn(f"unclosed running pool {self!r}", ResourceWarning, source=self)  # noqa: B028

    def _at_exit(self) -> None:
        self.terminate()
