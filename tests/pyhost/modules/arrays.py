"""Functions that work on arrays, of NumPy or not."""

from __future__ import annotations

from typing import Any

kept: list[Any] = []


def double(array: Any) -> str:
    """Double each element in place; say what arrived."""
    for i in range(len(array)):
        array[i] = array[i] * 2
    form = getattr(array, "dtype", None) or array.format
    flags = getattr(array, "flags", None)
    readonly = array.readonly if flags is None else not flags.writeable
    return f"{type(array).__name__} {form} {array.shape} {readonly}"


def set_first(array: Any, *others: Any) -> None:
    """Write to the array."""
    array[0] = 0


def keep(array: Any, *others: Any) -> int:
    """Keep the array beyond the job."""
    kept.append(array)
    return len(kept)


def first_of_kept() -> Any:
    """Read the array that was kept first."""
    return kept[0][0]


def forget_one() -> int:
    """Let go of the array that was kept last."""
    kept.pop()
    return len(kept)


def forget() -> int:
    """Let go of all that was kept."""
    kept.clear()
    return len(kept)


def check_format(array: memoryview, format: str) -> memoryview:
    """Check how the elements are named."""
    assert array.format in (format, {"q": "l", "Q": "L"}.get(format)), array.format
    assert array.readonly
    return array
