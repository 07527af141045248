"""For programs that CPython's tests start: libpool comes when an executor is first imported.

That is the moment at which a program that imports it from libpool would get it, which decides the
order of what is done at the interpreter's end.
"""

from __future__ import annotations

import concurrent.futures
import sys
from types import ModuleType


def _executor(name: str) -> object:
    if name not in ("ProcessPoolExecutor", "ThreadPoolExecutor"):
        raise AttributeError(f"module 'concurrent.futures' has no attribute {name!r}")
    import substitute

    substitute.put_executors_in_place()
    return getattr(substitute, name)


class _Multiprocessing(ModuleType):
    """What `multiprocessing` becomes. Its own `Pool` is a plain attribute."""

    @property
    def Pool(self) -> object:  # noqa: N802
        import substitute

        return substitute.Pool


concurrent.futures.__getattr__ = _executor
import multiprocessing  # noqa: E402

del multiprocessing.Pool
sys.modules["multiprocessing"].__class__ = _Multiprocessing
