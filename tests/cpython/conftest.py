"""Skips by name, and lists at the end what was skipped and why."""

from __future__ import annotations

import re

import pytest
from exceptions import reason_to_skip

_START_METHOD = re.compile("^ProcessPool(Forkserver|Fork|Spawn)")

_skipped = pytest.StashKey[dict[str, list[str]]]()


@pytest.hookimpl(trylast=True)  # after -k has taken its pick
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skipped = config.stash.setdefault(_skipped, {})
    for item in items:
        case = item.getparent(pytest.Class)
        reason = None if case is None else reason_to_skip(case.name, item.name)
        if case is not None and reason is not None:
            item.add_marker(pytest.mark.skip(reason))
            skipped.setdefault(reason, []).append(f"{case.name}.{item.name}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report, pytest.CollectReport) and isinstance(report.longrepr, tuple):
            terminalreporter.section(f"Nothing was run: {report.longrepr[2]}")
    skipped = config.stash.get(_skipped, {})
    if skipped:
        terminalreporter.section("CPython's tests that can't apply to libpool")
    for reason, names in skipped.items():
        terminalreporter.write_line(f"{reason}: {len(names)}")
        for name in sorted({_START_METHOD.sub("ProcessPool*", name) for name in names}):
            terminalreporter.write_line(f"    {name}")
