"""What is sent by reference, what by value, and what may be sent again: libpool's own view."""

from __future__ import annotations

import collections
import functools
import json
import math
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import libpool
from libpool._errors import short_repr
from libpool._functions import Registry
from libpool._names import names_of
from libpool._snapshot import is_user_module

LIMIT = 5


def leaf(x: int) -> int:
    return x + LIMIT


def caller(x: int) -> int:
    return leaf(x)


class Thing:
    def get(self) -> int:
        return 1

    @staticmethod
    def plain() -> int:
        return 2


def uses_thing() -> int:
    return Thing().get()


@pytest.fixture
def registry() -> Registry:
    return Registry()


def by_reference(payload: bytes) -> bool:
    return len(payload) < 100 and b"code" not in payload


def holds(guards: Any) -> bool:
    for guard in guards:
        match guard:
            case "item", place, key, value:
                if place.get(key) is not value:
                    return False
            case "func", function, *expected:
                now = [function.__code__, function.__defaults__, function.__kwdefaults__]
                if any(a is not b for a, b in zip(now, expected, strict=True)):
                    return False
            case "cell", cell, value:
                if cell.cell_contents is not value:
                    return False
            case _:
                raise AssertionError(guard)
    return True


@pytest.mark.parametrize(
    "function",
    [leaf, caller, json.dumps, math.sqrt, len, int, Path.cwd, Thing.plain, collections.Counter],
    ids=lambda function: function.__qualname__,
)
def test_sent_by_reference(registry: Registry, function: Callable[..., Any]) -> None:
    payload, guards = registry.describe(function)
    assert by_reference(payload)
    assert pickle.loads(payload) == function
    assert guards is None or holds(guards)


def test_sent_by_reference_and_again(registry: Registry) -> None:
    for function in (leaf, caller, json.dumps, math.sqrt, len, int):
        payload, guards = registry.describe(function)
        assert guards is not None and holds(guards)


def test_what_depends_on_a_class_is_looked_at_each_time(registry: Registry) -> None:
    for _ in range(2):
        payload, guards = registry.describe(uses_thing)
        assert by_reference(payload) and guards is None


def closures() -> Iterator[tuple[str, Callable[..., Any], bool]]:
    number, text, pair, items, module, thing = 5, "x", (1, ("a", None)), [1], math, Thing()
    yield "nothing", lambda: 1, True
    yield "a number", lambda: number, True
    yield "a tuple", lambda: (text, pair), True
    yield "a module", lambda: module.sqrt(4), True
    yield "a library function", lambda: json.dumps(1), True
    yield "a function of the program", lambda: leaf(1), True
    yield "a class of the library", lambda: collections.Counter(), True
    yield "a builtin", lambda: len(text), True
    yield "a list", lambda: items, False
    yield "a tuple with a list", lambda pair=(1, [2]): pair, False
    yield "an object", lambda: thing, False
    yield "a global list", lambda: sys.path, True
    yield "a default", lambda x=1: x, True
    yield "a keyword default", lambda *, x=1: x, True
    yield "a list as a default", lambda x=[]: x, False  # noqa: B006

    def inner() -> int:
        return number

    yield "a local function", lambda: inner(), True

    def marked() -> int:
        return 1

    marked.mark = 5  # type: ignore[attr-defined]
    yield "attributes", marked, False


@pytest.mark.parametrize(
    "function, again",
    [pytest.param(function, again, id=name) for name, function, again in closures()],
)
def test_sent_by_value(registry: Registry, function: Callable[..., Any], again: bool) -> None:
    payload, guards = registry.describe(function)
    assert not by_reference(payload)
    assert (guards is not None) == again
    assert guards is None or holds(guards)


def test_guards_fail_when_something_has_changed(registry: Registry) -> None:
    global LIMIT, leaf
    original = leaf
    _, guards = registry.describe(caller)
    assert holds(guards)
    leaf = lambda x: x  # type: ignore[assignment] # noqa: E731
    try:
        assert not holds(guards)
        payload, guards = registry.describe(caller)
        assert not by_reference(payload) and holds(guards)
    finally:
        leaf = original
    assert not holds(guards)
    assert by_reference(registry.describe(caller)[0])


def test_wrappers_are_sent_each_time(registry: Registry) -> None:
    for function in (functools.partial(leaf, 1), Thing().get, [].append):
        assert registry.describe(function)[1] is None


# ---- Names --------------------------------------------------------------------------------------


def test_names_of_a_function() -> None:
    local = math

    def function(x: Any) -> Any:
        import os.path

        class Inner(json.JSONDecoder):
            y = LIMIT

        def nested() -> Any:
            return local.pi + x.z.w, (lambda: collections.abc.Sized)

        return math.sqrt(x).real, nested, len(os.path.sep), Inner

    names = names_of(function.__code__)
    expected = {
        ("json", "JSONDecoder"),
        ("LIMIT",),
        ("collections", "abc", "Sized"),
        ("math", "sqrt"),
        ("len",),
    }
    assert expected <= names.globals
    assert not {("x",), ("os",), ("os", "path", "sep"), ("nested",)} & names.globals
    assert names.free == {("local", "pi")}
    assert names.tails_of("local") == [("pi",)]
    assert names_of(function.__code__) is names


# ---- Modules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["json", "math", "sys", "os", "pytest", "cloudpickle.cloudpickle", "libpool.pool"]
)
def test_modules_of_libraries(name: str) -> None:
    assert not is_user_module(name, __import__(name, fromlist=["x"]))


def test_modules_of_the_program() -> None:
    assert is_user_module(__name__, sys.modules[__name__])
    assert is_user_module("__main__", sys.modules["__main__"])
    assert is_user_module("made", types.ModuleType("made"))


def test_a_part_of_a_library_that_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    part = types.ModuleType("json.made")
    monkeypatch.setitem(sys.modules, "json.made", part)
    assert not is_user_module("json.made", part)


def test_objects_that_answer_to_everything_do_no_harm() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("touched")

        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("touched")

        def __call__(self) -> None:
            raise RuntimeError("called")

    global proxy
    proxy = Proxy()
    try:
        Registry().describe(caller)
        Registry().describe(leaf)
    finally:
        del proxy


# ---- The package --------------------------------------------------------------------------------


def test_what_the_package_offers() -> None:
    assert libpool.__version__ == metadata.version("libpool")
    assert all(hasattr(libpool, name) for name in libpool.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        libpool.nonsense  # noqa: B018
    assert (Path(libpool.__file__).parent / "py.typed").exists()


def test_short_repr() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    assert short_repr([1]) == "[1]"
    assert short_repr("x" * 500) == "'" + "x" * 196 + "..."
    assert "Bad" in short_repr(Bad()) and "ValueError" in short_repr(Bad())
