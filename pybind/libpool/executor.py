"""The interface of `concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from libpool import _core
from libpool._errors import BrokenPool, note_lost_items
from libpool._lifetime import Base
from libpool._processes import WorkerProcess, wait_for_any, worker_processes

__all__ = ["Executor"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")

_Sent = tuple[_core.Future[Any], int]
"""A future, and how many calls it is for."""

_START_METHODS = ("fork", "forkserver", "spawn")


class Executor(Base, concurrent.futures.Executor):
    """Runs calls in worker processes; a `concurrent.futures.Executor`.

    The workers are started at once.

    Parameters
    ----------
    max_workers : int, optional
        How many worker processes, 1 to 1024. Default: one for each core that may be used, see
        `libpool.cpu_count()`.
    mp_context : multiprocessing context, optional
        Its start method is used: with ``fork`` the workers are copies of this process as it is
        now; with ``forkserver`` they are copies of a new interpreter that has imported
        `__main__`, with ``spawn`` of one that has not. Then the program needs its
        ``if __name__ == "__main__":``, as with `multiprocessing`. Default: what
        `multiprocessing.set_start_method()` chose, else ``fork`` while this process has one
        Python thread, ``forkserver`` when it has more.
    initializer : callable, optional
        Called as ``initializer(*initargs)`` once in each worker before its first job. If it
        raises, the pool is broken. Pickled, by value where need be, unless the start method is
        ``fork``.
    initargs : tuple
        Its arguments; the same goes for them.
    max_tasks_per_child : int, optional
        A worker is replaced after so many jobs. Default: never.
    thread_name_prefix : str
        A name as `ThreadPoolExecutor` takes it, also in second place; kept as `name_prefix`.
    name : str, optional
        What ``ps`` and ``top`` show for the workers, with their number. Default:
        `thread_name_prefix`, or ``libpool``.
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
    RuntimeError
        The main module is being imported by a worker: it lacks its guard.
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
        thread_name_prefix: str = "",
        name: str | None = None,
        shared_limit: int = 0,
        memory_limit: int = 0,
        timeout: float | None = None,
        retries: int = 0,
    ) -> None:
        if isinstance(mp_context, str) and mp_context not in _START_METHODS:
            thread_name_prefix, mp_context = mp_context, None
        self.name_prefix = thread_name_prefix
        if max_workers is None:
            max_workers = _core.cpu_count()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
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
            name=name or thread_name_prefix or None,
            context=mp_context,
        )

    _finishes_at_exit = True

    @staticmethod
    def _closed_error() -> RuntimeError:
        return RuntimeError("cannot schedule new futures after shutdown")

    @property
    def _max_workers(self) -> int:
        return self.workers

    @property
    def _broken(self) -> str | Literal[False]:
        """Why the pool can't be used any more, False while it can."""
        broken = self.check() == -errno.EOWNERDEAD
        return "the pool's supervisor process has ended unexpectedly" if broken else False

    @property
    def _processes(self) -> dict[int, WorkerProcess]:
        """The workers that there are now, by their process ids."""
        return worker_processes(self)

    # None takes any number of iterables: it would hide what the others say of their items.
    @overload  # type: ignore[override]
    def map(
        self,
        fn: Callable[[A], T],
        iterable: Iterable[A],
        /,
        *,
        timeout: float | None = ...,
        chunksize: int = ...,
        buffersize: int | None = ...,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[A, B], T],
        iterable1: Iterable[A],
        iterable2: Iterable[B],
        /,
        *,
        timeout: float | None = ...,
        chunksize: int = ...,
        buffersize: int | None = ...,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[[A, B, C], T],
        iterable1: Iterable[A],
        iterable2: Iterable[B],
        iterable3: Iterable[C],
        /,
        *,
        timeout: float | None = ...,
        chunksize: int = ...,
        buffersize: int | None = ...,
    ) -> Iterator[T]: ...

    @overload
    def map(
        self,
        fn: Callable[..., T],
        iterable1: Iterable[Any],
        iterable2: Iterable[Any],
        iterable3: Iterable[Any],
        iterable4: Iterable[Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = ...,
        chunksize: int = ...,
        buffersize: int | None = ...,
    ) -> Iterator[T]: ...

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, in parallel; like the built-in `map`.

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
        buffersize : int, optional
            At most so many chunks (calls, where `chunksize` is 1) are submitted whose results have
            not been yielded; then the iterables wait until one is. So they may be infinite.
            Default: they are exhausted at once.

        Returns
        -------
        iterator
            The results in order. When it is closed, or raises, the calls that still wait are
            cancelled.

        Raises
        ------
        ValueError
            `chunksize` or `buffersize` is less than 1.
        TypeError
            `buffersize` is no integer.
        TimeoutError
            From the iterator: a result was not there in time.
        RuntimeError
            The executor has been shut down; with `buffersize` also from the iterator.
        Exception
            From the iterator: what `fn` raised.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else timeout + time.monotonic()
        calls = self._submitted(fn, iterables, chunksize)
        if buffersize is None:
            results: Generator[Any, None, None] = _results(deque(calls), None, end)
        else:
            results = _results(deque(itertools.islice(calls, buffersize)), calls, end)
        return results if chunksize == 1 else _flattened(results)

    def _submitted(
        self, fn: Callable[..., T], iterables: tuple[Iterable[Any], ...], size: int
    ) -> Iterator[_Sent]:
        """Submit a chunk of calls each time that this is asked for the next."""
        if size == 1:
            return ((self.submit(fn, *args), 1) for args in zip(*iterables, strict=False))
        star = len(iterables) != 1
        items = zip(*iterables, strict=False) if star else iter(iterables[0])
        return ((self.submit_chunk(fn, chunk, star), len(chunk)) for chunk in _chunks(items, size))

    def terminate_workers(self) -> None:
        """Take no more jobs, cancel those that wait, and send SIGTERM to all workers.

        Jobs that run end with `WorkerDied`, unless they handle the signal. This does not wait for
        that; `shutdown` does.
        """
        self._force_shutdown(operation="terminate")

    def kill_workers(self) -> None:
        """Take no more jobs, cancel those that wait, and send SIGKILL to all workers.

        Jobs that run end with `WorkerDied`. This does not wait for that; `shutdown` does.
        """
        self._force_shutdown(operation="kill")

    def _force_shutdown(self, operation: str) -> None:
        if operation not in ("terminate", "kill"):
            raise ValueError(f"Unsupported operation: {operation!r}")
        if self._broken:
            return  # its workers have ended with the supervisor
        self.close()
        signalled: set[WorkerProcess] = set()
        self._signal_workers(operation, signalled)
        if not self.join(0):
            # No thread can be started when the interpreter ends; _at_exit() waits for the jobs.
            with contextlib.suppress(RuntimeError):
                threading.Thread(
                    target=_signal_until_ended,
                    args=[self, operation, signalled],
                    name="libpool-terminate",
                    daemon=True,
                ).start()

    def _signal_workers(self, operation: str, signalled: set[WorkerProcess]) -> None:
        """Cancel what waits, then signal the workers that are not in the set, and add them."""
        self.cancel_waiting()
        for process in self._processes.values():
            if process not in signalled:
                signalled.add(process)
                getattr(process, operation)()

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


def _signal_until_ended(executor: Executor, operation: str, signalled: set[WorkerProcess]) -> None:
    # A job with retries is put back into the queue when its worker has ended, and a worker may have
    # been started meanwhile. Neither is to go on. A worker's number is taken away when its job has
    # been put back; so where all numbers are of processes that live, nothing has yet to come.
    with contextlib.suppress(BrokenPool):
        while not executor.join(0):
            pids = executor.worker_pids()
            executor._signal_workers(operation, signalled)
            alive = [process for process in signalled if process.is_alive()]
            if len(alive) < len(pids) or not alive:
                time.sleep(0.0005)
            else:
                wait_for_any(alive, 0.1)


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _results(
    sent: deque[_Sent], more: Iterator[_Sent] | None, end: float | None
) -> Generator[Any, None, None]:
    # Not to be a reason for a result to live longer, each future, and each result, is dropped
    # before the result is handed out.
    first = 0
    ready = []
    try:
        while sent:
            count = sent[0][1]
            ready.append(_result_or_cancel(sent.popleft()[0], end, first, count))
            first += count
            if more is not None:
                sent.extend(itertools.islice(more, 1))
            yield ready.pop()
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
