"""The same C code, run by threads through an extension that releases the GIL, and by a pool.

Both use all cores. The thread has to be in Python for a moment before and after each call, and
takes turns with all others there; a crash of the extension is the end of the program. The pool's
worker calls the C function and has no need of its interpreter; a crash is the end of one job. With
calls that are long it makes no difference in speed, with short ones it does.

Build the extension first: ``python setup.py build_ext --inplace`` or ``pip install .``.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import libpool

try:
    import primes
except ImportError:
    sys.exit("build the extension first: python setup.py build_ext --inplace")


def measure(name: str, calls: int, count: Callable[[], int]) -> int:
    """Print how long it takes. Returns the count."""
    start = time.perf_counter()
    found = count()
    seconds = time.perf_counter() - start
    print(f"{name:32} {found} primes {seconds * 1e3:9.1f} ms {seconds / calls * 1e6:9.2f} us/call")
    return found


def compare(calls: int, each: int, workers: int) -> bool:
    """Count primes in `calls` ranges of `each` numbers, in three ways. Tells if all agree."""
    ranges = [(i * each, (i + 1) * each) for i in range(calls)]
    in_c = libpool.native(
        primes.__file__,
        "count_primes",
        argtypes=[ctypes.c_int64, ctypes.c_int64],
        restype=ctypes.c_int64,
    )
    print(f"{calls} calls of {each} numbers each")
    with libpool.Executor(workers) as pool, ThreadPoolExecutor(workers) as threads:

        def total(
            executor: libpool.Executor | ThreadPoolExecutor, function: Callable[..., int]
        ) -> int:
            futures = [executor.submit(function, begin, end) for begin, end in ranges]
            return sum(future.result() for future in futures)

        total(pool, in_c), total(threads, primes.count)  # now all threads and workers are there
        counts = {
            measure("one thread", calls, lambda: sum(primes.count(*pair) for pair in ranges)),
            measure("threads, extension without GIL", calls, lambda: total(threads, primes.count)),
            measure("pool, native job", calls, lambda: total(pool, in_c)),
        }
    return len(counts) == 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example. Returns the exit code."""
    parser = argparse.ArgumentParser(description="An extension in threads, C code in a pool.")
    parser.add_argument("--workers", type=int, default=libpool.cpu_count())
    parser.add_argument("--numbers", type=int, default=1_000_000, help="to look at in all")
    options = parser.parse_args(arguments)
    same = [
        compare(calls, options.numbers // calls, options.workers)
        for calls in (16, max(16, options.numbers // 50))
    ]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
