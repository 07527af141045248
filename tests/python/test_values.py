"""Arguments and results arrive equal, and of the same type, whatever they are and however large."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import operator
import pathlib
import pickle
import re
import struct
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libpool import Executor

KIB = 1 << 10
MIB = 1 << 20


def echo(*args: Any, **kwargs: Any) -> Any:
    if kwargs:
        return args, kwargs
    return args[0] if len(args) == 1 else args


@pytest.fixture(scope="module")
def shared() -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


@pytest.fixture(autouse=True)
def nothing_stays() -> None:
    """In the place of the check after each test: the workers stay from one test to the next."""


def identical(one: Any, other: Any) -> bool:
    """Equal in type and value, to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return identical(one.real, other.real) and identical(one.imag, other.imag)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, dict):
        return identical(list(one.items()), list(other.items()))
    return bool(one == other)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.sampled_from([b + d for b in (0, 2**7, 2**15, 2**31, 2**63, 2**64) for d in (-1, 0, 1)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, 5e-324]),
    st.text(st.characters(exclude_categories=())),  # with surrogates and NUL
    st.binary(),
)
keys = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary())
values = st.recursive(
    scalars | st.complex_numbers() | st.frozensets(st.integers()),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(keys, inner),
        st.sets(st.integers()),
    ),
    max_leaves=40,
)
many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many
@given(value=scalars)
def test_any_scalar(shared: Executor, value: Any) -> None:
    assert identical(shared.submit(echo, value).result(), value)


@many
@given(value=values)
def test_any_nested_value(shared: Executor, value: Any) -> None:
    assert identical(shared.submit(echo, value).result(), value)


@many
@given(
    args=st.lists(values, min_size=2, max_size=5),
    kwargs=st.dictionaries(st.text(min_size=1), values, min_size=1, max_size=4),
)
def test_any_arguments_and_keywords(shared: Executor, args: list[Any], kwargs: Any) -> None:
    got = shared.submit(echo, *args, **kwargs).result()
    assert identical(got, (tuple(args), kwargs))


@many
@given(items=st.lists(values, max_size=20), chunksize=st.integers(1, 8))
def test_any_items(shared: Executor, items: list[Any], chunksize: int) -> None:
    assert identical(list(shared.map(echo, items, chunksize=chunksize)), items)


# ---- Sizes --------------------------------------------------------------------------------------

SIZES = [
    0,
    1,
    *range(30, 36),
    *range(60, 68),
    *range(90, 132),
    *range(250, 260),
    511, 512, 513,
    4095, 4096, 4097,
    *range(64 * KIB - 20, 64 * KIB + 2),
    MIB - 1, MIB, MIB + 1,
]  # fmt: skip


@pytest.mark.parametrize("make", [bytes, "x".__mul__, "é".__mul__, "\U0001f40d".__mul__])
def test_all_sizes_around_the_limits(shared: Executor, make: Any) -> None:
    for size in SIZES:
        value = make(size)
        assert shared.submit(echo, value).result() == value
        assert shared.submit(operator.mul, value, 1).result() == value
        assert shared.submit(len, value).result() == len(value)


def test_all_sizes_of_lists(shared: Executor) -> None:
    for size in (0, 1, 2, 7, 8, 9, 255, 256, 257, 65_535, 65_536, 65_537):
        value = list(range(size))
        assert shared.submit(echo, value).result() == value
        assert shared.submit(sum, value).result() == sum(value)


def test_all_counts_of_arguments(shared: Executor) -> None:
    for count in (0, 1, 2, 6, 7, 8, 9, 254, 255, 256, 300):
        args = tuple(range(count))
        assert shared.submit(_collect, *args).result() == (args, {})
        kwargs = {f"k{number}": number for number in range(count)}
        assert shared.submit(_collect, **kwargs).result() == ((), kwargs)


