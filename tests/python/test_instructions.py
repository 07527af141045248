"""Instruction counts: what is read out of a profile, and which counts are too high."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

PROFILE = """\
# callgrind format
positions: line
events: Ir
summary: 1215

ob=(1) /lib/libc.so.6
fl=(1) string.c
fn=(1) memcpy
10 100

ob=(2) /build/libpool.so
fl=(2) ring.c
fn=(2) ring_push
20 5
+3 7
cob=(1)
cfi=(1)
cfn=(1)
calls=1 10
* 100
fi=(3) segment.h
-2 3
fe=(2)
* 1
fn=(3) ring_peek
cfn=(2)
calls=2 20
30 999
31 4

ob=(1)
fl=(1)
fn=(1)
11 1
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_function_has_its_own_instructions_and_not_those_of_what_it_calls() -> None:
    import callgrind

    assert callgrind.parse(PROFILE.splitlines()) == {
        "libc.so.6:string.c:memcpy": 101,
        "libpool.so:ring.c:ring_push": 16,
        "libpool.so:ring.c:ring_peek": 4,
    }


@pytest.mark.parametrize(
    ("now", "comparable", "fine"),
    [(112, True, True), (113, True, False), (113, False, True), (50, True, True)],
)
def test_a_count_may_be_12_percent_above_what_was_kept(
    now: int, comparable: bool, fine: bool
) -> None:
    import instructions

    count = instructions.Count("x", {"a:b:c": now})
    line, verdict = instructions.compare(count, {"instructions": {"x": 100}}, comparable)
    assert verdict is fine
    assert ("TOO MANY" in line) is not fine


def test_a_count_that_was_never_kept_is_shown_as_new() -> None:
    import instructions

    line, verdict = instructions.compare(instructions.Count("x", {"a:b:c": 5}), {}, True)
    assert verdict and "new" in line


def test_where_valgrind_is_missing_nothing_is_counted_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import instructions

    monkeypatch.setenv("PATH", str(tmp_path))
    assert instructions.main([]) == 0
    assert capsys.readouterr().out == "not counted: valgrind is not installed\n"


def test_what_a_process_that_is_counted_printed_comes_with_its_counts() -> None:
    import callgrind

    reason = callgrind.available()
    if reason is not None:
        pytest.skip(reason)
    output, counts = callgrind.run([sys.executable, "-S", "-c", "print(6 * 7)"])
    assert output == "42\n"
    (one,) = counts.values()
    assert one.total() > 100_000
