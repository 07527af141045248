"""Many chunks sent and collected in one go: what happens when something goes wrong in the midst."""

from __future__ import annotations

from typing import Any

import pytest

import libpool
from libpool import _core


def double(x: int) -> int:
    return x * 2


def refuse(x: int) -> int:
    if x % 100 == 50:
        raise LookupError(x)
    return x


class Interrupts:
    """Raises KeyboardInterrupt when it is pickled for the first time, as Ctrl-C then would."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.armed = True

    def __reduce__(self) -> tuple[Any, ...]:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return int, (self.number,)


def interrupting_at(position: int, count: int) -> list[Any]:
    items: list[Any] = list(range(count))
    items[position] = Interrupts(position)
    return items


@pytest.mark.parametrize("chunksize", [1, 3, 100])
@pytest.mark.parametrize("kind", [list, tuple, range])
def test_a_map_in_chunks_of_fixed_size_gives_all_results_in_order(
    pool: libpool.Pool, chunksize: int, kind: Any
) -> None:
    items = range(1000) if kind is range else kind(range(1000))
    assert pool.map(double, items, chunksize) == [2 * x for x in range(1000)]
    assert list(pool.imap(double, items, chunksize)) == [2 * x for x in range(1000)]
    assert sorted(pool.imap_unordered(double, items, chunksize)) == [2 * x for x in range(1000)]


def test_the_first_exception_of_a_map_in_single_chunks_is_raised(pool: libpool.Pool) -> None:
    with pytest.raises(LookupError) as raised:
        pool.map(refuse, range(1000), 1)
    assert raised.value.args == (50,)


def test_an_imap_in_single_chunks_goes_on_after_each_exception(pool: libpool.Pool) -> None:
    results, errors = [], []
    iterator = pool.imap(refuse, range(1000), 1)
    while True:
        try:
            results.append(next(iterator))
        except LookupError as error:
            errors.append(error.args[0])
        except StopIteration:
            break
    assert errors == list(range(50, 1000, 100))
    assert results == [x for x in range(1000) if x % 100 != 50]


def test_what_was_sent_before_an_interrupt_is_known(pool: libpool.Pool) -> None:
    futures: list[_core.Future[list[int]]] = []
    with pytest.raises(KeyboardInterrupt):
        pool.submit_chunks(double, interrupting_at(7, 20), 2, False, False, futures)
    assert [future.result() for future in futures] == [[0, 2], [4, 6], [8, 10]]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_interrupt_while_chunks_are_sent_loses_no_item_and_sends_none_twice(
    pool: libpool.Pool, ordered: bool
) -> None:
    items = interrupting_at(100, 300)
    iterator = (pool.imap if ordered else pool.imap_unordered)(double, items, 1)
    results = []
    interrupts = 0
    while True:
        try:
            results.append(next(iterator))
        except KeyboardInterrupt:
            interrupts += 1
        except StopIteration:
            break
    assert interrupts == 1
    assert (results if ordered else sorted(results)) == [2 * x for x in range(300)]


def test_gathering_stops_at_a_chunk_without_results(pool: libpool.Pool) -> None:
    futures: list[_core.Future[list[int]]] = []
    pool.submit_chunks(refuse, range(40, 60), 4, False, False, futures)
    results = [-1]
    assert _core.gather(futures, results) == 2
    assert results == [-1, *range(40, 48)]
    assert [future is None for future in futures] == [True, True, False, False, False]
    with pytest.raises(LookupError):
        futures[2].result()
    assert _core.gather(futures[3:], results) == 2
    assert results[-1] == 59


def test_gathering_leaves_a_watched_chunk_to_its_own_methods(pool: libpool.Pool) -> None:
    future = pool.submit_chunk(double, [1, 2], False)
    future.add_done_callback(lambda _: None)
    results: list[int] = []
    taken = _core.gather([future], results)
    assert taken in (0, 1)  # it may have ended before it was watched
    assert future.result() == [2, 4]
    assert results == ([2, 4] if taken else [])


def test_bad_arguments_are_refused(pool: libpool.Pool) -> None:
    with pytest.raises(ValueError, match="not 0"):
        pool.submit_chunks(double, [1], 0, False, False, [])
    with pytest.raises(TypeError):
        pool.submit_chunks(double, [1], 1, False, False, ())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.submit_chunks(double, {1: 2}, 1, False, False, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="futures"):
        _core.gather([1], [])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="two lists"):
        _core.gather((), [])  # type: ignore[arg-type]
