"""How many items go to a worker at a time."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import Gate, pass_gates, until

from libpool import Pool
from libpool._chunks import LARGEST_LAZY, Items, Sizes, guided_sizes
from libpool._flow import Flow


def square(x: int) -> int:
    return x * x


def nap(seconds: float) -> float:
    """What it really took: the machine may have others to serve."""
    begin = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - begin


# ---- Sizes --------------------------------------------------------------------------------------


def learned(seconds: float, remaining: int | None, workers: int = 2) -> list[int]:
    """The sizes as they become when each item takes so long."""
    sizes = Sizes(workers)
    found = []
    for _ in range(20):
        found.append(sizes.next(remaining))
        sizes.learn(found[-1], seconds * found[-1])
    return found


def test_the_first_chunks_are_single_items() -> None:
    sizes = Sizes(2)
    assert [sizes.next(10**6), sizes.next(None), sizes.next(0)] == [1, 1, 1]
    assert not sizes.known


def test_tiny_jobs_are_bundled_up_to_a_millisecond() -> None:
    assert learned(1e-6, None)[-1] in (999, 1000)
    assert learned(1e-5, None)[-1] in (99, 100)


def test_long_jobs_go_one_at_a_time() -> None:
    assert set(learned(1e-3, None)) == set(learned(5.0, 10**6)) == {1}


def test_a_chunk_is_never_much_larger_than_one_that_has_ended() -> None:
    found = learned(1e-8, None)
    assert found[:4] == [1, 8, 64, 512]


def test_chunks_become_smaller_towards_the_end() -> None:
    sizes = Sizes(2)
    for size in (1, 8, 64, 512):
        sizes.learn(size, size * 1.001e-5)
    assert [sizes.next(left) for left in (10_000, 400, 80, 16, 1)] == [99, 50, 10, 2, 1]


def test_a_chunk_that_costs_little_is_not_divided_for_balance() -> None:
    sizes = Sizes(2)
    sizes.learn(100, 1e-5)  # 100 ns each
    assert sizes.next(8) == 200


def test_one_long_job_makes_the_next_chunks_small_but_not_for_ever() -> None:
    sizes = Sizes(2)
    sizes.learn(1000, 1e-3)
    sizes.learn(1000, 1.0)
    assert sizes.next(None) < 5
    for _ in range(60):
        sizes.learn(2, 2e-6)
    assert sizes.next(None) > 500


def test_what_is_not_known_changes_nothing() -> None:
    sizes = Sizes(2)
    sizes.learn(5, None)
    assert not sizes.known
    sizes.learn(1, 0.0)  # faster than the clock
    assert sizes.next(None) == 8


def test_a_fixed_size_stays() -> None:
    sizes = Sizes(2, fixed=7)
    sizes.learn(7, 100.0)
    assert sizes.known
    assert [sizes.next(1000), sizes.next(3), sizes.next(None)] == [7, 7, 7]


@pytest.mark.parametrize("workers", [1, 2, 64])
@pytest.mark.parametrize("items", [0, 1, 2, 255, 256, 257, 20_000, 1_000_000])
def test_guided_sizes_cover_all_items_in_few_chunks_the_last_ones_small(
    items: int, workers: int
) -> None:
    found = list(guided_sizes(items, workers))
    assert sum(found) == items
    assert found == sorted(found, reverse=True)
    assert max(found, default=0) <= -(-items // 256)
    assert len(found) <= 256 + workers * 4 * 20
    assert found[-1:] in ([], [1])


# ---- Items --------------------------------------------------------------------------------------


def fail_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError(count)


@pytest.mark.parametrize("kind", [list, tuple, lambda items: range(items[-1] + 1)])
def test_sequences_are_sliced(kind: Callable[[list[int]], object]) -> None:
    iterable = kind([0, 1, 2, 3, 4])
    items = Items(iterable)  # type: ignore[arg-type]
    assert (items.total, items.remaining) == (5, 5)
    assert list(items.take(3)) == [0, 1, 2]
    assert type(items.take(0)) is type(iterable)
    assert items.remaining == 2
    assert list(items.take(3)) == [3, 4]
    assert not items.take(3)


def test_iterables_are_advanced_no_further_than_asked() -> None:
    source = iter(range(10))
    items = Items(source)
    assert items.total is None and items.remaining is None
    assert items.take(3) == [0, 1, 2]
    assert next(source) == 3


def test_an_exception_comes_after_the_items_before_it() -> None:
    items = Items(fail_after(5))
    assert items.take(3) == [0, 1, 2]
    assert items.error is None
    assert items.take(3) == [3, 4]
    assert isinstance(items.error, LookupError)
    assert not items.take(3)


def test_an_exception_costs_its_chunk_if_chunks_are_to_be_whole() -> None:
    items = Items(fail_after(5), whole=True)
    assert items.take(3) == [0, 1, 2]
    assert not items.take(3)
    assert isinstance(items.error, LookupError)


def test_an_interrupt_costs_no_item() -> None:
    class Again:
        """An iterator that goes on after an interrupt."""

        def __init__(self) -> None:
            self.count = 0

        def __iter__(self) -> Again:
            return self

        def __next__(self) -> int:
            self.count += 1
            if self.count == 3:
                raise KeyboardInterrupt
            return self.count

    items = Items(Again())
    with pytest.raises(KeyboardInterrupt):
        items.take(5)
    assert items.take(4) == [1, 2, 4, 5]


def test_what_is_no_iterable_is_an_error_of_the_items() -> None:
    items = Items(5)  # type: ignore[arg-type]
    assert not items.take(1)
    assert isinstance(items.error, TypeError)


# ---- What the workers get -----------------------------------------------------------------------


def test_a_worker_tells_how_long_a_chunk_took(pool: Pool) -> None:
    future = pool.submit_chunk(nap, [0.02, 0.03], False)
    assert future._spent() is None
    slept = sum(future.result())
    spent = future._spent()
    assert spent is not None and slept <= spent * 1.001 and spent < slept + 1
    failed = pool.submit_chunk(abs, ["x"], False)
    assert isinstance(failed.exception(), TypeError)
    assert failed._spent() is not None
    assert pool.submit_chunk(abs, [lambda: 1], False)._was_sent()
    call = pool.submit(nap, 0.01)
    call.result()
    assert call._spent() is None  # only of chunks


def test_a_chunk_that_can_not_be_pickled_was_not_sent(pool: Pool) -> None:
    future = pool.submit_chunk(abs, [threading.Lock()], False)
    assert isinstance(future.exception(), TypeError)
    assert not future._was_sent()
    assert future._spent() is None


@pytest.mark.parametrize("ordered", [False, True])
def test_what_has_ended_before_anybody_looks_tells_how_long_it_took(
    pool: Pool, ordered: bool
) -> None:
    sizes = Sizes(pool.workers)
    flow = Flow(pool, square, Items(range(100)), sizes, star=False, each=ordered, ordered=ordered)
    ended = pool.stats()["jobs_done"]
    flow.feed()
    until(lambda: pool.stats()["jobs_done"] == ended + len(flow._chunks))
    assert not sizes.known
    assert flow.take() is not None
    assert sizes.known
    flow.cancel()


def test_a_million_tiny_jobs_go_in_few_chunks(pool: Pool) -> None:
    assert pool.map(square, range(1_000_000)) == [x * x for x in range(1_000_000)]
    assert pool.stats()["jobs_started"] < 5000


def test_long_jobs_go_one_at_a_time_in_map(pool: Pool) -> None:
    pool.map(nap, [0.004] * 60)
    assert pool.stats()["jobs_started"] == 60


def wait_if_first(number: int, first: int, started: Gate, held: Gate, done: Gate) -> object:
    if number == first:
        return pass_gates(started, held, number)
    done.open()
    return number


@pytest.mark.parametrize("method", ["starmap", "starmap_async"])
def test_no_other_item_waits_behind_a_long_one(
    gate: Callable[[], Gate], started: Gate, held: Gate, method: str
) -> None:
    done = gate()
    with Pool(2) as pool:
        items = [(number, 3, started, held, done) for number in range(200)]
        with ThreadPoolExecutor(1) as thread:
            call = thread.submit(getattr(pool, method), wait_if_first, items)
            started.wait_for()
            for _ in range(199):
                done.wait_for()
            held.open()
            results = call.result()
        if method == "starmap_async":
            results = results.get()
        assert results == list(range(200))


def test_unequal_jobs_are_balanced(pool: Pool) -> None:
    generator = random.Random(5)
    naps = [min(0.0005 * generator.paretovariate(1.3), 0.1) for _ in range(600)]
    for run in (
        lambda: pool.map(nap, naps),
        lambda: list(pool.imap_unordered(nap, naps)),
        lambda: pool.map_async(nap, naps).get(),
    ):
        begin = time.perf_counter()
        ideal = sum(run()) / 2
        # Within some percent when nothing else runs; this is about the worst that a busy machine
        # makes of it. Four chunks for each worker come to 1.3 and more.
        assert time.perf_counter() - begin < ideal * 1.25


def test_an_explicit_size_is_obeyed_by_each_method(pool: Pool) -> None:
    def jobs(run: Callable[[], object]) -> int:
        before = pool.stats()["jobs_started"]
        run()
        return pool.stats()["jobs_started"] - before

    items = range(100)
    assert jobs(lambda: pool.map(square, items, 9)) == 12
    assert jobs(lambda: pool.map(square, items, 9, progress={"disable": True})) == 12
    assert jobs(lambda: pool.map_async(square, items, 9).get()) == 12
    assert jobs(lambda: list(pool.imap(square, items, 9))) == 12
    assert jobs(lambda: list(pool.imap(square, iter(items), 9))) == 12
    assert jobs(lambda: list(pool.imap_unordered(square, items, 9))) == 12
    assert jobs(lambda: pool.starmap(pow, [(2, 3)] * 100, 9)) == 12
    assert jobs(lambda: pool.starmap_async(pow, [(2, 3)] * 100, 9).get()) == 12


def test_lazy_chunks_have_a_limit(pool: Pool) -> None:
    assert list(pool.imap(square, range(50_000))) == [x * x for x in range(50_000)]
    assert pool.stats()["jobs_started"] >= 50_000 / LARGEST_LAZY


def test_all_items_are_called_once_however_they_are_divided(pool: Pool) -> None:
    for items in (0, 1, 2, 3, 5, 17, 100, 1000, 4097):
        for results in (
            pool.map(square, range(items)),
            pool.map_async(square, range(items)).get(),
            list(pool.imap(square, range(items))),
            list(pool.imap_unordered(square, iter(range(items)))),
        ):
            assert Counter(results) == Counter(x * x for x in range(items))
