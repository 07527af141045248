"""Functions that tell what has arrived, or send it back."""

from __future__ import annotations

from typing import Any


def show(*args: Any, **keywords: Any) -> str:
    """Show the arguments."""
    return f"{args!r} {keywords!r}"


def same(value: Any) -> Any:
    """Send the argument back."""
    return value
