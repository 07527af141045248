"""Puts libpool in the place of the standard library's executors, for CPython's own tests.

Imported before those tests, and in each program that they start.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread

import libpool
from libpool._errors import RemoteTraceback


# The tests write these names into programs of theirs.
class ProcessPoolExecutor(libpool.Executor):
    """`libpool.Executor` under the name of the class that it stands in for."""


class ThreadPoolExecutor(libpool.Executor):
    """`libpool.Executor` under the name of the class that it stands in for."""


def put_in_place() -> None:
    """Have whoever asks `concurrent.futures` for an executor get libpool's."""
    futures = concurrent.futures
    for module in (futures, futures.process):
        module.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc,assignment]
    for module in (futures, futures.thread):
        module.ThreadPoolExecutor = ThreadPoolExecutor  # type: ignore[misc,assignment]
    futures.process._RemoteTraceback = RemoteTraceback  # type: ignore[attr-defined]


put_in_place()
