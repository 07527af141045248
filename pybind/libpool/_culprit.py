"""Which part of an object can't be pickled, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from libpool import _core
from libpool._errors import short_repr

__all__ = ["name_culprit"]


def name_culprit(obj: Any, dumps: Callable[[Any], object]) -> str:
    """Find and name the innermost part of `obj` for which `dumps` raises."""

    def fails(part: Any) -> bool:
        try:
            dumps(part)
        except Exception:
            return True
        return False

    where = ""
    for _ in range(20):
        found = next(((path, part) for path, part in _parts(obj) if fails(part)), None)
        if found is None:
            break
        where += found[0]
        obj = found[1]
    type_name = type(obj).__qualname__
    found_at = f", found at {where.removeprefix(', ')}" if where else ""
    return f"{short_repr(obj)} (of type {type_name}){found_at}{_advice(obj)}"


def _advice(obj: Any) -> str:
    """What to do instead of sending `obj`, where there is something for it."""
    if isinstance(obj, _core.Workers):
        return "; in a job, libpool.current() is the pool that runs it"
    ctypes, cffi = sys.modules.get("_ctypes"), sys.modules.get("_cffi_backend")
    if (ctypes and isinstance(obj, ctypes.CFuncPtr)) or (
        cffi and isinstance(obj, cffi._CDataBase) and cffi.typeof(obj).kind == "function"
    ):
        return "; libpool.native() makes of a C function one that can be sent"
    return ""


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, tuple | list | set | frozenset):
        for number, item in enumerate(obj):
            yield f"[{number}]", item
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{short_repr(key, 40)}]", value
    elif type(obj) is FunctionType:
        cells = obj.__closure__ or ()
        for name, cell in zip(obj.__code__.co_freevars, cells, strict=True):
            try:
                yield f", variable {name}", cell.cell_contents
            except ValueError:
                continue
        for name in obj.__code__.co_names:
            if name in obj.__globals__:
                yield f", global {name}", obj.__globals__[name]
    elif not isinstance(obj, type | ModuleType | _core.Workers):  # a pool's parts explain nothing
        for name, value in getattr(obj, "__dict__", {}).items():
            yield f".{name}", value
