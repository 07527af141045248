"""Sends the items of a map to the workers, a chunk at a time, and takes what comes back."""

from __future__ import annotations

import errno
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any

from libpool import _core
from libpool._chunks import Items, Sizes
from libpool._errors import Failed, note_lost_items

__all__ = ["CHUNKS_AHEAD", "Chunk", "Flow", "Late", "outcomes"]

CHUNKS_AHEAD = 16
"""How many chunks for each worker are in flight: enough for the workers to have something to do
while this process does something else for some milliseconds."""

_CHUNKS_AT_FIRST = 2
"""The same, as long as nothing is known of the jobs."""

_AT_ONCE = 1024
"""At most so many chunks are sent in one go."""

_FEW = 8
"""So few items of a range travel as a list."""

_PATIENCE = 2e-3
"""Seconds to wait for one chunk, before all are watched."""

_SHORT = 2e-4
_MANY = 64
"""After so many chunks in a row that took fewer seconds than that, they are watched no more."""


class Late(Exception):
    """The time is over that `Flow.take` was given."""


class Chunk:
    """Items that were sent together.

    Attributes
    ----------
    first : int
        The position of the first.
    items : sequence
    future : Future
        Of the list of their results.
    """

    __slots__ = ("first", "future", "items")

    def __init__(self, first: int, items: Any, future: _core.Future[list[Any]]) -> None:
        self.first = first
        self.items = items
        self.future = future

    def release(self) -> _core.Future[list[Any]]:
        """Give the future away: its callback refers to the chunk, and that would be a cycle."""
        future = self.future
        del self.future
        return future


class Flow:
    """The chunks of one map that are in flight.

    Chunks that end soon are waited for one after the other, which needs no thread: they begin in
    the order in which they were sent. When one lets the caller wait, all are watched from then on:
    the pool's thread that tells of ends puts them in a queue as they end.

    Not thread-safe.

    Parameters
    ----------
    pool : Workers
        Where the chunks are sent.
    func : callable
        Takes an item.
    items : Items
        Of which more is taken only as chunks end.
    sizes : Sizes
        How many items make the next chunk.
    star, each : bool
        As for `Workers.submit_chunk`.
    ordered : bool
        Chunks come back in order, and one that has ended counts as in flight until it is taken.
    ahead : float
        How many chunks may be in flight for each worker.
    """

    def __init__(
        self,
        pool: _core.Workers,
        func: Callable[..., Any],
        items: Items,
        sizes: Sizes,
        *,
        star: bool,
        each: bool,
        ordered: bool,
        ahead: float = CHUNKS_AHEAD,
    ) -> None:
        self.items = items
        self.exhausted = False
        """All items have been sent, or what there was to say instead is in `items.error`."""
        self._ahead = ahead
        self._pool = pool
        self._workers = pool.workers
        self._func = func
        self._sizes = sizes
        self._star = star
        self._each = each
        self._ordered = ordered
        self._chunks: deque[Chunk] = deque()  # in flight, in order
        self._unsent: Any = ()  # items for which there was no memory
        self._next = 0  # their position, or that of the next item
        # A worker has no thread that tells of ends. Who waits there runs other jobs meanwhile.
        self._patience = math.inf if pool._in_worker else _PATIENCE
        self._ended: SimpleQueue[Chunk] | None = None
        self._short = 0

    def feed(self) -> None:
        """Send as much as may be in flight, once half of that has ended.

        So the workers get several chunks at a time, and not one for each that they have ended,
        for which they would be woken.
        """
        ahead = self._ahead if self._sizes.known else min(self._ahead, _CHUNKS_AT_FIRST)
        limit = self._workers * ahead
        if len(self._chunks) * 2 <= limit:
            self._send_up_to(limit)

    def feed_all(self) -> None:
        """Send all that is left; `MemoryError` if that is more than there is memory for."""
        if not self._sizes.known and self._chunks:
            # A millisecond spent here may save sending each item by itself.
            first = self._chunks[0]
            if _ends_within(first.future, self._patience, None):
                self._sizes.learn(len(first.items), first.future._spent())
        self._send_up_to(math.inf)
        if not self.exhausted:
            raise MemoryError("the pool has no shared memory left for the rest of the items")

    def _send_up_to(self, limit: float) -> None:
        if self._sizes.fixed is not None and self.items.sliced and not self._unsent:
            self._send_slices(self._sizes.fixed, limit)
        while not self.exhausted and len(self._chunks) < limit:
            items = self._unsent or self.items.take(self._sizes.next(self.items.remaining))
            if not items:
                self.exhausted = True
                return
            self._unsent = items
            try:
                self._send(self._next, items)
            except MemoryError as error:
                if not self._chunks:
                    self._refuse(error)
                return  # again when one that is in flight has made room
            except Exception as error:  # the pool takes nothing any more
                self._refuse(error)
                return
            self._next += len(items)
            self._unsent = ()

    def _send_slices(self, size: int, limit: float) -> None:
        """Send many chunks in one go, until something is in the way."""
        while not self.exhausted and len(self._chunks) < limit:
            items = self.items.take(size * int(min(limit - len(self._chunks), _AT_ONCE)))
            if not items:
                return
            if size <= _FEW:  # cheaper than a range for each chunk
                items = list(items)
            futures: list[_core.Future[list[Any]]] = []
            try:
                self._pool.submit_chunks(self._func, items, size, self._star, self._each, futures)
            except Exception:
                return  # who sends the next one by itself gets the same, and deals with it
            finally:
                self._note_sent(items, size, futures)

    def _note_sent(self, items: Any, size: int, futures: list[_core.Future[list[Any]]]) -> None:
        for start, future in zip(range(0, len(items), size), futures, strict=False):
            chunk = Chunk(self._next + start, items[start : start + size], future)
            self._chunks.append(chunk)
            if self._ended is not None:
                _watch(chunk, self._ended)
        sent = min(len(futures) * size, len(items))
        self._next += sent
        self.items.taken -= len(items) - sent

    def _refuse(self, error: Exception) -> None:
        self.items.error = error
        self._unsent = ()
        self.exhausted = True

    def _send(self, first: int, items: Any) -> None:
        future = self._pool.submit_chunk(self._func, items, self._star, self._each)
        chunk = Chunk(first, items, future)
        self._chunks.append(chunk)
        if self._ended is not None:
            _watch(chunk, self._ended)

    def take(self, deadline: float | None = None) -> Chunk | None:
        """Wait for the next chunk to end.

        Parameters
        ----------
        deadline : float, optional
            When to give up, by `time.monotonic`.

        Returns
        -------
        Chunk or None
            None: all have been taken.

        Raises
        ------
        Late
        """
        self.feed()
        while self._chunks:
            chunk = self._wait(deadline)
            if chunk is not None:
                if self._sizes.fixed is None or self._ended is not None:
                    self._learn(chunk)
                return chunk
            self.feed()
        return None

    def drain(self, results: deque[Any]) -> int:
        """Add the results of the next chunks that have ended, up to one that needs more care.

        Only where chunks have a fixed size, of which there may be many. Returns how many results.
        """
        if self._sizes.fixed is None or self._ended is not None:
            return 0
        count = 0
        chunks = self._chunks
        while chunks:
            future = chunks[0].future
            if not future.done():
                break
            try:
                if future.exception() is not None:
                    break
            except CancelledError:
                break
            chunks.popleft()
            found = future.result()
            results.extend(found)
            count += len(found)
        return count

    def _learn(self, chunk: Chunk) -> None:
        """Take note of how long a chunk took."""
        seconds = chunk.future._spent()
        self._sizes.learn(len(chunk.items), seconds)
        if self._ended is not None:
            self._short = self._short + 1 if seconds is not None and seconds < _SHORT else 0
            if self._short == _MANY:
                self._ended = None

    def again(self, first: int, items: Any, size: int) -> bool:
        """Send items again that were not begun, in chunks of `size`; False: that can't be done."""
        before = len(self._chunks)
        try:
            for start in range(0, len(items), size):
                self._send(first + start, items[start : start + size])
        except Exception:  # the pool takes nothing any more, or its memory is full
            while len(self._chunks) > before:
                self._chunks.pop().release().cancel()
            return False
        self._chunks.rotate(len(self._chunks) - before)  # they are first in order
        return True

    def _wait(self, deadline: float | None) -> Chunk | None:
        """Wait for something to happen; the next chunk if it has ended."""
        head = self._chunks[0]
        if self._ended is None:
            if head.future.done():  # as most are, where calls are short
                if self._sizes.fixed is None:
                    _ends_within(head.future, 0, None)  # collected, it tells how long it took
                return self._chunks.popleft()
            if not self._ordered:
                head = next((chunk for chunk in self._chunks if chunk.future.done()), head)
            if _ends_within(head.future, self._patience, deadline):
                self._chunks.remove(head)
                return head
            self._short = 0
            self._ended = SimpleQueue()
            for chunk in self._chunks:
                _watch(chunk, self._ended)
        elif self._ordered and head.future.done():
            self._chunks.popleft()
            return head
        if self._pool.check() == -errno.EXDEV:
            head.future.exception()  # raises: nobody tells this process of ends
        try:
            ended = self._ended.get(timeout=_left(deadline))
        except Empty:
            raise Late from None
        if self._ordered:
            return None
        self._chunks.remove(ended)
        return ended

    def cancel(self) -> None:
        """Cancel the chunks that no worker has begun, and send no more."""
        self.exhausted = True
        self._unsent = ()
        inherited = self._pool.check() == -errno.EXDEV  # they are the business of another process
        while self._chunks:
            future = self._chunks.pop().release()
            if not inherited:
                future.cancel()


