"""Instructions for a job, counted and compared with what they were: ``./dev instructions``.

    ./dev instructions              count, and compare with benchmarks/instructions.json
    ./dev instructions --update     count, and keep what was counted
    ./dev instructions --profile    also which functions they are in

A time depends on the machine and the minute, a number of instructions does not: it shows the
smallest change of the code, on the busiest machine. What is counted is the project's own code (the
library, and the extension module), not the interpreter and not libc. Nothing that is counted ever
spins or sleeps: in C, one process plays both sides (``c/play.h``); in Python, the worker is stopped
while jobs are submitted, and done when the results are asked for (``instructions_job.py``). Of two
runs, one with more jobs, the difference counts, so what happens once does not.

The exit code is 1 if a count is more than 12% above what was kept. Another compiler, another
processor or another Python makes other instructions of the same source: then the counts are shown
and nothing is judged. An installed extension module has fewer than are counted, since it is linked
with optimisation, in which functions lose their names.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import callgrind
import instructions_job
from native import build_folder

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
FILE = BENCHMARKS / "instructions.json"
BUILD = ROOT / "build" / "instructions"
TOLERANCE = 0.12
SOME, MORE = 512, 1024
"""Jobs in the two runs in C: whole batches of a burst."""
ROUNDS, MORE_ROUNDS = 3, 6
"""Batches in the two runs in Python."""


@dataclass(frozen=True)
class Count:
    """A number that is tracked.

    Attributes
    ----------
    name : str
        As in the file and the table.
    functions : dict of str to float
        The instructions for one job in each function.
    """

    name: str
    functions: dict[str, float]

    @property
    def total(self) -> float:
        """Instructions for one job."""
        return sum(self.functions.values())


def count_native(folder: Path) -> Iterator[Count]:
    """Count what one job takes in C."""
    program = next(folder.rglob("benchmarks/c/cycle"), None)
    if program is None:
        raise RuntimeError(f"benchmarks/c/cycle has not been built below {folder}")
    parts = {
        "C, one job at a time: submit, wait, read, release": ("lone", ["play_host"]),
        "C, one job at a time: wait, claim, run, end": ("lone", ["worker_loop", "play_cue"]),
        "C, many jobs: submit": ("burst", ["play_submit_batch"]),
        "C, many jobs: claim, run, end": ("burst", ["play_run_batch"]),
        "C, many jobs: wait, read, release": ("burst", ["play_collect_batch"]),
    }
    for name, (play, toggles) in parts.items():
        runs = []
        for jobs in (SOME, MORE):
            _, counts = callgrind.run([str(program), play, "1", str(jobs)], toggles)
            (one,) = counts.values()
            runs.append(one)
        yield Count(name, _for_one(runs, MORE - SOME, f"{program.name}:", "play.c"))


def count_python(python: Path) -> Iterator[Count]:
    """Count what one job takes in the extension module, on both sides."""
    environment = build_module(python)
    os.environ.update(environment)
    sides = {
        "Python: submit(f, 1) and result()": (False, []),
        "Python: the worker's side": (True, ["schedule_take", "worker_run"]),
    }
    for name, (of_worker, toggles) in sides.items():
        runs = []
        for rounds in (ROUNDS, MORE_ROUNDS):
            command = [str(python), str(BENCHMARKS / "instructions_job.py"), str(rounds)]
            output, counts = callgrind.run(command, toggles)
            host, worker = map(int, output.split())
            runs.append(counts[worker if of_worker else host])
        jobs = (MORE_ROUNDS - ROUNDS) * (instructions_job.BATCH + 1)  # with the one that says so
        yield Count(name, _for_one(runs, jobs, "_core."))


def _for_one(
    runs: Sequence[Counter[str]], jobs: int, of: str, without: str = "?"
) -> dict[str, float]:
    """Return what one job more adds, in the functions of an object but not of one file."""
    less, more = runs
    return {
        name: (count - less[name]) / jobs
        for name, count in more.items()
        if name.startswith(of) and name.split(":")[1] != without and count != less[name]
    }


def build_module(python: Path) -> dict[str, str]:
    """Build the extension with the names of its functions: the environment to run it in."""
    site = BUILD / "site"
    options = ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DPython_EXECUTABLE={python}"]
    options += ["-DLIBPOOL_BUILD_PYTHON=ON", "-DLIBPOOL_BUILD_TESTS=OFF"]
    options += ["-DLIBPOOL_BUILD_EXAMPLES=OFF", "-DLIBPOOL_BUILD_BENCHMARKS=OFF"]
    for command in (
        ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(BUILD), *options],
        ["cmake", "--build", str(BUILD)],
        ["cmake", "--install", str(BUILD), "--component", "python", "--prefix", str(site)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    for file in (ROOT / "pybind" / "libpool").glob("*.py"):
        shutil.copy(file, site / "libpool")
    return {"PYTHONPATH": str(site)}


def circumstances(folder: Path) -> dict[str, str]:
    """Say what else decides how many instructions a source becomes."""
    cache = (folder / "CMakeCache.txt").read_text().splitlines()
    compiler = next(
        line.partition("=")[2] for line in cache if line.startswith("CMAKE_C_COMPILER:")
    )
    command = [compiler, "-dumpfullversion", "-dumpversion"]
    version = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    macros = [compiler, "-dM", "-E", "-x", "c", "/dev/null"]
    defined = subprocess.run(macros, capture_output=True, text=True, timeout=60, check=True).stdout
    name = "clang" if "__clang__ " in defined else "gcc"
    return {
        "compiler": f"{name} {version.stdout.split('.')[0].strip()}",
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def compare(count: Count, kept: dict[str, Any], comparable: bool) -> tuple[str, bool]:
    """Return a line for the table, and whether the count may be so high."""
    before = kept.get("instructions", {}).get(count.name)
    if before is None:
        return f"{count.name:<52}{count.total:>9.0f}{'new':>9}", True
    change = count.total / before - 1
    fine = not comparable or count.total <= before * (1 + TOLERANCE)
    line = f"{count.name:<52}{count.total:>9.0f}{before:>9.0f}{change:>+8.1%}"
    return line + ("" if fine else "   TOO MANY"), fine


def profile(count: Count) -> Iterator[str]:
    """Yield the functions that have the most."""
    most = sorted(count.functions.items(), key=lambda each: -each[1])
    for name, instructions in most[:30]:
        yield f"    {instructions:>8.1f}  {name.partition(':')[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, compare, say so. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Count the instructions for a job.")
    parser.add_argument("--update", action="store_true", help="keep what is counted")
    parser.add_argument("--profile", action="store_true", help="also by function")
    parsed = parser.parse_args(arguments)
    reason = callgrind.available()
    if reason is not None:
        print(f"not counted: {reason}")
        return 0
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    about = circumstances(build_folder())
    different = [
        f"{name} is {about[name]}, was {was}"
        for name, was in kept.get("circumstances", {}).items()
        if about[name] != was
    ]
    if different:
        print(f"Shown and not judged: {'; '.join(different)}.")
    print(f"{'instructions for one job':<52}{'now':>9}{'kept':>9}{'change':>8}")
    good = True
    counted: dict[str, int] = {}
    for counts in (count_native(build_folder()), count_python(Path(sys.executable))):
        for count in counts:
            line, fine = compare(count, kept, not different)
            print(line, flush=True)
            if parsed.profile:
                print("\n".join(profile(count)))
            good &= fine
            counted[count.name] = round(count.total)
    if parsed.update:
        content = {"circumstances": about, "instructions": counted}
        FILE.write_text(json.dumps(content, indent=2) + "\n")
        return 0
    if not good:
        print(
            f"A count is more than {TOLERANCE:.0%} above what was kept. If that is what the change "
            "is worth: ./dev instructions --update"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
