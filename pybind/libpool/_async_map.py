"""How many calls of an asynchronous map are under way, and in which order their results come."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from typing import Any, Generic, NamedTuple, TypeVar

from libpool._errors import note_lost_items

__all__ = ["Sent", "chunks_of", "flattened", "results", "zipped"]

T = TypeVar("T")
Arguments = tuple[Any, ...]


class Sent(NamedTuple, Generic[T]):
    """A job, and which items of the map it has."""

    future: asyncio.Future[T]
    first: int
    items: int


def zipped(
    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
) -> Iterator[Arguments] | AsyncIterator[Arguments]:
    """As the built-in `zip`; asynchronous if one of the iterables is."""
    if not iterables:
        raise TypeError("map() needs at least one iterable")
    if not any(isinstance(one, AsyncIterable) for one in iterables):
        return zip(*iterables)
    return _zipped(
        [aiter(one) if isinstance(one, AsyncIterable) else iter(one) for one in iterables]
    )


async def _zipped(
    iterators: list[Iterator[Any] | AsyncIterator[Any]],
) -> AsyncGenerator[Arguments, None]:
    while True:
        arguments = []
        for one in iterators:
            try:
                arguments.append(await anext(one) if isinstance(one, AsyncIterator) else next(one))
            except (StopIteration, StopAsyncIteration):
                return
        yield tuple(arguments)


def chunks_of(
    items: Iterator[Arguments] | AsyncIterator[Arguments], size: int
) -> Iterator[list[Arguments]] | AsyncIterator[list[Arguments]]:
    """Lists of `size` items, the last one of what is left."""
    return _async_chunks(items, size) if isinstance(items, AsyncIterator) else _chunks(items, size)


def _chunks(items: Iterator[Arguments], size: int) -> Iterator[list[Arguments]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _async_chunks(
    items: AsyncIterator[Arguments], size: int
) -> AsyncGenerator[list[Arguments], None]:
    chunk = []
    async for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Window(Generic[T]):
    """The jobs that were sent and whose results have not been taken."""

    def __init__(self) -> None:
        self.all_sent = False
        self.failure: BaseException | None = None
        """What the iterable raised: it comes after the results of the items before it."""
        self._changed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def put(self, sent: Sent[T]) -> None:
        raise NotImplementedError

    async def take(self) -> Sent[T] | None:
        """The next job whose result is to come, or None when there is none any more."""
        raise NotImplementedError

    def drop(self) -> None:
        """Cancel what is left."""
        raise NotImplementedError

    def end(self, failure: BaseException | None = None) -> None:
        self.all_sent = True
        self.failure = failure
        self.wake()

    def wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def change(self) -> None:
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None


class _Ordered(_Window[T]):
    def __init__(self) -> None:
        super().__init__()
        self._sent: deque[Sent[T]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def put(self, sent: Sent[T]) -> None:
        self._sent.append(sent)
        self.wake()

    async def take(self) -> Sent[T] | None:
        while not self._sent and not self.all_sent:
            await self.change()
        return self._sent.popleft() if self._sent else None

    def drop(self) -> None:
        for sent in self._sent:
            _abandon(sent.future)
        self._sent.clear()


class _Unordered(_Window[T]):
    def __init__(self) -> None:
        super().__init__()
        self._running: set[Sent[T]] = set()
        self._ended: deque[Sent[T]] = deque()

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def put(self, sent: Sent[T]) -> None:
        self._running.add(sent)
        sent.future.add_done_callback(functools.partial(self._end_of, sent))

    def _end_of(self, sent: Sent[T], future: asyncio.Future[T]) -> None:
        self._running.discard(sent)
        self._ended.append(sent)
        self.wake()

    async def take(self) -> Sent[T] | None:
        while not self._ended and (self._running or not self.all_sent):
            await self.change()
        return self._ended.popleft() if self._ended else None

    def drop(self) -> None:
        for sent in (*self._running, *self._ended):
            _abandon(sent.future)


def _abandon(future: asyncio.Future[Any]) -> None:
    if not future.cancel() and not future.cancelled():
        future.exception()  # or asyncio would complain that nobody has asked for it


async def results(
    send: Callable[[Any], Sent[T]],
    items: Iterator[Any] | AsyncIterator[Any],
    ordered: bool,
    limit: int,
) -> AsyncGenerator[T, None]:
    """Send a job for each item, at most `limit` ahead of the results.

    Parameters
    ----------
    send : callable
        Called with one item after the other.
    items : iterator or async iterator
    ordered : bool
        Whether the results come in the order of the items, or as they are ready.
    limit : int
        How many jobs may be under way, or ended and not taken.
    """
    window: _Window[T] = _Ordered() if ordered else _Unordered()
    if isinstance(items, AsyncIterator):
        room = asyncio.Semaphore(limit)
        sender = asyncio.create_task(_send_all(send, items, window, room))
        try:
            while (sent := await window.take()) is not None:
                room.release()
                yield await _result_of(sent)
        finally:
            sender.cancel()
            window.drop()
            await asyncio.wait([sender])
    else:
        try:
            _fill(send, items, window, limit)
            while (sent := await window.take()) is not None:
                yield await _result_of(sent)
                _fill(send, items, window, limit)
        finally:
            window.drop()
    if window.failure is not None:
        raise window.failure


def _fill(
    send: Callable[[Any], Sent[T]], items: Iterator[Any], window: _Window[T], limit: int
) -> None:
    while not window.all_sent and len(window) < limit:
        try:
            window.put(send(next(items)))
        except StopIteration:
            window.end()
        except Exception as error:
            window.end(error)


async def _send_all(
    send: Callable[[Any], Sent[T]],
    items: AsyncIterator[Any],
    window: _Window[T],
    room: asyncio.Semaphore,
) -> None:
    try:
        await room.acquire()
        async for item in items:
            window.put(send(item))
            await room.acquire()
        window.end()
    except Exception as error:
        window.end(error)
    except asyncio.CancelledError as error:
        window.end(error)  # by the iterable; who ended the iteration does not look
        raise


async def _result_of(sent: Sent[T]) -> T:
    try:
        return await sent.future
    except Exception as error:
        if sent.items > 1:
            note_lost_items(error, sent.first, sent.items)
        raise


async def flattened(lists: AsyncGenerator[list[T], None]) -> AsyncGenerator[T, None]:
    """The items of the lists."""
    async with contextlib.aclosing(lists):
        async for items in lists:
            for item in items:
                yield item
