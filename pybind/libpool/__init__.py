"""Worker processes fed from shared memory, as fast stand-ins for the standard library's pools.

`Pool` has the interface of `multiprocessing.Pool`, `Executor` that of
`concurrent.futures.ProcessPoolExecutor`::

    with Pool() as pool:
        squares = pool.map(f, items)

    with Executor(max_workers=4) as executor:
        future = executor.submit(lambda x: x + k, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libpool import shared
from libpool._async_result import AsyncResult
from libpool._core import Future, cpu_count, current
from libpool._errors import BrokenPool, RemoteError, WorkerDied
from libpool._stats import Stats, WorkerStats
from libpool.executor import Executor
from libpool.pool import Pool

if TYPE_CHECKING:
    from libpool._native import InOut, NativeFunction, Out, native
    from libpool._timeout import TimeoutError as TimeoutError

__all__ = [
    "AsyncResult",
    "BrokenPool",
    "Executor",
    "Future",
    "InOut",
    "NativeFunction",
    "Out",
    "Pool",
    "RemoteError",
    "Stats",
    "WorkerDied",
    "WorkerStats",
    "__version__",
    "cpu_count",
    "current",
    "native",
    "shared",
]

__version__: str


def __getattr__(name: str) -> Any:
    # What most don't need, and is slow to import.
    if name == "TimeoutError":
        from libpool._timeout import TimeoutError

        return TimeoutError
    if name == "__version__":
        from importlib.metadata import version

        return version("libpool")
    if name in ("InOut", "NativeFunction", "Out", "native"):
        from libpool import _native

        return getattr(_native, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
