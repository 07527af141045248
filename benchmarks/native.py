"""The C interface: jobs that do nothing, against other pools in C.

Runs ``pool_bench`` (sources in ``c/``), which lets the pools take turns and prints every sample.
It is looked for below ``$LIBPOOL_BUILD``, else below ``build/release``, where ``./dev bench``
builds it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness import Options, Row, Skipped, Target, bar

ROOT = Path(__file__).resolve().parent.parent
WHAT = "in C"
TARGETS = {
    ("round trip", "GThreadPool"): Target(20, 40),
    ("burst", "oneTBB task_group"): Target(0.7, 1),
}


def build_folder() -> Path:
    """Where the C library was built."""
    return Path(os.environ.get("LIBPOOL_BUILD", ROOT / "build" / "release"))


def run(program: Path, options: Options) -> Iterator[Row | Skipped]:
    """Run it and sort its lines into rows, one for each kind and peer."""
    count = options.count(100_000)
    command = [str(program), "-w", str(options.workers), "-r", str(options.rounds)]
    command += ["-n", str(count)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    missing: list[tuple[str, str]] = []
    samples: dict[str, dict[str, list[float]]] = {}
    for line in finished.stdout.splitlines():
        kind, contender, *rest = line.split("\t")
        if kind == "missing":
            missing.append((contender, rest[0]))
        else:
            samples.setdefault(kind, {}).setdefault(contender, []).append(float(rest[-1]))

    names = {
        "round trip": f"{WHAT}: no-op submit and wait, median",
        "burst": f"{WHAT}: {count:,} × no-op submit, then wait for all",
    }
    for kind, contenders in samples.items():
        for peer, times in contenders.items():
            if peer != "libpool":
                row = Row(names[kind], peer, target=TARGETS.get((kind, peer)))
                row.peer_samples, row.libpool_samples = times, contenders["libpool"]
                yield row
        for peer, needs in missing:
            yield Skipped(names[kind], f"{peer} (pool_bench was built without {needs})")


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with the pools that ``pool_bench`` was built with."""
    program = next(build_folder().rglob("pool_bench"), None)
    if program is None:
        yield Skipped(WHAT, "pool_bench has not been built")
        return
    for _ in bar(range(1), "pool_bench"):
        yield from run(program, options)