def _collect(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@pytest.mark.parametrize("size", [64 * MIB, 64 * MIB + 1, 200 * MIB])
def test_large_values(shared: Executor, size: int) -> None:
    value = bytes(size)
    assert shared.submit(len, value).result() == size
    assert shared.submit(bytes, size).result() == value


def test_several_large_values_at_once(shared: Executor) -> None:
    values = [bytes([number]) * (8 * MIB + number) for number in range(12)]
    futures = [shared.submit(echo, value) for value in values]
    assert [future.result() for future in futures] == values


# ---- Objects ------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Record:
    name: str
    items: list[int] = dataclasses.field(default_factory=list)


class Text(str):
    pass


class Number(int):
    pass


class Slots:
    __slots__ = ("x",)

    def __eq__(self, other: object) -> bool:
        return type(other) is Slots and other.x == self.x  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"Slots({self.x})"  # type: ignore[attr-defined]


def _slots(x: int) -> Slots:
    made = Slots()
    made.x = x
    return made


OBJECTS = [
    Color.RED,
    Point(1, 2),
    Record("a", [1]),
    Text("text"),
    Number(5),
    _slots(3),
    int,
    Record,
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("aab"),
    collections.deque([1, 2], 5),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    pathlib.PurePosixPath("/a/b"),
    re.compile("a+"),
    uuid.UUID(int=5),
    array.array("d", [1.5]),
    bytearray(b"abc"),
    range(1, 10, 3),
    slice(1, 2),
    Ellipsis,
    NotImplemented,
    math.inf * 1j,
    {1, 2},
    frozenset([1]),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_objects_of_many_types(shared: Executor, value: Any) -> None:
    got = shared.submit(echo, value).result()
    assert type(got) is type(value) and repr(got) == repr(value)
    assert got == value or value != value
    assert repr(shared.submit(echo, [value, (value,)]).result()) == repr([value, (value,)])


def test_singletons_stay_singletons(shared: Executor) -> None:
    for value in (None, True, False, ..., NotImplemented, Color.RED):
        assert shared.submit(echo, value).result() is value


def test_an_object_that_comes_twice_is_one_object(shared: Executor) -> None:
    item = [1]
    got = shared.submit(echo, [item, item]).result()
    assert got[0] is got[1]
    assert shared.submit(operator.is_, item, item).result() is True
    got = shared.submit(echo, {"a": item, "b": (item,)}).result()
    assert got["a"] is got["b"][0]


def test_containers_that_contain_themselves(shared: Executor) -> None:
    looped: list[Any] = [1]
    looped.append(looped)
    got = shared.submit(echo, looped).result()
    assert got[1] is got
    table: dict[str, Any] = {}
    table["self"] = table
    got = shared.submit(echo, table).result()
    assert got["self"] is got


def test_deeply_nested_values(shared: Executor) -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    assert shared.submit(echo, value).result() == value


def test_a_value_too_deep_to_pickle_is_an_error(shared: Executor) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    error = shared.submit(echo, value).exception()
    assert isinstance(error, RecursionError | pickle.PicklingError)
    while value:
        value = value[0]
    assert shared.submit(echo, 1).result() == 1


def test_arguments_are_as_they_were_at_the_submit(shared: Executor) -> None:
    items = [1, 2, 3]
    futures = []
    for _ in range(100):
        futures.append((len(items), shared.submit(len, items)))
        items.append(0)
    assert all(future.result() == length for length, future in futures)


def test_a_job_does_not_change_the_arguments_of_the_host(shared: Executor) -> None:
    items = [3, 1, 2]
    assert shared.submit(list.sort, items).result() is None
    assert items == [3, 1, 2]


def test_numpy_arrays(shared: Executor) -> None:
    numpy = pytest.importorskip("numpy")
    for shape in [(), (0,), (3,), (100, 100), (1 << 20,)]:
        for kind in ("float64", "int8", "complex64", "bool"):
            value = numpy.ones(shape, kind)
            got = shared.submit(echo, value).result()
            assert got.dtype == value.dtype and numpy.array_equal(got, value)
            got[...] = 0  # a result may be written to
    assert shared.submit(numpy.sum, numpy.arange(1000)).result() == 499_500
    assert list(shared.map(numpy.square, [1, 2, 3])) == [1, 4, 9]
    got = shared.submit(echo, numpy.asfortranarray(numpy.ones((3, 4)))).result()
    assert got.flags.f_contiguous
