"""Functions and classes of modules that were loaded, changed or made after the pool."""

from __future__ import annotations

import importlib
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support import check_change, program

from libpool import Pool


class Sources:
    """A folder of modules that tests write, load, and load again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def write(self, name: str, code: str) -> None:
        self.names.append(name)
        path = self.folder / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(code))
        importlib.invalidate_caches()

    def load(self, name: str, code: str) -> Any:
        self.write(name, code)
        return importlib.import_module(name)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = Sources(tmp_path)
    yield made
    for name in made.names:
        sys.modules.pop(name, None)
        globals().pop(name, None)


def test_a_module_that_is_loaded_after_the_pool_was_made(sources: Sources, pool: Pool) -> None:
    late = sources.load("late", "def f(x):\n    return g(x) + 1\ndef g(x):\n    return x * 10\n")
    assert [pool.apply(late.f, (2,)) for _ in range(3)] == [21] * 3
    late.g = lambda x: 0
    assert pool.apply(late.f, (2,)) == 1


def test_a_module_that_workers_can_not_find(pool: Pool, tmp_path: Path, monkeypatch) -> None:
    program(
        tmp_path / "hidden.py",
        """
        K = 5
        def f(x):
            return g(x) + K
        def g(x):
            return x * 10
        """,
    )
    monkeypatch.syspath_prepend(tmp_path)  # after the fork
    hidden = importlib.import_module("hidden")
    try:
        assert [pool.apply(hidden.f, (2,)) for _ in range(3)] == [25] * 3
        assert pool.apply(lambda: hidden.g(3)) == 30
    finally:
        del sys.modules["hidden"]


def test_a_module_that_has_no_file(pool: Pool) -> None:
    made = types.ModuleType("made_by_hand")
    exec("def f(x):\n    return g(x) + 1\ndef g(x):\n    return x * 10\n", made.__dict__)
    sys.modules["made_by_hand"] = made
    try:
        assert pool.apply(made.f, (2,)) == 21
        made.g = lambda x: 0  # type: ignore[attr-defined]
        assert pool.apply(made.f, (2,)) == 1
    finally:
        del sys.modules["made_by_hand"]


def test_a_function_of_another_module_that_was_replaced(sources: Sources) -> None:
    tools = sources.load("tools", "def g(x):\n    return x + 1\nK = 1\n")
    user = sources.load("user", "import tools\ndef f(x):\n    return tools.g(x) * 10\n")
    with Pool(2) as pool:
        assert [pool.apply(user.f, (1,)) for _ in range(3)] == [20] * 3
        with mock.patch("tools.g", new=lambda x: 7):
            assert [pool.apply(user.f, (1,)) for _ in range(3)] == [70] * 3
            assert pool.apply(lambda x: tools.g(x) + tools.K, (1,)) == 8
        assert [pool.apply(user.f, (1,)) for _ in range(3)] == [20] * 3
        tools.g = lambda x: 8
        assert [pool.apply(user.f, (1,)) for _ in range(3)] == [80] * 3


def test_a_submodule_whose_function_was_replaced(sources: Sources) -> None:
    sources.write("package.__init__", "")
    inner = sources.load("package.inner", "def g(x):\n    return x + 1\ndef h(x):\n    return x\n")
    user = sources.load(
        "user",
        "import package.inner\ndef f(x):\n    return package.inner.g(x) + package.inner.h(x)\n",
    )
    sys.modules["package"].inner = inner  # type: ignore[attr-defined]
    with Pool(2) as pool:
        assert [pool.apply(user.f, (1,)) for _ in range(3)] == [3] * 3
        inner.g = lambda x: 100
        assert [pool.apply(user.f, (1,)) for _ in range(3)] == [101] * 3


def test_a_module_that_was_edited_and_reloaded(sources: Sources) -> None:
    module = sources.load("edited", "def f(x):\n    return g(x)\ndef g(x):\n    return x + 1\n")
    with Pool(2) as pool:
        assert [pool.apply(module.f, (1,)) for _ in range(3)] == [2] * 3
        sources.write("edited", "def f(x):\n    return g(x)\ndef g(x):\n    return x + 50\n")
        old = module.f
        importlib.reload(module)
        assert [pool.apply(module.f, (1,)) for _ in range(3)] == [51] * 3
        # The old function looks up `g` in the module, and finds the new one.
        assert pool.apply(old, (1,)) == old(1) == 51


def test_a_library_module_that_was_reloaded(pool: Pool) -> None:
    import textwrap as module

    assert pool.apply(module.indent, ("a", "-")) == "-a"
    importlib.reload(module)
    assert pool.apply(module.indent, ("a", "-")) == "-a"


def test_a_module_that_was_replaced(sources: Sources) -> None:
    module = sources.load("replaced", "def f(x):\n    return x + 1\n")
    with Pool(1) as pool:
        assert pool.apply(module.f, (1,)) == 2
        del sys.modules["replaced"]
        other = sources.load("replaced", "def f(x):\n    return x + 20\n")
        assert pool.apply(other.f, (1,)) == 21
        assert pool.apply(module.f, (1,)) == 2


# ---- Classes by value ---------------------------------------------------------------------------


def test_instances_of_local_classes_come_back_as_the_same_class(pool: Pool) -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def next(self) -> Local:
            return Local(self.x + 1)

    method = Local.next
    made = pool.apply(Local(1).next)
    assert type(made) is Local and made.x == 2
    for _ in range(2):
        assert [type(item) for item in pool.map(lambda x: Local(x), [1, 2])] == [Local] * 2
    assert Local.next is method


def test_a_local_class_that_changes_is_sent_as_it_is_now(pool: Pool) -> None:
    class Local:
        def get(self) -> int:
            return 1

    def use() -> int:
        return Local().get()

    def change() -> None:
        Local.get = lambda self: 2  # type: ignore[method-assign]

    check_change(lambda: pool.apply(use), 1, change, 2)


def test_what_a_local_class_has_no_longer_is_gone_in_the_worker(pool: Pool) -> None:
    class Base:
        x = 1

    class Local(Base):
        pass

    def use(local: Local) -> int:
        return local.x

    def change() -> None:
        Local.x = 2

    check_change(lambda: pool.apply(use, [Local()]), 1, change, 2)
    check_change(lambda: pool.apply(use, [Local()]), 2, lambda: delattr(Local, "x"), 1)


@pytest.mark.parametrize("first", [dict, object, type("Other", (), {})])
def test_a_local_class_with_other_bases(pool: Pool, first: type) -> None:
    class One(first):  # type: ignore[misc]
        def get(self) -> int:
            return 1

    class Two(first):  # type: ignore[misc]
        def get(self) -> int:
            return 2

    class Local(One):
        pass

    def change() -> None:
        Local.__bases__ = (Two,)

    check_change(lambda: pool.apply(lambda: Local().get()), 1, change, 2)


def test_a_class_made_in_a_worker_comes_as_one_class(pool: Pool) -> None:
    def make() -> object:
        class Made:
            x = 3

        return Made(), Made()

    one, other = pool.apply(make)
    assert type(one) is type(other) and one.x == 3
