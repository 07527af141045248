"""Puts libpool in the place of the standard library's pools and executors, for CPython's tests.

To be done before the modules of those tests are imported, which remember the classes.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread
import multiprocessing
import multiprocessing.dummy
import multiprocessing.pool

import libpool
from libpool._errors import RemoteTraceback

__all__ = [
    "Pool",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "put_executors_in_place",
    "put_pools_in_place",
]


# The tests write these names into programs of theirs.
class ProcessPoolExecutor(libpool.Executor):
    """`libpool.Executor` under the name of the class that it stands in for."""


class ThreadPoolExecutor(libpool.Executor):
    """`libpool.Executor` under the name of the class that it stands in for."""


Pool = libpool.Pool


def put_executors_in_place() -> None:
    """Have whoever asks `concurrent.futures` for an executor get libpool's."""
    futures = concurrent.futures
    for module in (futures, futures.process):
        module.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc,assignment]
    for module in (futures, futures.thread):
        module.ThreadPoolExecutor = ThreadPoolExecutor  # type: ignore[misc,assignment]
    futures.process._RemoteTraceback = RemoteTraceback  # type: ignore[attr-defined]


def put_pools_in_place() -> None:
    """Have whoever asks `multiprocessing` for a pool get libpool's."""
    multiprocessing.Pool = Pool  # type: ignore[method-assign,assignment]
    multiprocessing.dummy.Pool = Pool  # type: ignore[assignment]
    multiprocessing.pool.Pool = Pool  # type: ignore[assignment,misc]
    multiprocessing.pool.ThreadPool = Pool  # type: ignore[assignment,misc]
    multiprocessing.pool.RemoteTraceback = RemoteTraceback  # type: ignore[assignment,misc]