def _watch(chunk: Chunk, ended: SimpleQueue[Chunk]) -> None:
    chunk.future.add_done_callback(lambda _: ended.put(chunk))


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _ends_within(future: _core.Future[list[Any]], patience: float, deadline: float | None) -> bool:
    """Whether it ends soon; `Late` if it does not by the deadline."""
    left = _left(deadline)
    timeout = patience if left is None else min(patience, left)
    try:
        future.exception(None if timeout == math.inf else timeout)
    except CancelledError:
        return True
    except TimeoutError:
        if left is not None and left <= patience:
            raise Late from None
        return False
    return True


def outcomes(flow: Flow, chunk: Chunk) -> list[Any]:
    """What came of the items of a chunk whose exceptions concern single items.

    Parameters
    ----------
    flow : Flow
        Gets those items again that are not concerned.
    chunk : Chunk
        One that has ended.

    Returns
    -------
    list
        For each item its result, or a `Failed`.

    Raises
    ------
    CancelledError
        The pool was terminated.
    """
    future, items = chunk.release(), chunk.items
    try:
        error = future.exception()
    except CancelledError:
        raise CancelledError("the pool was terminated before the job ended") from None
    if error is None:
        return future.result()
    lost = len(items)
    if future._was_sent():
        begun = getattr(error, "_libpool_part", lost - 1) + 1
        if begun < lost and flow.again(chunk.first + begun, items[begun:], lost - begun):
            lost = begun
        note_lost_items(error, chunk.first, lost)
    elif lost > 1 and flow.again(chunk.first, items, 1):
        return []  # something in it can't be pickled: each item finds out for itself
    return [Failed(error)] * lost
