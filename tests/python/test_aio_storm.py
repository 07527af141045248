"""Loops, callbacks, cancelling and dying workers, all at once, in several threads on one pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import os
import random
import time
from typing import Any

import pytest
from support import open_descriptors
from support_aio import fail, square

import libpool
from libpool.aio import JobFuture

SECONDS = 3
THREADS = 4


def square_later(n: int) -> int:
    time.sleep(n % 4 / 1000)
    return n * n


def die(_: int) -> None:
    os._exit(3)


class Life:
    """One thread's loops, one after the other, each with some of everything."""

    def __init__(self, pool: libpool.Executor, seed: int) -> None:
        self.pool = pool
        self.draw = random.Random(seed)
        self.submitted = self.called_back = 0

    def run_until(self, end: float) -> int:
        turns = 0
        while time.monotonic() < end:
            asyncio.run(asyncio.wait_for(self.turn(), 30))
            turns += 1
        return turns

    def start(self, n: int) -> asyncio.Future[Any]:
        calls = self.pool.aio
        kind = self.draw.random()
        if kind < 0.5:
            return calls.submit(square, n)
        if kind < 0.7:
            return calls.submit(square_later, n)
        if kind < 0.75:
            return calls.submit(fail, str(n))
        if kind < 0.76:
            return calls.submit(die, n)
        if kind < 0.85:
            return calls.options(kill_on_cancel=True).submit(square_later, n)
        self.submitted += 1
        future = self.pool.submit(square, n)
        future.add_done_callback(self.note)
        return asyncio.get_running_loop().run_in_executor(self.pool, square, n)

    def note(self, future: concurrent.futures.Future[int]) -> None:
        future.result()
        self.called_back += 1  # one thread does this

    async def turn(self) -> None:
        futures = [self.start(n) for n in range(self.draw.randrange(1, 80))]
        for future in futures:
            if self.draw.random() < 0.2:
                future.cancel()
            if self.draw.random() < 0.05:
                await asyncio.sleep(0)
        if self.draw.random() < 0.1:
            return  # the loop is closed amid all this
        if self.draw.random() < 0.1:
            time.sleep(0.01)  # the loop stands still
        for n, future in enumerate(futures):
            await self.check(n, future)
        items = range(self.draw.randrange(200))
        ordered = self.draw.random() < 0.5
        results = self.pool.aio.map(square, items, ordered=ordered, in_flight=7, chunksize=2)
        found = [result async for result in results]
        assert (found if ordered else sorted(found)) == [n * n for n in items]

    async def check(self, n: int, future: asyncio.Future[Any]) -> None:
        try:
            assert await future == n * n
        except asyncio.CancelledError:
            assert future.cancelled()
        except ValueError as error:
            assert str(error) == str(n)
        except libpool.WorkerDied as error:
            assert error.exitcode == 3


@pytest.mark.slow
def test_each_future_gets_its_own_outcome_and_nothing_is_left(caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")  # failures that nobody asked for
    end = time.monotonic() + SECONDS
    with libpool.Executor(2) as pool:
        lives = [Life(pool, seed) for seed in range(THREADS)]
        with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
            turns = [one.result(60) for one in [threads.submit(a.run_until, end) for a in lives]]
        assert min(turns) > 10
        assert pool.submit(square, 3).result() == 9
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, JobFuture)]
        assert pool.stats()["memory"] < 4 << 20
        descriptors = open_descriptors()
        asyncio.run(pool_once(pool))
        assert open_descriptors() == descriptors
    assert [life.called_back for life in lives] == [life.submitted for life in lives]


async def pool_once(pool: libpool.Executor) -> None:
    assert await pool.aio.submit(square, 4) == 16
