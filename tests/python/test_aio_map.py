"""`aio.map`: order, bounds, asynchronous sources, ending early."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support import Gate
from support_aio import (
    add,
    numbers,
    square,
    started_by_loop,
)

import libpool


@pytest.mark.parametrize("chunksize", [1, 7])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", [range, numbers])
def test_map(workers: Any, source: Any, ordered: bool, chunksize: int) -> None:
    async def main() -> None:
        found = workers.aio.map(square, source(300), ordered=ordered, chunksize=chunksize)
        results = [result async for result in found]
        assert (results if ordered else sorted(results)) == [n * n for n in range(300)]
        assert [r async for r in workers.aio.map(square, source(0), chunksize=chunksize)] == []
        pairs = workers.aio.map(add, source(5), itertools.count(10), chunksize=chunksize)
        assert [r async for r in pairs] == [10, 12, 14, 16, 18]

    asyncio.run(main())


@pytest.mark.parametrize("source", [iter, "async"])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_holds_a_bounded_number_of_items(workers: Any, source: Any, ordered: bool) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def endless_async() -> AsyncIterator[int]:
        for n in endless():
            yield n

    async def main() -> None:
        items = endless_async() if source == "async" else endless()
        results = workers.aio.map(square, items, in_flight=5, ordered=ordered)
        async with contextlib.aclosing(results):
            for count in range(1, 50):
                await anext(results)
                await asyncio.sleep(0)
                assert taken <= count + 5

    asyncio.run(main())


def test_map_unordered_gives_what_is_ready(held: Gate, workers: Any) -> None:
    def wait_if_first(n: int) -> int:
        if n == 0:
            held.wait()
        return n

    async def main() -> None:
        results = workers.aio.map(wait_if_first, range(10), ordered=False)
        first = [await anext(results) for _ in range(9)]
        assert 0 not in first
        held.open()
        assert [r async for r in results] == [0]

    asyncio.run(main())


def test_map_gives_results_while_the_asynchronous_source_is_silent(workers: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            yield 2
            await more.wait()
            yield 3

        for ordered in (True, False):
            more.clear()
            results = workers.aio.map(square, source(), ordered=ordered)
            assert {await anext(results), await anext(results)} == {1, 4}
            more.set()
            assert [r async for r in results] == [9]

    asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_map_raises_what_a_job_or_the_source_raises(workers: Any, asynchronous: bool) -> None:
    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        raise LookupError("the source")

    async def async_source() -> AsyncIterator[int]:
        for n in source():
            yield n

    def fail_at_two(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    async def main() -> None:
        make = async_source if asynchronous else source
        found = []
        with pytest.raises(LookupError, match="the source"):
            async for result in workers.aio.map(square, make()):
                found.append(result)
        assert found == [1, 4, 9]
        found = []
        with pytest.raises(ValueError, match="two"):
            async for result in workers.aio.map(fail_at_two, make()):
                found.append(result)
        assert found == [1]

    asyncio.run(main())


@pytest.mark.parametrize("source", [range, numbers])
def test_ending_a_map_early_cancels_what_waits(
    started: Gate, held: Gate, caplog: Any, source: Any
) -> None:
    def wait_after_first(n: int) -> int:
        if n == 1:
            started.open()
            held.wait()
        if n > 1:
            raise ValueError("nobody asks for this")
        return n

    async def main(pool: libpool.Pool) -> None:
        async with contextlib.aclosing(pool.aio.map(wait_after_first, source(10))) as results:
            async for result in results:
                assert result == 0
                await started_by_loop(started)
                break
        task = asyncio.create_task(anext_of(pool.aio.map(square, source(10))))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.open()
        assert await pool.aio.submit(square, 3) == 9
        assert pool.stats()["jobs_started"] == 3
        assert len(asyncio.all_tasks()) == 1

    with caplog.at_level(logging.DEBUG), libpool.Pool(1) as pool:
        asyncio.run(main(pool))
        gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def anext_of(results: Any) -> Any:
    async with contextlib.aclosing(results):
        return await anext(results)


def test_a_chunk_whose_worker_dies_names_the_lost_items(workers: Any) -> None:
    def die_at(n: int) -> int:
        if n == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    async def main() -> None:
        results = workers.aio.map(die_at, range(30), chunksize=5)
        with pytest.raises(libpool.WorkerDied) as caught:
            async for _ in results:
                pass
        assert "items 10 to 14 are lost" in "".join(caught.value.__notes__)

    asyncio.run(main())


def test_bad_arguments_of_map(workers: Any) -> None:
    for wrong, error, text in [
        ({"chunksize": 0}, ValueError, "chunksize must be at least 1, not 0"),
        ({"in_flight": 0}, ValueError, "in_flight must be at least 1, not 0"),
    ]:
        with pytest.raises(error, match=text):
            workers.aio.map(square, range(3), **wrong)
    with pytest.raises(TypeError, match="at least one iterable"):
        workers.aio.map(square)
    with pytest.raises(TypeError, match="not iterable"):
        workers.aio.map(square, 5)
