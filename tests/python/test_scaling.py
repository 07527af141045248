"""The model of docs/scaling.md: what limits a pool, by what it costs; and the pages made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def example():  # type: ignore[no-untyped-def]
    from model import Costs, Machine

    cost = Costs(
        submit=30.0,
        run=40.0,
        collect=20.0,
        alone=5.0,
        host=1.0,
        worker=1.0,
        host_near=2.0,
        worker_near=3.0,
        ring=2.0,
    )
    return cost, Machine(latency=100.0, streamed=5.0)


def test_the_handovers_of_each_side_are_added_up() -> None:
    from model import Handover, costs

    cell, one = (
        Handover("host", "cells", 1.0, 1.0, "cell"),
        Handover("workers", "job", 1, 1, "word"),
    )
    alone = [cell, one, Handover("workers", "control", 0.0, 1.0, "word")]
    several = [*alone[:2], Handover("workers", "ring", 1.0, 1.0, "head")]
    cycle = {"submit": 1.0, "run": 2.0, "collect": 3.0}
    cost = costs(cycle, alone, [cell, one], several)
    assert (cost.alone, cost.host, cost.worker) == (2.5, 1.0, 1.0)
    assert (cost.host_near, cost.worker_near, cost.ring) == (1.0, 1.5, 1.0)


def test_a_job_alone_waits_for_every_handover() -> None:
    import model

    assert model.round_trip(*example()) == 90.0 + 5 * 100.0


@pytest.mark.parametrize("length", [0.0, 1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("workers", [1, 2, 7, 127])
def test_a_pool_is_never_faster_than_its_workers_or_its_host(workers: int, length: float) -> None:
    import model

    cost, machine = example()
    low, high = model.throughput(cost, machine, workers, length)
    assert low <= high <= workers * 1e9 / (length + cost.run)
    assert high <= 1e9 / (cost.submit + cost.collect)


def test_long_jobs_scale_with_the_workers_and_tiny_ones_do_not() -> None:
    import model

    cost, machine = example()
    long = [model.throughput(cost, machine, workers, 1e6)[0] for workers in (8, 128)]
    assert long[1] / long[0] == pytest.approx(16, rel=0.01)
    tiny = [model.throughput(cost, machine, workers, 0)[0] for workers in (8, 128)]
    assert tiny[0] == tiny[1] == 1e9 / (50.0 + 200.0)  # the host, which waits for two hand-overs


def test_cores_that_host_and_workers_share_bound_both_together() -> None:
    import model

    cost, machine = example()
    _, high = model.throughput(cost, machine, 2, 1000.0, cores=2)
    assert high == pytest.approx(1e9 / ((55.0 + 1045.0) / 2))


def test_from_the_length_that_is_enough_on_the_workers_are_busy() -> None:
    import model

    cost, machine = example()
    for workers in (1, 8, 128):
        _, worst = model.enough(cost, machine, workers)
        low, _ = model.throughput(cost, machine, workers, worst)
        assert low * worst / 1e9 / workers == pytest.approx(0.9, abs=0.05)


def test_the_pages_in_docs_are_those_that_the_figures_make(tmp_path: Path) -> None:
    import scaling

    figures = json.loads((scaling.DOCS / "scaling.json").read_text())
    names = ("performance.md", "scaling.md")
    for name in names:
        shutil.copy(scaling.DOCS / name, tmp_path)
    scaling.write(figures, tmp_path)
    for name in names:
        made, published = ((folder / name).read_text() for folder in (tmp_path, scaling.DOCS))
        assert made == published, f"{name} was edited by hand?"


def test_the_handovers_that_are_published_are_those_that_a_job_needs() -> None:
    import scaling

    figures = json.loads((scaling.DOCS / "scaling.json").read_text())
    cost = scaling.costs_of(figures, scaling.fastest(figures))
    # To the worker and back: the job's slot at the least.
    assert cost.alone >= 2 and cost.host >= 1 and cost.worker >= 1
