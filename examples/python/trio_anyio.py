"""A pool under Trio and AnyIO: one short function for each, with cancellation.

``run_in_trio`` builds on two things that exist without asyncio: a future calls back when it ends,
in a thread of libpool's, and `trio.lowlevel.TrioToken` wakes a task of Trio from another thread.
``run_in_anyio`` takes that under Trio, and ``pool.aio`` under asyncio, which needs no thread.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import libpool

T = TypeVar("T")


async def run_in_trio(pool: libpool.Pool | libpool.Executor, fn: Callable[..., T], *args: Any) -> T:
    """Have a worker call ``fn(*args)`` and wait for the result.

    When the wait is cancelled, a call that no worker has begun is not made; one that runs goes on,
    and its result is dropped. For one that is to be killed, take ``future.kill()``.
    """
    import trio

    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()

    def tell(_: object) -> None:
        try:
            token.run_sync_soon(ended.set)
        except trio.RunFinishedError:
            pass  # the run was cancelled, and nobody waits any more

    future = pool.submit(fn, *args)
    future.add_done_callback(tell)
    try:
        await ended.wait()
    except trio.Cancelled:
        future.cancel()
        raise
    return future.result()


async def run_in_anyio(
    pool: libpool.Pool | libpool.Executor, fn: Callable[..., T], *args: Any
) -> T:
    """Have a worker call ``fn(*args)`` and wait for the result, whatever AnyIO runs on."""
    if running_in_asyncio():
        return await pool.aio.run(fn, *args)
    return await run_in_trio(pool, fn, *args)


def running_in_asyncio() -> bool:
    """Whether the caller is a task of asyncio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def slow_square(n: int, seconds: float = 0.0) -> int:
    """A job."""
    time.sleep(seconds)
    return n * n


async def use_trio(pool: libpool.Pool) -> None:
    """Twenty jobs at once, and some that are given up."""
    import trio

    squares: dict[int, int] = {}

    async def square(n: int) -> None:
        squares[n] = await run_in_trio(pool, slow_square, n)

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(square, n)
    print(f"Trio: {[squares[n] for n in range(20)]}")
    with trio.move_on_after(0.1) as scope:
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(run_in_trio, pool, slow_square, n, 0.3)
    print(f"Trio: given up after a tenth of a second: {scope.cancelled_caught}")


async def use_anyio(pool: libpool.Pool) -> None:
    """The same with AnyIO."""
    import anyio

    squares: dict[int, int] = {}

    async def square(n: int) -> None:
        squares[n] = await run_in_anyio(pool, slow_square, n)

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(square, n)
    where = f"AnyIO on {'asyncio' if running_in_asyncio() else 'trio'}"
    print(f"{where}: {[squares[n] for n in range(20)]}")
    with anyio.move_on_after(0.1) as scope:
        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(run_in_anyio, pool, slow_square, n, 0.3)
    print(f"{where}: given up after a tenth of a second: {scope.cancelled_caught}")


def main() -> int:
    """Run what is installed, and say what is not."""
    has_trio, has_anyio = (importlib.util.find_spec(name) for name in ("trio", "anyio"))
    with libpool.Pool(2) as pool:
        if has_trio:
            import trio

            trio.run(use_trio, pool)
        else:
            print("Trio is not installed: pip install trio")
        if has_anyio:
            import anyio

            for backend in ("asyncio", "trio") if has_trio else ("asyncio",):
                anyio.run(use_anyio, pool, backend=backend)
        else:
            print("AnyIO is not installed: pip install anyio")
    return 0


if __name__ == "__main__":
    sys.exit(main())
