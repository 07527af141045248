"""Memory that the host and the workers of a pool share.

An array made here is never copied on its way to a job: the job works on the very same memory. So
what a job writes to it is seen by the host and by other jobs at once, as among threads; who writes
where is for the program to arrange.

::

    with Pool() as pool:
        image = libpool.shared.zeros((4000, 6000), pool=pool)
        pool.starmap(render, [(image, row) for row in range(0, 4000, 100)])

What is contiguous, as a slice of rows is, refers to the same memory, too; other slices are copied
as any array is.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
from collections import OrderedDict
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Generic, Literal, SupportsIndex, TypeVar

from libpool import _core

if TYPE_CHECKING:
    import numpy
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from libpool._lifetime import Base

__all__ = ["Shared", "array", "buffer", "empty", "full", "zeros"]

T = TypeVar("T")


def _pool_or_default(pool: Base | None) -> Any:
    if pool is not None:
        return pool
    workers: Base | None = _core.current()
    if workers is None:
        from libpool._lifetime import newest

        workers = newest()
    if workers is None:
        raise RuntimeError("there is no running pool whose memory could be used")
    return workers


def buffer(size: int, *, pool: Base | None = None) -> memoryview:
    """Memory of a pool, to be filled by anybody.

    Parameters
    ----------
    size : int
        Bytes. They are zero.
    pool : Pool or Executor, optional
        Whose memory it is, and to whose jobs it can go without being copied. Default: in a job the
        pool that runs it; else the one that was made last and is not closed.

    Returns
    -------
    memoryview
        Writable bytes. In a job the memoryview, or a contiguous part of it, is a view of the same
        memory. The memory is free again when nobody refers to it, here and in jobs.

    Raises
    ------
    MemoryError
        The pool's `shared_limit` does not allow it.
    RuntimeError, ValueError
        There is no running pool.
    """
    if size < 0:
        raise ValueError(f"size must not be negative, not {size}")
    memory = memoryview(_pool_or_default(pool)._allocate(size))
    _clear(memory)
    return memory


def _clear(memory: memoryview) -> None:
    step = 1 << 20
    zeros = bytes(min(step, len(memory)))
    for begin in range(0, len(memory), step):
        part = memory[begin : begin + step]
        part[:] = zeros[: len(part)]


def _sizes(shape: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    if isinstance(shape, Sequence):
        return tuple(map(operator.index, shape))
    return (operator.index(shape),)


def empty(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike = float,
    order: Literal["C", "F"] = "C",
    *,
    pool: Base | None = None,
) -> NDArray[Any]:
    """Like `numpy.empty`, in the memory of a pool; see `buffer`.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : data type
        Not one that contains Python objects.
    order : 'C' or 'F'
        Row-major or column-major.
    pool : Pool or Executor, optional
        As for `buffer`.

    Returns
    -------
    numpy.ndarray
    """
    import numpy

    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of {kind} can't be in shared memory: it holds Python objects")
    sizes = _sizes(shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"negative dimensions are not allowed: {shape!r}")
    block = _pool_or_default(pool)._allocate(math.prod(sizes) * kind.itemsize)
    return numpy.ndarray(sizes, kind, block, order=order)


def zeros(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike = float,
    order: Literal["C", "F"] = "C",
    *,
    pool: Base | None = None,
) -> NDArray[Any]:
    """Like `numpy.zeros`, in the memory of a pool; see `empty`."""
    import numpy

    made = empty(shape, dtype, order, pool=pool)
    made[...] = numpy.zeros((), made.dtype)
    return made


def full(
    shape: SupportsIndex | Sequence[SupportsIndex],
    fill_value: Any,
    dtype: DTypeLike = float,
    order: Literal["C", "F"] = "C",
    *,
    pool: Base | None = None,
) -> NDArray[Any]:
    """Like `numpy.full`, in the memory of a pool; see `empty`."""
    import numpy

    made = empty(shape, dtype, order, pool=pool)
    numpy.copyto(made, fill_value, casting="unsafe")
    return made


def array(
    object: ArrayLike, dtype: DTypeLike | None = None, *, pool: Base | None = None
) -> NDArray[Any]:
    """Copy an array, or what `numpy.asarray` makes one of, to the memory of a pool; see `empty`."""
    import numpy

    source: numpy.ndarray[Any, Any] = numpy.asarray(object, dtype)
    order: Literal["C", "F"] = "F" if source.flags.fnc else "C"
    made = empty(source.shape, source.dtype, order, pool=pool)
    made[...] = source
    return made


class Shared(Generic[T]):
    """An object that was put in a pool's memory once, to go to many jobs: see `Pool.share`.

    As an argument of a job, or anywhere in one, it arrives as the object itself. It can't be made
    but by ``share``.
    """

    __slots__ = ("_block", "_obj", "_serial")

    def __init__(self, obj: T, block: Any) -> None:
        self._obj = obj
        self._block = block
        # With buffers it is quickly unpickled, and would keep their memory in use.
        has_buffers = any(memoryview(block)[:4])
        self._serial = None if has_buffers else (os.getpid(), next(_serials))

    def get(self) -> T:
        """Give the object that was shared: this process's own."""
        return self._obj

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _arrive, (PickleBuffer(self._block), self._serial)

    def __repr__(self) -> str:
        return f"<libpool.shared.Shared of {len(memoryview(self._block))} bytes>"


_serials = itertools.count()

_MAX_ARRIVED = 16

_arrived: OrderedDict[tuple[int, int], Any] = OrderedDict()
"""What was unpickled last, by serial number."""


def _arrive(content: Any, serial: tuple[int, int] | None) -> Any:
    if serial is None:
        return _core._get(content)
    if serial in _arrived:
        _arrived.move_to_end(serial)
        return _arrived[serial]
    obj = _arrived[serial] = _core._get(content)
    if len(_arrived) > _MAX_ARRIVED:
        _arrived.popitem(last=False)
    return obj
