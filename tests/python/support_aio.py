"""What the tests of `aio` share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from support import Gate


def square(x: int) -> int:
    return x * x


def add(a: int, b: int) -> int:
    return a + b


def fail(why: str = "why") -> None:
    raise ValueError(why)


def keep_later(numbers: list[int], delay: float) -> list[int]:
    time.sleep(delay)
    return numbers


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


async def submit_one(workers: Any) -> Any:
    return await workers.aio.submit(square, 2)


async def numbers(count: int) -> AsyncIterator[int]:
    for n in range(count):
        await asyncio.sleep(0)
        yield n


async def until_async(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait for what no event tells of, while the loop runs."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


async def started_by_loop(gate: Gate) -> None:
    """Wait until a job has opened the gate, while the loop runs."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(gate.read_end, event.set)
    async with asyncio.timeout(20):
        await event.wait()
    loop.remove_reader(gate.read_end)
    os.read(gate.read_end, 1)
