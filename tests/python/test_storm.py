"""Short runs of the kill storm and of the fuzzer of results; `./dev stress` runs longer ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import run, start

TESTS = Path(__file__).resolve().parent.parent
SEED = os.environ.get("LIBPOOL_SEED")


def seed(default: int) -> list[str]:
    return ["--seed", SEED or str(default)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_job_is_accounted_for_while_workers_are_killed() -> None:
    storm = TESTS / "stress" / "storm.py"
    output = run(storm, "--seconds", "5", *seed(os.getpid()), timeout=240)
    assert output.endswith("all accounted for, nothing left\n"), output


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_damaged_result_gives_a_value_or_an_exception() -> None:
    process = start(TESTS / "fuzz" / "fuzz_codec.py", "--runs", "400", *seed(1))
    try:
        # CPython's own unpickler may complain on stderr about buffers that it leaves exported.
        output, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Error" in output
