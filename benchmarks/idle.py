"""What an idle pool costs: the processor time of 8 workers that have nothing to do.

Exits with 1 if all processes of the pool together take 0.2% of a core or more.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from harness import bar
from processes import descendants, processor_seconds

import libpool

LIMIT = 0.002


def f(x: int) -> int:
    """Do nothing."""
    return x


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure what an idle pool costs.")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)

    with libpool.Pool(options.workers) as pool:
        pool.map(f, range(10_000))
        time.sleep(1)  # whoever spins after the last job has stopped by then

        pids = [os.getpid(), *descendants(os.getpid())]
        before = {pid: processor_seconds(pid) for pid in pids}
        start = time.monotonic()
        for _ in bar(range(10), "idle"):
            time.sleep(options.seconds / 10)
        elapsed = time.monotonic() - start
        used = {pid: processor_seconds(pid) - before[pid] for pid in pids}

    host = used.pop(os.getpid()) / elapsed
    pool_share = sum(used.values()) / elapsed
    busiest = max(used.values()) / elapsed
    print(f"{options.workers} idle workers over {elapsed:.1f} s, as a share of one core:")
    print(f"  {len(used)} processes of the pool  {pool_share:8.4%}  (the busiest {busiest:.4%})")
    print(f"  the host, asleep         {host:8.4%}")
    met = pool_share < LIMIT
    print(f"  target <{LIMIT:.1%}: {'met' if met else 'not met'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
