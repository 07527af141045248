"""From nothing to the first result of a new pool.

Each sample is a process of its own, so that what the other pools have imported does not lie in the
memory that is forked.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter

from contenders import LIBPOOL, MULTIPROCESSING, PEERS, Contender, against
from harness import Options, Row, Skipped, Target, check
from jobs import f

TARGETS = {MULTIPROCESSING.name: Target(1, 2)}


def measure_here(contender: Contender, workers: int, count: int) -> float:
    """Median time over `count` pools, each made anew; closing it is not part of the time."""
    times = []
    for _ in range(count):
        gc.collect()
        start = perf_counter()
        with contender.open(workers) as session:
            answer = session.call(f, 1)
            times.append(perf_counter() - start)
        check(answer, 1, contender.name)
    return statistics.median(times)


def measure(contender: Contender, options: Options, count: int) -> float:
    """Run `measure_here` in a new process, which has opened one such pool before."""
    command = [sys.executable, __file__, contender.name, str(options.workers), str(count)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return float(answer.stdout)


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with every peer that is installed."""
    what = "first result from a new pool"
    yield from against(PEERS, lambda _: what, measure, TARGETS, options, 10)


def main(name: str, workers: int, count: int) -> None:
    """Measure one contender and print the seconds."""
    (contender,) = (each for each in (LIBPOOL, *PEERS) if each.name == name)
    measure_here(contender, workers, 1)  # what it imports when it is first used
    print(measure_here(contender, workers, count))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
