"""Long runs: memory after millions of jobs, and what hundreds of pools leave behind.

First ten million jobs go through one pool, and after each million the memory of the host, of the
workers and of the shared segment is printed: it must stay flat after the first. Then 200 pools
are made, used and closed in one process: descriptors, mappings and child processes must be as
many as before. Exits with 1 if either grows.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence

from harness import bar, say
from processes import descendants, descriptors, mappings, private_bytes, shared_bytes

import libpool

BURST = 10_000
SLACK = 1_000_000
"""Growth in bytes that is taken for noise: the heap and the segment grow in larger steps."""


def f(x: object) -> object:
    """Return the argument."""
    return x


def burst(pool: libpool.Pool, turn: int) -> None:
    """Run `BURST` jobs and check every result: small values, and now and then larger blocks."""
    futures = [pool.submit(f, i) for i in range(BURST - 100)]
    block = bytes(1000 * (1 + turn % 50))
    blocks = [pool.submit(f, block) for _ in range(100)]
    if [future.result() for future in futures] != list(range(BURST - 100)):
        raise RuntimeError("wrong results")
    if any(future.result() != block for future in blocks):
        raise RuntimeError("wrong blocks")


def memory() -> tuple[int, int, int]:
    """Bytes of the host, of the pool's processes, and of the shared segment."""
    gc.collect()
    workers = sum(private_bytes(pid) for pid in descendants(os.getpid()))
    return private_bytes(os.getpid()), workers, shared_bytes()


def soak_jobs(jobs: int, workers: int | None) -> bool:
    """Send `jobs` jobs through one pool. Returns whether memory stayed flat."""
    print(f"{'jobs':>12}{'jobs/s':>12}{'host':>12}{'workers':>12}{'shared':>12}  (MB)", flush=True)
    step = max(1, jobs // 10 // BURST)
    first: tuple[int, int, int] | None = None
    flat = True
    with libpool.Pool(workers) as pool:
        start = time.perf_counter()
        for turn in bar(range(1, jobs // BURST + 1), "bursts"):
            burst(pool, turn)
            if turn % step:
                continue
            seconds = time.perf_counter() - start
            now = memory()
            first = first or now
            flat &= all(after <= before + SLACK for before, after in zip(first, now, strict=True))
            sizes = "".join(f"{size / 1e6:>12.1f}" for size in now)
            say(f"{turn * BURST:>12,}{step * BURST / seconds:>12,.0f}{sizes}")
            start = time.perf_counter()
    print(f"memory after the first {step * BURST:,} jobs: {'flat' if flat else 'GROWS'}")
    return flat


def counts() -> Iterator[int]:
    """Yield what a pool must give back: descriptors, mappings, child processes."""
    gc.collect()
    yield descriptors()
    yield mappings()
    yield len(descendants(os.getpid()))


def soak_pools(pools: int, workers: int | None) -> bool:
    """Make, use and close pools. Returns whether they gave everything back."""

    def one_pool() -> None:
        with libpool.Pool(workers) as pool:
            if pool.map(f, range(100)) != list(range(100)):
                raise RuntimeError("wrong results")
            pool.close()
            pool.join()

    for _ in range(5):  # what is loaded or cached once is not a leak
        one_pool()
    before = tuple(counts())
    for _ in bar(range(pools), "pools"):
        one_pool()
    after = tuple(counts())
    print(f"{'':>20}{'descriptors':>14}{'mappings':>12}{'children':>12}")
    print(f"{'before':>20}{before[0]:>14}{before[1]:>12}{before[2]:>12}")
    print(f"{f'after {pools} pools':>20}{after[0]:>14}{after[1]:>12}{after[2]:>12}")
    # The allocator of the host may have taken or given back a mapping or two of its own.
    same = after[0] <= before[0] and after[1] <= before[1] + 2 and after[2] <= before[2]
    print("nothing left" if same else "SOMETHING IS LEFT")
    return same


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both parts. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Soak a pool with jobs, a process with pools.")
    parser.add_argument("--jobs", type=int, default=10_000_000, help="default: ten million")
    parser.add_argument("--pools", type=int, default=200, help="default: 200")
    parser.add_argument("--workers", type=int, help="default: one for each usable core")
    options = parser.parse_args(arguments)
    flat = soak_jobs(options.jobs, options.workers)
    print()
    same = soak_pools(options.pools, options.workers)
    return 0 if flat and same else 1


if __name__ == "__main__":
    sys.exit(main())
