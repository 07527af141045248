"""The pool for asyncio: results come to the running event loop, without a thread in between.

The loop watches the descriptor on which the pool announces ended jobs (`loop.add_reader`), so any
loop that can do this will do, uvloop's included. Loops in several threads may use one pool.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from libpool import _core
from libpool._async_map import Sent, chunks_of, flattened, results, zipped
from libpool._lifetime import _SAME, Base, _Same

__all__ = ["Asyncio", "JobFuture"]

P = ParamSpec("P")
T = TypeVar("T")

_IN_FLIGHT_PER_WORKER = 16
"""How far `map` runs ahead: enough that a worker which does 100,000 tiny jobs a second has some
while the loop is busy for a tenth of a millisecond."""

_AFTER_THE_END = 0.01
"""Seconds between looks at jobs that are not yet declared lost after the supervisor's end."""


class JobFuture(asyncio.Future[T]):
    """The outcome of a job, for the event loop in which it was submitted.

    Cancelling it, also by cancelling the task that awaits it, cancels the job if no worker has
    begun it. One that runs goes on, and its outcome is dropped; see `Asyncio.options` for another
    way.
    """

    __slots__ = ("_awaited",)
    _awaited: _core._Awaited | None
    _kill = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the future, and the job if it can be.

        Returns
        -------
        bool
            False if it was done already.
        """
        if self.done():
            return False
        if self._awaited is not None:
            self._awaited.cancel(self._kill)
        return super().cancel(msg)


class _KilledFuture(JobFuture[T]):
    __slots__ = ()
    _kill = True


class _Reader(_core.LoopReader):
    """Puts what an event loop awaits of a pool on that loop's list of descriptors, and off it."""

    _loop: asyncio.AbstractEventLoop
    _watched: list[int]

    @classmethod
    def _attach(
        cls, workers: Base, loop: asyncio.AbstractEventLoop, announced: int, end: int
    ) -> Self:
        self = cls(workers, loop)
        self._loop = loop
        self._watched = []
        try:
            for descriptor, callback in (
                (announced, self.deliver),
                (self.wake, self.deliver),
                (end, self._supervisor_ended),
            ):
                loop.add_reader(descriptor, callback)
                self._watched.append(descriptor)
        except BaseException:
            self.retire()
            raise
        return self

    @classmethod
    def of(cls, workers: Base, loop: asyncio.AbstractEventLoop) -> Self | None:
        """The one that there is, or a new one; None in a worker of the pool."""
        found = cls.find(workers, loop)
        if found is None:
            descriptors = cls.descriptors(workers)
            if descriptors is not None:
                found = cls._attach(workers, loop, *descriptors)
        return found

    def _supervisor_ended(self) -> None:
        self._loop.remove_reader(self._watched.pop())  # it stays readable for ever
        self._deliver_lost()

    def _deliver_lost(self) -> None:
        if self.deliver_lost():
            self._loop.call_later(_AFTER_THE_END, self._deliver_lost)

    def retire(self) -> None:
        """Leave the loop, and let go of the pool."""
        for descriptor in self._watched:
            self._loop.remove_reader(descriptor)
        self._watched.clear()
        self.leave()


