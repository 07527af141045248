#!/usr/bin/env python3
"""Seeded mistakes: the explorer has to find each of them.

Each one is a small change to a copy of libpool/src. It is compiled into the explorer's test
program, and the named scenario must then fail within the time limit and say what is wrong. The run
fails if a mistake is not found, if a text to be replaced is not there exactly once, or if the
unchanged code fails in one of the scenarios used.

    mutants.py [--compiler CC] [--jobs N] [NAME...]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutant import Mutant
from seeded_layers import LAYER_MUTANTS
from seeded_many import MANY_MUTANTS
from seeded_pool import POOL_MUTANTS

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent.parent / "libpool" / "src"
INCLUDE = HERE.parent.parent / "libpool" / "include"
LAYERS = (
    "ring freemap arena job wake schedule run worker queue submit many future wait repair".split()
)
EXPLORER = "explore states report stubs".split()
FLAGS = (
    "-std=c11 -D_GNU_SOURCE -DPOOL_EXPLORE -O2 -w -U_FORTIFY_SOURCE -fno-strict-aliasing -pthread"
).split()
LIMIT = 300.0  # seconds for one scenario
MUTANTS = [*LAYER_MUTANTS, *POOL_MUTANTS, *MANY_MUTANTS]
FAILURE = re.compile(r"(\d+) executions.* in an operation: (.*)$")


@dataclass
class Outcome:
    """What came of one run: `found` is what the explorer says, "" if it found nothing."""

    found: str
    executions: int
    problem: str = ""


class Builder:
    """Compiles test programs; what a mutant leaves unchanged is compiled once."""

    def __init__(self, compiler: str, directory: Path) -> None:
        self.compiler = compiler
        self.directory = directory

    def compile(self, source: Path, target: Path, layers: Path) -> Path:
        command = [self.compiler, *FLAGS, "-c", str(source), "-o", str(target)]
        includes = [f"-I{path}" for path in (layers, INCLUDE, HERE)]
        subprocess.run([*command, *includes], check=True)
        return target

    def compile_all(self, tests: list[str], pool: ThreadPoolExecutor) -> None:
        sources = [SOURCE / f"{name}.c" for name in LAYERS]
        sources += [HERE / f"{name}.c" for name in [*EXPLORER, "simulation", *tests]]
        for future in [
            pool.submit(self.compile, source, self.directory / f"{source.stem}.o", SOURCE)
            for source in sources
        ]:
            future.result()

    def link(self, test: str, program: Path, replaced: dict[str, Path]) -> Path:
        """A test that has a layer's source in it does without that layer's object."""
        text = (HERE / f"{test}.c").read_text()
        names = [name for name in LAYERS if f'#include "{name}.c"' not in text]
        if '#include "simulation.h"' in text:
            names.append("simulation")
        else:
            names = [name for name in names if name in {"ring", "freemap", "arena"}]
        names += [*EXPLORER, test]
        objects = [replaced.get(name, self.directory / f"{name}.o") for name in names]
        command = [self.compiler, "-pthread", "-o", str(program)]
        subprocess.run([*command, *map(str, objects)], check=True)
        return program

    def build(self, mutant: Mutant, where: Path) -> Path:
        layers = where / "src"
        shutil.copytree(SOURCE, layers)
        changed = layers / mutant.file
        text = changed.read_text()
        for old, new in mutant.changes:
            if text.count(old) != 1:
                raise LookupError(f"{mutant.file} has this {text.count(old)} times:\n{old}")
            text = text.replace(old, new)
        changed.write_text(text)
        replaced = {
            changed.stem: self.compile(changed, where / f"{changed.stem}.o", layers),
            mutant.test: self.compile(
                HERE / f"{mutant.test}.c", where / f"{mutant.test}.o", layers
            ),
        }
        return self.link(mutant.test, where / mutant.test, replaced)


def explore(program: Path, scenario: str) -> Outcome:
    try:
        done = subprocess.run(
            [str(program), scenario], capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return Outcome("", 0, f"no answer in {LIMIT:.0f} s")
    line = next(iter(done.stdout.splitlines()), "")
    match = FAILURE.search(line)
    if not match or not line.startswith(scenario):
        return Outcome("", 0, f"exit status {done.returncode}, no result: {line}{done.stderr}")
    executions, found = int(match[1]), match[2]
    if found == "ok":
        return Outcome("", executions)
    return Outcome(found, executions)


def check_unchanged(builder: Builder, mutants: list[Mutant], pool: ThreadPoolExecutor) -> bool:
    """What fails without a mistake can't show that one was found."""
    tests = sorted({mutant.test for mutant in mutants})
    programs = {
        test: builder.link(test, builder.directory / f"{test}.program", {}) for test in tests
    }
    scenarios = sorted({(mutant.test, mutant.scenario) for mutant in mutants})
    results = pool.map(lambda pair: explore(programs[pair[0]], pair[1]), scenarios)
    good = True
    for (test, scenario), outcome in zip(scenarios, results):
        if outcome.found or outcome.problem:
            print(f"FAILED  unchanged: {test} '{scenario}': {outcome.found}{outcome.problem}")
            good = False
    print(f"{len(scenarios)} scenarios of the unchanged code: {'ok' if good else 'FAILED'}")
    return good


def try_mutant(builder: Builder, mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory(dir=builder.directory) as where:
        try:
            program = builder.build(mutant, Path(where))
        except (LookupError, subprocess.CalledProcessError) as error:
            print(f"FAILED  {mutant.name}: {error}", flush=True)
            return False
        outcome = explore(program, mutant.scenario)
    if not outcome.found:
        what = outcome.problem or f"not found in {outcome.executions} executions"
        print(f"FAILED  {mutant.name}: {mutant.test} '{mutant.scenario}': {what}", flush=True)
        return False
    print(
        f"found   {mutant.name}: {mutant.test.removeprefix('test_explore_')} '{mutant.scenario}' "
        f"after {outcome.executions} executions: {outcome.found}",
        flush=True,
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", default=os.environ.get("CC", "cc"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only mutants so named")
    arguments = parser.parse_args()

    mutants = [m for m in MUTANTS if not arguments.names or m.name in arguments.names]
    with (
        tempfile.TemporaryDirectory(prefix="libpool-mutants-") as directory,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):
        builder = Builder(arguments.compiler, Path(directory))
        builder.compile_all(sorted({mutant.test for mutant in mutants}), pool)
        good = check_unchanged(builder, mutants, pool)
        found = sum(pool.map(lambda mutant: try_mutant(builder, mutant), mutants))
    print(f"test_explore_mutants: {found} of {len(mutants)} seeded mistakes found")
    return 0 if mutants and good and found == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
