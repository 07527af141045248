"""Functions that tell what has arrived, or send something back."""

from __future__ import annotations

import collections
import enum
from typing import Any


def show(*args: Any, **keywords: Any) -> str:
    """Show the arguments."""
    return f"{args!r} {keywords!r}"


def same(value: Any) -> Any:
    """Send the argument back."""
    return value


def nested(depth: int) -> list[Any]:
    """Give a list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


class Seven(enum.IntEnum):
    """An integer by another name."""

    SEVEN = 7


class Index:
    """Stands for an integer, and has a side effect."""

    def __init__(self, number: int, effect: Any = None) -> None:
        self.number = number
        self.effect = effect

    def __index__(self) -> int:
        if self.effect:
            self.effect()
        return self.number


class Text(str):
    """A string of a class of its own."""


def alike() -> list[Any]:
    """Give what is no int, str, tuple or dict, but stands for one."""
    pair = collections.namedtuple("pair", "a b")
    return [collections.OrderedDict(a=1), pair(1, 2), Seven.SEVEN, Index(8), Text("text")]


def bad_index() -> Index:
    """Give an object whose conversion raises."""
    return Index(1, lambda: 1 / 0)


def changing() -> list[Any]:
    """Give a list that shrinks, and a dict that grows, while they are encoded."""
    texts: list[Any] = [str(i) * 5000 for i in range(9)]
    others: list[Any] = []

    def forget() -> int:
        texts.clear()
        others.extend("x" * 5000 for _ in range(20))  # in their place
        return 0

    texts.append(Index(9, forget))
    names: dict[str, Any] = {}
    names["x"] = Index(1, lambda: names.update({str(i): i for i in range(1000)}))
    return [texts, names]