class _InWorker:
    """Awaits a job from within another one of the same pool.

    A worker gets no announcements: it waits for a job by running others meanwhile. That is what
    the loop does here once all else has run, so that many may be submitted before.
    """

    def __init__(
        self, job: _core.Future[Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._job = job
        self._future = future
        loop.call_soon(self._wait)

    def _wait(self) -> None:
        if self._future.done():
            return
        error = self._job.exception()
        if error is None:
            self._future.set_result(self._job.result())
        elif isinstance(error, StopIteration):  # would end the coroutine that awaits it
            refused = RuntimeError("the job raised StopIteration")
            refused.__cause__ = error
            self._future.set_exception(refused)
        else:
            self._future.set_exception(error)

    def cancel(self, kill: bool) -> None:
        self._job.cancel()


class Asyncio:
    """What a pool can do in a coroutine; the attribute `aio` of `Pool` and `Executor`.

    All methods belong to the thread of the running event loop. They need no helper thread.
    """

    __slots__ = ("_kill", "_workers")

    def __init__(self, workers: Base, kill_on_cancel: bool = False) -> None:
        self._workers = workers
        self._kill = kill_on_cancel

    def options(
        self,
        *,
        timeout: float | None | _Same = _SAME,
        retries: int | _Same = _SAME,
        kill_on_cancel: bool | None = None,
    ) -> Asyncio:
        """Give the same under other options for single jobs.

        Parameters
        ----------
        timeout, retries
            As for `Pool.options`.
        kill_on_cancel : bool, optional
            Whether cancelling ends a job also when it runs: its worker is killed and replaced.
            Otherwise it runs to its end, and its outcome is dropped. Default: as this object has
            it, at first False.
        """
        same = isinstance(timeout, _Same) and isinstance(retries, _Same)
        workers = self._workers if same else self._workers.options(timeout=timeout, retries=retries)
        return Asyncio(workers, self._kill if kill_on_cancel is None else kill_on_cancel)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]:
        """Have a worker call ``fn(*args, **kwargs)``. Never waits.

        Parameters
        ----------
        fn : callable
            What to call, as for `Pool.submit`.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        JobFuture
            An `asyncio.Future`, to be awaited, or given to `asyncio.gather`, `asyncio.wait` and
            the like. It raises what `fn` raised, `libpool.WorkerDied` if the worker died,
            `libpool.BrokenPool` if the pool broke.

        Raises
        ------
        RuntimeError
            No event loop runs in this thread.
        Exception
            As `Pool.submit`.
        """
        loop = asyncio.get_running_loop()
        return self._await(self._workers.submit(fn, *args, **kwargs), loop)

    def _await(self, job: _core.Future[T], loop: asyncio.AbstractEventLoop) -> JobFuture[T]:
        future: JobFuture[T] = (_KilledFuture if self._kill else JobFuture)(loop=loop)
        future._awaited = None
        try:
            reader = _Reader.find(self._workers, loop) or _Reader.of(self._workers, loop)
            if reader is not None:
                future._awaited = reader.add(job, future)
            else:
                future._awaited = _InWorker(job, future, loop)
        except BaseException:
            job.cancel()
            raise
        return future

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have a worker call ``fn(*args, **kwargs)``, and wait for the result.

        The same as ``await submit(...)``, as a coroutine: for `asyncio.TaskGroup.create_task`.
        """
        return await self.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = True,
        in_flight: int | None = None,
        chunksize: int = 1,
    ) -> AsyncGenerator[T, None]:
        """Call `fn` with the items of the iterables, in parallel: ``async for r in map(f, xs)``.

        Items are taken as results are, so the iterables may be endless. When the iteration ends
        early, the calls that still wait are cancelled; after a ``break`` that is when the iterator
        is dropped, with `contextlib.aclosing` at once.

        Parameters
        ----------
        fn : callable
            Takes one item of each iterable.
        *iterables
            Up to the end of the shortest. Of asynchronous ones, items are awaited while workers
            are busy.
        ordered : bool
            False: results come as they are ready.
        in_flight : int, optional
            How many calls may be with the workers, or done and not taken, rounded up to a chunk.
            Default: 16 chunks for each worker.
        chunksize : int
            How many calls go to a worker at a time.

        Returns
        -------
        async generator
            The results.

        Raises
        ------
        ValueError
            `in_flight` or `chunksize` is less than 1.
        TypeError
            There is no iterable, or one that can't be iterated.
        Exception
            While iterating: what `fn` or an iterable raised.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be at least 1, not {chunksize}")
        if in_flight is None:
            limit = _IN_FLIGHT_PER_WORKER * self._workers.workers
        elif in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight}")
        else:
            limit = -(-in_flight // chunksize)
        items = zipped(iterables)
        if chunksize == 1:
            return results(self._sender(fn), items, ordered, limit)
        send = self._chunk_sender(fn, star=len(iterables) != 1)
        return flattened(results(send, chunks_of(items, chunksize), ordered, limit))

    def _sender(self, fn: Callable[..., T]) -> Callable[[tuple[Any, ...]], Sent[T]]:
        numbers = itertools.count()

        def send(arguments: tuple[Any, ...]) -> Sent[T]:
            return Sent(self.submit(fn, *arguments), next(numbers), 1)

        return send

    def _chunk_sender(
        self, fn: Callable[..., T], star: bool
    ) -> Callable[[list[tuple[Any, ...]]], Sent[list[T]]]:
        first = 0

        def send(chunk: list[tuple[Any, ...]]) -> Sent[list[T]]:
            nonlocal first
            items = chunk if star else [item for (item,) in chunk]
            job = self._workers.submit_chunk(fn, items, star)
            sent = Sent(self._await(job, asyncio.get_running_loop()), first, len(chunk))
            first += len(chunk)
            return sent

        return send

    async def join(self) -> None:
        """Wait until all jobs and workers have ended, after `close` or `terminate` of the pool.

        Raises
        ------
        ValueError
            The pool is still running.
        """
        if _core.Workers.join(self._workers, 0):
            return
        descriptors = _core.LoopReader.descriptors(self._workers)
        if descriptors is not None:
            await _readable(descriptors[1])
        # What is left is callbacks of futures, which a thread calls. No event tells of their end.
        while not _core.Workers.join(self._workers, 0):
            await asyncio.sleep(_AFTER_THE_END)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool and wait for its jobs and workers; after an exception, terminate it."""
        if exc_type is None:
            self._workers.close()
        else:
            self._workers.terminate()
        try:
            await self.join()
        except BaseException:
            self._workers.terminate()
            raise


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor that others in this loop may wait for as well is readable."""
    loop = asyncio.get_running_loop()
    own = os.dup(descriptor)  # a loop has one callback for each
    try:
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(own, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(own)
    finally:
        os.close(own)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
