"""Worker processes fed from shared memory, as fast stand-ins for the standard library's pools.

`Pool` has the interface of `multiprocessing.Pool`, `Executor` that of
`concurrent.futures.ProcessPoolExecutor`::

    with Pool() as pool:
        squares = pool.map(f, items)

    with Executor(max_workers=4) as executor:
        future = executor.submit(lambda x: x + k, 3)
"""

from __future__ import annotations

from libpool._core import Future, cpu_count, current
from libpool._errors import BrokenPool, RemoteError, WorkerDied
from libpool._stats import Stats, WorkerStats
from libpool.executor import Executor
from libpool.pool import Pool

__all__ = [
    "BrokenPool",
    "Executor",
    "Future",
    "Pool",
    "RemoteError",
    "Stats",
    "WorkerDied",
    "WorkerStats",
    "__version__",
    "cpu_count",
    "current",
]

__version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # not needed by most, and slow to import

        return version("libpool")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
