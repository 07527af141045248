"""Fork and join: jobs that submit to the pool which runs them, and wait for the results.

Fibonacci numbers and quicksort, the two classics. Each job forks one half of its work as another
job, does the other half itself, and joins. `libpool.current()` is the pool that runs the job. While
a job waits, its worker runs other jobs, so two workers are enough for a recursion of any depth.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import libpool

T = TypeVar("T")


def fork(function: Callable[..., T], *args: object) -> libpool.Future[T]:
    """Submit to the pool that runs this job."""
    pool = libpool.current()
    assert pool is not None, "this runs in jobs only"
    return pool.submit(function, *args)


def fibonacci(n: int) -> int:
    """Compute the n-th Fibonacci number, with a job for each call."""
    if n < 2:
        return n
    left = fork(fibonacci, n - 1)
    return fibonacci(n - 2) + left.result()


def quicksort(numbers: list[float], alone: int = 10_000) -> list[float]:
    """Sort; lists of up to `alone` numbers are not worth another job."""
    if len(numbers) <= alone:
        return sorted(numbers)
    pivot = sorted(random.sample(numbers, 9))[4]
    smaller = fork(quicksort, [x for x in numbers if x < pivot], alone)
    larger = quicksort([x for x in numbers if x > pivot], alone)
    return smaller.result() + [x for x in numbers if x == pivot] + larger


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Recursive jobs in a pool.")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--fibonacci", metavar="N", type=int, default=20, help="default: 20")
    parser.add_argument(
        "--numbers", metavar="N", type=int, default=500_000, help="to sort (default: 500000)"
    )
    options = parser.parse_args(arguments)
    if options.workers < 1 or options.numbers < 0:
        parser.error("there must be at least one worker, and no fewer than 0 numbers")

    numbers = [random.random() for _ in range(options.numbers)]
    with libpool.Pool(options.workers) as pool:
        start = time.perf_counter()
        result = pool.apply(fibonacci, (options.fibonacci,))
        seconds = time.perf_counter() - start
        jobs = pool.stats()["jobs_started"]
        print(f"fibonacci({options.fibonacci}) is {result}: {jobs} jobs in {seconds:.3f} s")

        start = time.perf_counter()
        in_order = pool.apply(quicksort, (numbers,))
        seconds = time.perf_counter() - start
        jobs = pool.stats()["jobs_started"] - jobs
        print(f"sorted {len(in_order)} numbers: {jobs} jobs in {seconds:.3f} s")
    if in_order != sorted(numbers):
        print("they are not in order", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
