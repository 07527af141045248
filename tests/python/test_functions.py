"""Functions run as they are defined now, however they were defined, changed, and sent before."""

from __future__ import annotations

import functools
import json
import math
import operator
import pickle
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support import check_change

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


def test_each_lambda_that_an_expression_makes_is_sent_as_it_is(pool: Pool) -> None:
    def make(value: Any) -> Callable[[], Any]:
        return lambda: value

    large = [10**6, "long" * 1000, (1, (2, "three"))]
    for value in (1, 1, 2, 1, [1], [1], 1, "a", None, 1, *large, 1, *large, 1):
        assert pool.apply(make(value)) == value
        assert [pool.apply(function) for function in [make(value)] * 3] == [value] * 3
    box = [0]
    for box[0] in range(3):
        assert pool.apply(make(box)) == box
        assert pool.apply(make(3)) == 3


def test_each_lambda_of_an_expression_sees_globals_as_they_are_now(pool: Pool) -> None:
    global FACTOR
    for FACTOR in (2, 2, 2, 3, 3, 4):
        assert pool.apply(lambda x: FACTOR * x, (10,)) == 10 * FACTOR  # noqa: B023


def test_a_lambda_with_something_of_its_own_is_no_other(pool: Pool) -> None:
    def make(value: int) -> Any:
        return lambda *given, **named: (value, given, named)

    def parts(function: Any) -> tuple[Any, ...]:
        names = function.__name__, function.__qualname__, function.__module__, function.__doc__
        return *names, function.__annotations__, vars(function), *function()

    def changed(**attributes: Any) -> Any:
        function = make(1)
        for name, value in attributes.items():
            setattr(function, name, value)
        return function

    def with_defaults(value: Any) -> Any:
        return lambda x=value, *, y=value: (x, y)

    registry = pool._registry
    for _ in range(3):
        for function in (
            changed(),
            changed(__name__="other"),
            changed(),
            changed(__qualname__="other"),
            changed(__module__="other"),
            changed(__doc__="other"),
            changed(),
            changed(__annotations__={"return": int}),
            changed(tag=1),
            changed(),
            make(2),
        ):
            sent = pickle.loads(registry.describe(function)[0])
            assert parts(sent) == parts(function)
    for value in (1, 1, 2, "a", 1, [1]):
        assert pool.apply(with_defaults(value)) == (value, value)


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


def test_a_redefined_function(pool: Pool) -> None:
    def change() -> None:
        global double

        def double(x: int) -> int:
            return 100 * x

    check_change(lambda: pool.apply(double, (1,)), 2, change, 100)


def test_a_redefined_helper(pool: Pool) -> None:
    def change() -> None:
        global helper

        def helper(x: int) -> int:
            return x + 5

    check_change(lambda: pool.apply(calls_helper, (1,)), 20, change, 60)
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

    check_change(lambda: pool.apply(calls_helper, (1,)), 20, change, 60)
    assert pool.apply(helper, (1,)) == 6


def test_new_defaults_of_a_function(pool: Pool) -> None:
    def change() -> None:
        with_defaults.__defaults__ = (3,)

    check_change(lambda: pool.apply(with_defaults, (1,)), 211, change, 231)


def test_new_keyword_defaults_of_a_function(pool: Pool) -> None:
    def change() -> None:
        with_defaults.__kwdefaults__["b"] = 4

    check_change(lambda: pool.apply(with_defaults, (1,)), 211, change, 411)
    with_defaults.__kwdefaults__ = {"b": 5}
    assert pool.apply(with_defaults, (1,)) == 511
    del with_defaults.__kwdefaults__["b"]
    with pytest.raises(TypeError):
        pool.apply(with_defaults, (1,))


def test_a_function_behind_a_decorator_gets_new_code(pool: Pool) -> None:
    def change() -> None:
        decorated.__wrapped__.__code__ = (lambda x: x * 5).__code__

    code = decorated.__wrapped__.__code__
    check_change(lambda: pool.apply(decorated, (1,)), ["wrapped", 3], change, ["wrapped", 5])
    decorated.__wrapped__.__code__ = code


def test_a_redefined_helper_behind_a_cache(pool: Pool) -> None:
    def change() -> None:
        global helper
        helper = lambda x: x + 7  # noqa: E731

    cached.cache_clear()
    check_change(lambda: pool.apply(calls_decorated, (9,))[1], 10, change, 10)
    # functools.lru_cache objects are sent by their name, with the workers' caches.


def test_a_redefined_class(pool: Pool) -> None:
    original = Thing

    def change() -> None:
        global Thing

        class Thing(original):  # type: ignore[misc, valid-type]
            def times(self, y: int) -> int:
                return 0

    check_change(lambda: pool.apply(uses_thing, (4,)), 42, change, 2)
    made = pool.apply(lambda: Thing(4))
    assert type(made) is Thing


def test_a_replaced_method(pool: Pool) -> None:
    original = Thing.times

    def change() -> None:
        Thing.times = lambda self, y: 1000  # type: ignore[method-assign]

    try:
        check_change(lambda: pool.apply(uses_thing, (4,)), 42, change, 1002)
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
        check_change(lambda: pool.apply(uses_thing, (4,)), 42, change, 1002)
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


# ---- Errors -------------------------------------------------------------------------------------


def test_a_captured_object_that_can_not_be_pickled_is_named(executor: Executor) -> None:
    import threading

    secret = threading.Lock()
    future = executor.submit(lambda: secret)
    error = future.exception()
    assert isinstance(error, TypeError)
    assert any("lock" in note and "found at variable secret" in note for note in error.__notes__)
    assert executor.submit(double, 2).result() == 4


def test_who_sends_a_pool_is_told_how_a_job_gets_it(executor: Executor) -> None:
    own = executor
    error = executor.submit(lambda: own.submit(double, 2)).exception()
    assert isinstance(error, TypeError)
    (note,) = [note for note in error.__notes__ if "variable own" in note]
    assert note.endswith(
        "found at variable own; in a job, libpool.current() is the pool that runs it"
    )
