"""The C interface: jobs that do nothing, against other pools in C.

Runs ``pool_bench`` (sources in ``c/``), which lets the pools take turns and prints every sample.
It is looked for below ``$LIBPOOL_BUILD``, else below ``build/release``; if it has not been built
but the library has, it is compiled here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Options, Row, Skipped, bar

ROOT = Path(__file__).resolve().parent.parent
SOURCES = Path(__file__).resolve().parent / "c"
WHAT = "in C"


def build_folder() -> Path:
    """Where the C library was built."""
    return Path(os.environ.get("LIBPOOL_BUILD", ROOT / "build" / "release"))


def compile_here(folder: Path) -> Path | str:
    """Compile ``pool_bench`` against the static library. Returns its path, or why not."""
    library = next(build_folder().rglob("libpool.a"), None)
    compiler = shutil.which("cc")
    if library is None:
        return "the C library has not been built"
    if compiler is None:
        return "there is no C compiler"
    program = folder / "pool_bench"
    command = [compiler, "-std=c11", "-O2", "-D_GNU_SOURCE", f"-I{ROOT / 'libpool/include'}"]
    command += ["-o", str(program), *(str(source) for source in sorted(SOURCES.glob("*.c")))]
    command += [str(library), "-pthread", "-ldl", "-lrt"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        print(finished.stderr, file=sys.stderr)
        return "pool_bench does not compile"
    return program


def run(program: Path, options: Options) -> list[Row]:
    """Run it and sort its lines into rows, one for each kind and peer."""
    count = options.count(100_000)
    command = [str(program), "-w", str(options.workers), "-r", str(options.rounds)]
    command += ["-n", str(count)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    samples: dict[str, dict[str, list[float]]] = {}
    for line in finished.stdout.splitlines():
        kind, contender, _, seconds = line.split("\t")
        samples.setdefault(kind, {}).setdefault(contender, []).append(float(seconds))

    names = {
        "round trip": f"{WHAT}: no-op submit and wait, median",
        "burst": f"{WHAT}: {count:,} × no-op submit, then wait for each",
    }
    return [
        Row(names[kind], peer, peer_samples=times, libpool_samples=contenders["libpool"])
        for kind, contenders in samples.items()
        for peer, times in contenders.items()
        if peer != "libpool"
    ]


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Compare with the pools that ``pool_bench`` was built with."""
    with tempfile.TemporaryDirectory() as folder:
        program = next(build_folder().rglob("pool_bench"), None) or compile_here(Path(folder))
        if isinstance(program, str):
            yield Skipped(WHAT, program)
            return
        for _ in bar(range(1), "pool_bench"):
            yield from run(program, options)
