"""How many items of a map go to a worker at a time, and where the items come from."""

from __future__ import annotations

import itertools
import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["LARGEST_LAZY", "Items", "Sizes", "guided_sizes"]

_TARGET = 1e-3
"""Seconds that a chunk should take: some hundred times what it costs to send it."""

_FLOOR = 2e-5
"""Chunks shorter than this, in seconds, balance nothing any more."""

_GROWTH = 8
"""A chunk is at most so much larger than one that has been seen to end."""

_SHARES = 4
"""A chunk is at most this fraction of what each worker has yet to get."""

_MEMORY = 0.75
"""What earlier chunks weigh after the next one, for an estimate that follows the jobs."""

_FINENESS = 256
"""Into how many chunks, or a few more, items are divided whose jobs nobody has seen."""

LARGEST_LAZY = 256
"""How many items a chunk of a lazy map has at most, when no size is given."""


class Sizes:
    """Decides how many items come next, from how long those before took.

    Parameters
    ----------
    workers : int
        How many workers there are.
    fixed : int, optional
        Always this many.
    largest : int
        Never more than this.
    """

    def __init__(self, workers: int, fixed: int | None = None, largest: int = sys.maxsize) -> None:
        self.fixed = fixed
        self._shares = workers * _SHARES
        self._largest = largest
        self._proven = 0  # the largest chunk that has ended
        self._seconds = self._items = 0.0  # of chunks that have ended, the latest weighing most

    @property
    def known(self) -> bool:
        """Whether sizes rest on more than caution."""
        return self.fixed is not None or self._proven > 0

    def learn(self, items: int, seconds: float | None) -> None:
        """Take note of a chunk that has ended; `seconds` is None where that is not known."""
        if seconds is None:
            return
        self._proven = max(self._proven, items)
        self._seconds = self._seconds * _MEMORY + seconds
        self._items = self._items * _MEMORY + items

    def next(self, remaining: int | None) -> int:
        """How many items to send, if so many are left; None: nobody knows."""
        if self.fixed is not None:
            return self.fixed
        if not self._proven:
            return 1
        each = max(self._seconds / self._items, 1e-9)
        size = int(_TARGET / each)
        if remaining is not None:
            # So much that all workers end at the same time, whatever the jobs turn out to be.
            size = min(size, max(remaining // self._shares, int(_FLOOR / each)))
        return max(1, min(size, self._proven * _GROWTH, self._largest))


def guided_sizes(items: int, workers: int) -> Iterator[int]:
    """Divide items whose jobs nobody has seen, and that have to be sent all at once.

    The chunks become smaller towards the end, down to one item. The largest are small as well, so
    that few other items wait behind a long one.
    """
    largest = -(-items // _FINENESS)
    while items > 0:
        size = max(1, min(largest, items // (workers * _SHARES)))
        yield size
        items -= size


class Items:
    """The items of a map, taken a chunk at a time.

    Parameters
    ----------
    iterable : iterable
        Lists, tuples and ranges are cut into slices, of which those of a range travel as three
        numbers. All else is iterated over, when more is asked for.
    whole : bool
        An exception of the iterable costs the items of the chunk that it comes in, as in
        multiprocessing. Otherwise the items before it make a chunk.

    Attributes
    ----------
    error : Exception or None
        What the iterable raised. There are no more items then.
    total : int or None
        How many there are, if the iterable says so.
    """

    def __init__(self, iterable: Iterable[Any], whole: bool = False) -> None:
        self.error: Exception | None = None
        self.taken = 0
        self.total: int | None = None
        self._whole = whole
        self._sequence: Sequence[Any] | None = None
        self._iterator: Iterator[Any] | None = None
        self._pulled: list[Any] = []  # outlives an interrupt
        if type(iterable) in (list, tuple, range):
            self._sequence = iterable  # type: ignore[assignment]
        try:
            if hasattr(iterable, "__len__"):
                self.total = operator.length_hint(iterable)
            if self._sequence is None:
                self._iterator = iter(iterable)
        except Exception as error:
            self.error = error

    @property
    def remaining(self) -> int | None:
        """How many are left, if the iterable says so; never less than there are in a sequence."""
        return None if self.total is None else max(0, self.total - self.taken)

    @property
    def sliced(self) -> bool:
        """Whether they are there already: taking many at a time makes no difference."""
        return self._sequence is not None

    def take(self, size: int) -> Any:
        """The next items, `size` if there are as many: a list, tuple or range."""
        if self._sequence is not None:
            found: Any = self._sequence[self.taken : self.taken + size]
        elif self._iterator is None:
            return ()
        else:
            found = self._pull(size)
        self.taken += len(found)
        return found

    def _pull(self, size: int) -> list[Any]:
        assert self._iterator is not None
        pulled = self._pulled
        try:
            pulled.extend(itertools.islice(self._iterator, size - len(pulled)))
        except Exception as error:
            self.error = error
            self._iterator = None
            if self._whole:
                pulled.clear()
        self._pulled = []
        return pulled
