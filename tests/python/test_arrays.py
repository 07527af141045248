"""Lists of numbers travel as arrays, and arrive as they were."""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any

import pytest

from libpool import Pool

INTS = [0, 1, -1, 127, 2**31 - 1, -(2**31)]
WIDE = [2**31, -(2**31) - 1, 2**63 - 1, -(2**63)]
HUGE = [2**63, -(2**63) - 1, 10**40]
FLOATS = [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324]


class Whole(int):
    pass


def same(x: Any) -> Any:
    return x


def spelled(value: Any) -> Any:
    """What tells apart all that may be taken for each other."""
    if isinstance(value, list):
        return [spelled(item) for item in value]
    if type(value) is float:
        return "float", struct.pack("d", value)
    return type(value), value


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 200, 5000])
@pytest.mark.parametrize(
    "numbers",
    [INTS, WIDE, HUGE, FLOATS, INTS + WIDE, INTS + HUGE, INTS + FLOATS, FLOATS + INTS],
    ids=["int32", "int64", "huge", "float", "int64 late", "huge late", "mixed", "mixed late"],
)
def test_lists_of_numbers_come_back_as_they_were(
    pool: Pool, numbers: list[Any], length: int
) -> None:
    items = list(itertools.islice(itertools.cycle(numbers), length))
    assert spelled(pool.submit(same, items).result()) == spelled(items)
    assert spelled(pool.map(same, items, 1000)) == spelled(items)
    assert spelled(pool.map(same, [items, items[:9]], 2)) == spelled([items, items[:9]])


@pytest.mark.parametrize("odd", [None, True, Whole(5), 2**70, "7", 2**40, 1.0, []], ids=repr)
@pytest.mark.parametrize("place", [0, 1, 8, 499, 999])
@pytest.mark.parametrize("number", [3, 3.5, 2**40], ids=repr)
def test_one_that_is_no_such_number_makes_no_difference(
    pool: Pool, number: Any, place: int, odd: Any
) -> None:
    items = [number] * 1000
    items[place] = odd
    for value in (items, [items[:10], items], {"a": items[:100]}):
        assert spelled(pool.submit(same, value).result()) == spelled(value)


def test_tuples_stay_tuples(pool: Pool) -> None:
    assert pool.submit(same, tuple(range(100))).result() == tuple(range(100))


def test_a_list_that_comes_twice_stays_one(pool: Pool) -> None:
    numbers = list(range(100))
    first, second = pool.submit(same, [numbers, numbers]).result()
    assert first == numbers and first is second
