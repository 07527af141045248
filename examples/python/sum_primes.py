"""The sum of all primes below n, for several n: one job each, results in order.

A classic of the field: two plain functions, one calling the other, sent to worker processes
without any preparation. ``examples/c/sum_primes.c`` is the same program in C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import libpool


def isprime(n: int) -> bool:
    """Tell whether `n` is a prime, by trial division."""
    if n < 2:
        return False
    if n % 2 == 0:
        return n == 2
    divisor = 3
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 2
    return True


def sum_primes(n: int) -> int:
    """Add up all primes below `n`."""
    return sum(candidate for candidate in range(2, n) if isprime(candidate))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Sum the primes below each N with a pool.")
    parser.add_argument(
        "--workers", type=int, help="worker processes (default: one for each usable core)"
    )
    parser.add_argument(
        "numbers",
        metavar="N",
        type=int,
        nargs="*",
        default=range(100_000, 100_800, 100),
        help="default: 100000, 100100, ... 100700",
    )
    options = parser.parse_args(arguments)
    workers = libpool.cpu_count() if options.workers is None else options.workers
    if workers < 1:
        parser.error("argument --workers: must be at least 1")

    start = time.perf_counter()
    with libpool.Pool(workers) as pool:
        jobs = [(n, pool.submit(sum_primes, n)) for n in options.numbers]
        for n, future in jobs:
            print(f"The sum of all primes below {n} is {future.result()}")
    seconds = time.perf_counter() - start
    print(f"{len(jobs)} jobs took {seconds:.3f} s with {workers} workers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
