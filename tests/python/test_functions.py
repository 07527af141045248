"""Functions run as they are defined now, however they were defined, changed, and sent before."""

from __future__ import annotations

import functools
import importlib
import json
import math
import operator
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support import program, run

from libpool import Executor, Pool

FACTOR = 2


def double(x: int) -> int:
    return FACTOR * x


def helper(x: int) -> int:
    return x + 1


def calls_helper(x: int) -> int:
    return helper(x) * 10


def calls_deeply(x: int) -> int:
    return calls_helper(x) + 1


def with_defaults(x: int, a: int = 1, *, b: int = 2) -> int:
    return x + 10 * a + 100 * b


def announce(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return ["wrapped", function(*args)]

    return wrapper


@announce
def decorated(x: int) -> int:
    return x * 3


@functools.lru_cache
def cached(x: int) -> int:
    return helper(x)


def calls_decorated(x: int) -> Any:
    return decorated(x), cached(x)


class Thing:
    scale = 5

    def __init__(self, x: int) -> None:
        self.x = x

    def times(self, y: int) -> int:
        return self.x * y

    def __call__(self, y: int) -> int:
        return self.x - y

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and other.x == self.x

    @classmethod
    def make(cls, x: int) -> Thing:
        return cls(x)

    @staticmethod
    def plain(x: int) -> int:
        return -x

    @property
    def half(self) -> float:
        return self.x / 2

    class Inner:
        @staticmethod
        def deep(x: int) -> int:
            return x + 1000


def uses_thing(x: int) -> float:
    return Thing(x).times(10) + Thing(x).half


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What tests do to this module is undone."""
    before = dict(globals())
    functions = {
        function: (function.__code__, function.__defaults__, dict(function.__kwdefaults__ or {}))
        for function in before.values()
        if isinstance(function, types.FunctionType)
    }
    yield
    globals().update(before)
    for name in set(globals()) - set(before):
        del globals()[name]
    for function, (code, defaults, keyword_defaults) in functions.items():
        function.__code__ = code
        function.__defaults__ = defaults
        function.__kwdefaults__ = keyword_defaults or None


# ---- What can be sent ---------------------------------------------------------------------------


def test_functions_of_modules(pool: Pool) -> None:
    for _ in range(3):
        assert pool.apply(double, (4,)) == 8
        assert pool.apply(calls_deeply, (4,)) == 51
        assert pool.apply(json.dumps, ([1],)) == "[1]"
        assert pool.apply(Path.cwd) == Path.cwd()


def test_builtin_functions_and_methods_of_builtin_objects(pool: Pool) -> None:
    for _ in range(3):
        assert pool.apply(math.sqrt, (4,)) == 2
        assert pool.apply(len, ("abc",)) == 3
        assert pool.apply("a,b".split, (",",)) == ["a", "b"]
        assert pool.apply([1, 2, 1].count, (1,)) == 2
        assert pool.apply(str.upper, ("a",)) == "A"
        assert pool.apply(operator.itemgetter(1), ([5, 6],)) == 6
        assert pool.apply(int, ("7",)) == 7


def test_a_method_of_a_mutable_object_sees_the_object_as_it_is_now(pool: Pool) -> None:
    items = [1]
    for _ in range(3):
        assert pool.apply(items.count, (1,)) == items.count(1)
        items.append(1)


def test_lambdas(pool: Pool) -> None:
    assert pool.map(lambda x: x + 1, [1, 2]) == [2, 3]
    assert pool.apply(lambda: (lambda y: y)(3)) == 3
    assert [pool.submit(lambda x=x: x).result() for x in range(200)] == list(range(200))


def test_nested_functions_that_call_each_other(pool: Pool) -> None:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    for _ in range(3):
        assert pool.map(even, range(5)) == [True, False, True, False, True]


def test_partial_objects(pool: Pool) -> None:
    part = functools.partial(with_defaults, 1, b=5)
    for _ in range(2):
        assert pool.apply(part) == 511
    part.keywords["b"] = 7
    assert pool.apply(part) == 711
    assert pool.map(functools.partial(lambda a, b: a - b, 10), [1, 2]) == [9, 8]


def test_callable_objects_are_sent_as_they_are_now(pool: Pool) -> None:
    thing = Thing(10)
    assert pool.apply(thing, (1,)) == 9
    thing.x = 20
    assert pool.apply(thing, (1,)) == 19


def test_methods_of_every_kind(pool: Pool) -> None:
    thing = Thing(3)
    for _ in range(3):
        assert pool.apply(thing.times, (2,)) == 6
        assert pool.apply(Thing.times, (thing, 2)) == 6
        assert pool.apply(Thing.make, (5,)) == Thing(5)
        assert pool.apply(Thing.plain, (5,)) == -5
        assert pool.apply(Thing.Inner.deep, (5,)) == 1005
        assert pool.apply(Thing, (5,)) == Thing(5)
    thing.x = 4
    assert pool.apply(thing.times, (2,)) == 8


def test_decorated_functions(pool: Pool) -> None:
    for _ in range(3):
        assert pool.apply(decorated, (2,)) == ["wrapped", 6]
        assert pool.apply(cached, (2,)) == 3
        assert pool.apply(calls_decorated, (2,)) == (["wrapped", 6], 3)


def test_functions_as_arguments_and_results(pool: Pool) -> None:
    assert pool.apply(_call, (double, 3)) == 6
    assert pool.apply(_call, (lambda x: x + 1, 3)) == 4
    assert pool.apply(lambda: double)(3) == 6
    made = pool.apply(lambda n: lambda x: x * n, (7,))
    assert made(3) == 21


def _call(function: Callable[[int], int], x: int) -> int:
    return function(x)


def test_generator_and_recursive_functions(pool: Pool) -> None:
    def count(n: int) -> int:
        return 1 + count(n - 1) if n else 0

    assert pool.apply(count, (50,)) == 50
    assert pool.apply(lambda: list(_generate(3))) == [0, 1, 2]


def _generate(n: int) -> Iterator[int]:
    yield from range(n)


# ---- Closures and globals -----------------------------------------------------------------------


def test_a_closure_sees_its_current_values(pool: Pool) -> None:
    k = 1

    def add(x: int) -> int:
        return x + k

    for k in (1, 2, 2, 3):  # noqa: B007 -- `add` sees it
        assert [pool.apply(add, (10,)) for _ in range(3)] == [10 + k] * 3


def test_a_closure_sees_what_was_done_to_a_mutable_value(pool: Pool) -> None:
    seen: list[int] = []
    table = {"a": [0]}

    def look() -> tuple[int, int]:
        return len(seen), table["a"][0]

    for n in range(4):
        assert pool.apply(look) == (n, n)
        seen.append(n)
        table["a"][0] += 1


def test_a_closure_over_a_function_sees_which_one_it_is(pool: Pool) -> None:
    def inner(x: int) -> int:
        return x + 1

    def outer(x: int) -> int:
        return inner(x)

    assert [pool.apply(outer, (1,)) for _ in range(3)] == [2] * 3

    def inner(x: int) -> int:  # type: ignore[no-redef] # noqa: F811
        return x + 2

    assert [pool.apply(outer, (1,)) for _ in range(3)] == [3] * 3


def test_a_nonlocal_counter_is_sent_as_it_is_now(pool: Pool) -> None:
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    def look() -> int:
        return count

    for n in range(3):
        assert pool.apply(look) == n
        step()


def test_a_lambda_sees_globals_as_they_are_now(pool: Pool) -> None:
    global FACTOR
    function = lambda x: FACTOR * x  # noqa: E731
    for FACTOR in (2, 3, 3, 4):
        assert [pool.apply(function, (10,)) for _ in range(2)] == [10 * FACTOR] * 2


def test_data_that_a_function_names_and_that_came_after_the_pool(pool: Pool) -> None:
    global LATE
    with pytest.raises(NameError):
        pool.apply(_reads_late)
    LATE = 1
    assert pool.apply(_reads_late) == 1
    LATE = 2
    assert pool.apply(_reads_late) == 2


def _reads_late() -> int:
    return LATE  # type: ignore[name-defined, no-any-return] # noqa: F821


def test_defaults_that_are_mutable_are_sent_as_they_are_now(pool: Pool) -> None:
    def read(items: list[int] = []) -> int:  # noqa: B006
        return len(items)

    for n in range(3):
        assert pool.apply(read) == n
        read.__defaults__[0].append(1)


def test_attributes_of_a_function_are_sent_as_they_are_now(pool: Pool) -> None:
    def read() -> object:
        return read.mark  # type: ignore[attr-defined]

    with pytest.raises(AttributeError):
        pool.apply(read)
    for read.mark in (1, 2):  # type: ignore[attr-defined]
        assert pool.apply(read) == read.mark  # type: ignore[attr-defined]


def test_a_name_that_comes_to_hide_a_builtin(pool: Pool) -> None:
    assert [pool.apply(_uses_len, ("abc",)) for _ in range(3)] == [3] * 3
    global len
    len = lambda _: -1  # type: ignore[assignment] # noqa: E731
    assert [pool.apply(_uses_len, ("abc",)) for _ in range(3)] == [-1] * 3
    del len
    assert [pool.apply(_uses_len, ("abc",)) for _ in range(3)] == [3] * 3


def _uses_len(text: str) -> int:
    return len(text)


# ---- Changes after the pool was made ------------------------------------------------------------


def check_change(
    pool: Pool, call: Callable[[], Any], before: Any, change: Callable[[], Any], after: Any
) -> None:
    """The pool gives `before`, and `after` from the moment of the change on, cached or not."""
    assert [call() for _ in range(3)] == [before] * 3
    change()
    assert [call() for _ in range(3)] == [after] * 3


def test_a_redefined_function(pool: Pool) -> None:
    def change() -> None:
        global double

        def double(x: int) -> int:
            return 100 * x

    check_change(pool, lambda: pool.apply(double, (1,)), 2, change, 100)


def test_a_redefined_helper(pool: Pool) -> None:
    def change() -> None:
        global helper

        def helper(x: int) -> int:
            return x + 5

    check_change(pool, lambda: pool.apply(calls_helper, (1,)), 20, change, 60)
    assert pool.apply(calls_deeply, (1,)) == 61
    assert pool.apply(lambda x: calls_helper(x), (1,)) == 60
    assert pool.apply(functools.partial(calls_helper, 1)) == 60


def test_a_change_that_is_undone(pool: Pool) -> None:
    global helper
    original = helper
    for _ in range(2):
        assert pool.apply(calls_helper, (1,)) == 20
        helper = lambda x: 0  # noqa: E731
        assert pool.apply(calls_helper, (1,)) == 0
        helper = original


def test_new_code_of_a_function(pool: Pool) -> None:
    def change() -> None:
        helper.__code__ = (lambda x: x + 5).__code__

    check_change(pool, lambda: pool.apply(calls_helper, (1,)), 20, change, 60)
    assert pool.apply(helper, (1,)) == 6


def test_new_defaults_of_a_function(pool: Pool) -> None:
    def change() -> None:
        with_defaults.__defaults__ = (3,)

    check_change(pool, lambda: pool.apply(with_defaults, (1,)), 211, change, 231)


def test_new_keyword_defaults_of_a_function(pool: Pool) -> None:
    def change() -> None:
        with_defaults.__kwdefaults__["b"] = 4

    check_change(pool, lambda: pool.apply(with_defaults, (1,)), 211, change, 411)
    with_defaults.__kwdefaults__ = {"b": 5}
    assert pool.apply(with_defaults, (1,)) == 511
    del with_defaults.__kwdefaults__["b"]
    with pytest.raises(TypeError):
        pool.apply(with_defaults, (1,))


def test_a_function_behind_a_decorator_gets_new_code(pool: Pool) -> None:
    def change() -> None:
        decorated.__wrapped__.__code__ = (lambda x: x * 5).__code__

    code = decorated.__wrapped__.__code__
    check_change(pool, lambda: pool.apply(decorated, (1,)), ["wrapped", 3], change, ["wrapped", 5])
    decorated.__wrapped__.__code__ = code


def test_a_redefined_helper_behind_a_cache(pool: Pool) -> None:
    def change() -> None:
        global helper
        helper = lambda x: x + 7  # noqa: E731

    cached.cache_clear()
    check_change(pool, lambda: pool.apply(calls_decorated, (9,))[1], 10, change, 10)
    # functools.lru_cache objects are sent by their name, with the workers' caches.


def test_a_redefined_class(pool: Pool) -> None:
    original = Thing

    def change() -> None:
        global Thing

        class Thing(original):  # type: ignore[misc, valid-type]
            def times(self, y: int) -> int:
                return 0

    check_change(pool, lambda: pool.apply(uses_thing, (4,)), 42, change, 2)
    made = pool.apply(lambda: Thing(4))
    assert type(made) is Thing


def test_a_replaced_method(pool: Pool) -> None:
    original = Thing.times

    def change() -> None:
        Thing.times = lambda self, y: 1000  # type: ignore[method-assign]

    try:
        check_change(pool, lambda: pool.apply(uses_thing, (4,)), 42, change, 1002)
        assert pool.apply(Thing(1).times, (3,)) == 1000
        made = pool.apply(Thing, (4,))
        assert type(made) is Thing and made.x == 4
        assert Thing.plain(1) == -1
    finally:
        Thing.times = original  # type: ignore[method-assign]
    assert pool.apply(uses_thing, (4,)) == 42


def test_a_method_with_new_code(pool: Pool) -> None:
    code = Thing.times.__code__

    def change() -> None:
        Thing.times.__code__ = (lambda self, y: 1000).__code__

    try:
        check_change(pool, lambda: pool.apply(uses_thing, (4,)), 42, change, 1002)
    finally:
        Thing.times.__code__ = code


def test_a_method_that_was_added(pool: Pool) -> None:
    def call() -> str:
        return pool.apply(_extra_of, (Thing(1),))

    assert [call() for _ in range(3)] == ["none"] * 3
    Thing.extra = lambda self: "extra"  # type: ignore[attr-defined]
    try:
        assert pool.apply(Thing(1).extra) == "extra"  # type: ignore[attr-defined]
        assert pool.apply(lambda x: Thing(x).extra(), (1,)) == "extra"
    finally:
        del Thing.extra  # type: ignore[attr-defined]


def _extra_of(thing: Any) -> str:
    return thing.extra() if hasattr(thing, "extra") else "none"


def test_a_patched_function_of_this_module(pool: Pool) -> None:
    assert pool.apply(calls_helper, (1,)) == 20
    with mock.patch(f"{__name__}.helper", new=lambda x: 9):
        assert pool.apply(calls_helper, (1,)) == 90
    assert pool.apply(calls_helper, (1,)) == 20


def test_a_patched_method(pool: Pool) -> None:
    with mock.patch.object(Thing, "times", lambda self, y: 9):
        assert pool.apply(uses_thing, (4,)) == 11
    assert pool.apply(uses_thing, (4,)) == 42


# ---- Modules ------------------------------------------------------------------------------------


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

    check_change(pool, lambda: pool.apply(use), 1, change, 2)


def test_a_class_made_in_a_worker_comes_as_one_class(pool: Pool) -> None:
    def make() -> object:
        class Made:
            x = 3

        return Made(), Made()

    one, other = pool.apply(make)
    assert type(one) is type(other) and one.x == 3


# ---- __main__ -----------------------------------------------------------------------------------


def test_functions_and_classes_of_a_script(tmp_path: Path) -> None:
    path = program(
        tmp_path / "script.py",
        """
        import libpool

        def before(x):
            return x + 1

        class Before:
            def __init__(self, x):
                self.x = x

        pool = libpool.Pool(2)

        def after(x):
            return before(x) * 10

        class After(Before):
            def get(self):
                return after(self.x)

        print(pool.map(before, [1, 2]), pool.map(after, [1, 2]))
        print([type(x).__name__ for x in pool.map(Before, [1])], pool.apply(After(1).get))
        made = pool.apply(After, (5,))
        print(type(made) is After, made.x, made.get())

        def before(x):
            return -x

        print(pool.map(before, [1, 2]), pool.map(after, [1, 2]))
        del before
        try:
            pool.map(after, [1])
        except NameError as error:
            print(error)
        pool.terminate()
        """,
    )
    assert run(path) == (
        "[2, 3] [20, 30]\n['Before'] 20\nTrue 5 60\n[-1, -2] [-10, -20]\n"
        "name 'before' is not defined\n"
    )


def test_functions_typed_into_an_interactive_interpreter() -> None:
    typed = """
import libpool
pool = libpool.Pool(2)
def f(x): return g(x)

try: pool.map(f, [1])
except NameError: print("no g yet")

def g(x): return x + k

k = 1
print(pool.map(f, [1, 2]))
k = 2
print(pool.map(f, [1, 2]))
def g(x): return x * 100

print(pool.map(f, [1, 2]))
class A:
    def __init__(self, x): self.x = x

print([type(a) is A for a in pool.map(A, [1, 2])])
exec("def h(x): return f(x) + 1")
print(pool.map(h, [1, 2]))
import statistics
print(pool.apply(lambda xs: statistics.mean(xs), ([1, 3],)))
pool.terminate()
"""
    done = subprocess.run(
        [sys.executable, "-i", "-q", "-c", "import sys; sys.ps1 = sys.ps2 = ''"],
        input=typed,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.stdout.split("\n") == [
        "no g yet",
        "[2, 3]",
        "[3, 4]",
        "[100, 200]",
        "[True, True]",
        "[101, 201]",
        "2",
        "",
    ], done.stderr
    assert "Traceback" not in done.stderr


def test_data_made_after_the_executor_reaches_functions_made_before_it(tmp_path: Path) -> None:
    path = program(
        tmp_path / "late_data.py",
        """
        import threading
        import libpool

        def lookup(x):
            return table[x]

        def locked(x):
            return x if "lock" not in globals() else -1

        def uses_lock(x):
            return x if lock else lock

        with libpool.Executor(2) as executor:
            table = {1: "one", 2: "two"}
            print(list(executor.map(lookup, [1, 2])))
            table[1] = "uno"
            print(list(executor.map(lookup, [1, 2])))
            lock = threading.Lock()
            print(list(executor.map(locked, [1, 2])))
            print(repr(executor.submit(uses_lock, 1).exception()))
        """,
    )
    output = run(path).splitlines()
    assert output[:3] == ["['one', 'two']", "['uno', 'two']", "[1, 2]"]
    assert "lock" in output[3]


def test_two_pools_made_at_different_times_know_different_things(tmp_path: Path) -> None:
    path = program(
        tmp_path / "two_pools.py",
        """
        import libpool

        def f(x):
            return x + 1

        class A:
            def get(self):
                return 1

        def get(a):
            return a.get(), isinstance(a, A)

        first = libpool.Pool(1)

        def f(x):
            return x + 2

        class A:
            def get(self):
                return 2

        second = libpool.Pool(1)
        print([p.apply(f, (1,)) for p in (first, second, first, second)])
        print([p.apply(get, (A(),)) for p in (first, second)])
        print([type(p.apply(A)) is A for p in (first, second)])

        def f(x):
            return x + 3

        print([p.apply(f, (1,)) for p in (first, second)])
        first.terminate()
        second.terminate()
        """,
    )
    assert run(path) == "[3, 3, 3, 3]\n[(2, True), (2, True)]\n[True, True]\n[4, 4]\n"


def test_a_nested_submit_of_a_function_sent_by_value(tmp_path: Path) -> None:
    path = program(
        tmp_path / "nested.py",
        """
        import libpool

        executor = libpool.Executor(2)

        def fibonacci(n):
            if n < 2:
                return n
            left = libpool.current().submit(fibonacci, n - 1)
            return fibonacci(n - 2) + left.result()

        print(executor.submit(fibonacci, 10).result())
        executor.shutdown()
        """,
    )
    assert run(path) == "55\n"


# ---- Errors -------------------------------------------------------------------------------------


def test_a_captured_object_that_can_not_be_pickled_is_named(executor: Executor) -> None:
    import threading

    secret = threading.Lock()
    future = executor.submit(lambda: secret)
    error = future.exception()
    assert isinstance(error, TypeError)
    assert any("secret" in note and "lock" in note for note in error.__notes__)
    assert executor.submit(double, 2).result() == 4
