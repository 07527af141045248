"""The `TimeoutError` of `libpool.AsyncResult` and of the iterators of `libpool.Pool.imap`.

A module of its own, which is imported when one is raised: `multiprocessing` takes a while.
"""

from __future__ import annotations

import builtins
import multiprocessing

__all__ = ["TimeoutError"]


class TimeoutError(multiprocessing.TimeoutError, builtins.TimeoutError):
    """The result was not there in time. The job goes on.

    Both a `multiprocessing.TimeoutError`, which the imitated interface raises, and the built-in
    one.
    """
