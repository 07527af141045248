"""For programs that CPython's tests start: libpool comes when an executor is first imported.

That is the moment at which a program that imports it from libpool would get it, which decides the
order of what is done at the interpreter's end.
"""

from __future__ import annotations

import concurrent.futures


def _executor(name: str) -> object:
    if name not in ("ProcessPoolExecutor", "ThreadPoolExecutor"):
        raise AttributeError(f"module 'concurrent.futures' has no attribute {name!r}")
    import substitute

    return getattr(substitute, name)


concurrent.futures.__getattr__ = _executor
