"""The benchmarks' own parts: a target is judged as it says, and the page is what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (9.9, "target ≥10×: NOT MET, aim 15×: not met"),
        (10.0, "target ≥10×: met, aim 15×: not met"),
        (15.0, "target ≥10×: met, aim 15×: met"),
    ],
)
def test_a_target_is_met_from_its_ratio_on(ratio: float, verdict: str) -> None:
    from harness import Row, Target

    row = Row("x", "y", target=Target(10, 15), peer_samples=[ratio], libpool_samples=[1.0])
    assert row.verdict == verdict


@pytest.mark.parametrize(
    ("size", "verdict"),
    [
        (192.0, "target ≤300 B: met, aim 192 B: met"),
        (300.0, "target ≤300 B: met, aim 192 B: not met"),
        (301.0, "target ≤300 B: NOT MET, aim 192 B: not met"),
    ],
)
def test_a_limit_is_met_up_to_its_size(size: float, verdict: str) -> None:
    from harness import Limit, Row

    row = Row("x", unit="B", limit=Limit(300, 192), libpool_samples=[size])
    assert row.verdict == verdict


def test_who_is_first_alternates_from_round_to_round() -> None:
    from harness import Row, alternate

    order: list[str] = []

    def measured(who: str) -> float:
        order.append(who)
        return 1.0

    alternate(Row("x", "peer"), lambda: measured("peer"), lambda: measured("libpool"), 3)
    assert order == ["peer", "libpool", "libpool", "peer", "peer", "libpool"]


def test_a_wrong_answer_ends_the_run() -> None:
    from harness import check

    check([1], [1], "pool")
    with pytest.raises(RuntimeError, match="pool gave a wrong answer"):
        check([1], [2], "pool")


def test_unequal_jobs_are_compared_with_what_no_order_could_beat() -> None:
    from compute import ideal

    assert ideal([1.0, 1.0, 2.0], 2) == 2.0
    assert ideal([5.0, 1.0], 2) == 5.0


def test_a_family_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    from run import parse

    with pytest.raises(SystemExit):
        parse(["nonsense"])
    assert "no such family: nonsense" in capsys.readouterr().err


def test_the_page_is_made_of_what_is_kept_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import document
    from harness import Row, Target

    monkeypatch.setattr(document, "DOCS", tmp_path)
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    row = Row("what", "peer", target=Target(2), peer_samples=[3e-6], libpool_samples=[1e-6])
    about: dict[str, Any] = dict.fromkeys(
        ("date", "processor", "cores", "kernel", "python", "libpool", "load"), "?"
    )
    family = {
        "about": {**about, "versions": {"loky": "1.2"}},
        "options": {"workers": 2, "rounds": 1},
        "rows": [row.as_json("latency")],
        "skipped": ["ray (ray not installed)"],
    }
    document.keep({"families": {"latency": family}, "charts": {}})
    assert document.write(document.load()) == [page]
    text = page.read_text()
    assert text.startswith(f"before\n{document.BEGIN}\n")
    assert text.endswith(f"\n{document.END}\nafter\n")
    assert "| what | peer | 3× (3–3) | target ≥2×: met |" in text
    assert "| what | peer | 3 µs | 1 µs | 3× (3–3) |" in text
    assert "Not measured: ray (ray not installed)." in text
    assert "old" not in text


def test_the_page_in_docs_is_the_one_that_its_figures_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import document

    published = document.DOCS / "performance.md"
    content = json.loads((document.DOCS / "performance.json").read_text())
    monkeypatch.setattr(document, "draw", lambda data, workers, folder: folder / "chart")
    monkeypatch.setattr(document, "DOCS", tmp_path)
    page = tmp_path / "performance.md"
    page.write_text(published.read_text())
    document.write(content)
    assert page.read_text() == published.read_text(), "edited by hand?"
