"""What was measured, for docs/performance.md: kept as JSON, written as tables.

``docs/performance.json`` keeps the last figures of each family, so that one family can be measured
again without the others. The part of ``docs/performance.md`` between the two marks is made of it,
and never edited by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charts import draw
from harness import Row, format_ratio, format_samples

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- begin: made by ./dev bench --plot -->", "<!-- end -->"

Content = dict[str, Any]


def load() -> Content:
    """Read what has been kept; nothing where there is nothing yet."""
    file = DOCS / "performance.json"
    if not file.exists():
        return {"families": {}, "charts": {}}
    content: Content = json.loads(file.read_text())
    return content


def keep(content: Content) -> None:
    """Write it, with four digits for each figure: more would be noise."""
    text = json.dumps(_rounded(content), indent=1, ensure_ascii=False)
    (DOCS / "performance.json").write_text(f"{text}\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def write(content: Content) -> list[Path]:
    """Draw the charts and write the tables. Returns the files."""
    files = []
    charts = content["charts"]
    for data in charts.get("measured", []):
        files.append(draw(data, charts["options"]["workers"], DOCS))
    page = DOCS / "performance.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"{page.name} does not have the marks between which the tables stand")
    page.write_text(before + BEGIN + "\n\n" + "\n".join(_tables(content)) + "\n\n" + END + after)
    return [*files, page]


def _tables(content: Content) -> Iterator[str]:
    families = content["families"]
    versions: dict[str, str] = {}
    for kept in families.values():
        versions |= kept["about"]["versions"]
    yield "Other packages: " + ", ".join(f"{name} {each}" for name, each in versions.items()) + "."

    yield "\n### Targets\n"
    yield "| what | compared with | ratio, or size | target |"
    yield "|---|---|---|---|"
    for kept in families.values():
        for each in kept["rows"]:
            if each["target"]:
                row = _row(each)
                figure = format_ratio(row) or format_samples(row.libpool_samples, row.unit)
                yield f"| {each['what']} | {each['peer'] or '–'} | {figure} | {_marked(each)} |"

    for name, kept in families.items():
        yield f"\n### {name}\n\n{_circumstances(kept)}\n"
        yield "| what | compared with | takes | libpool takes | ratio (range over rounds) |"
        yield "|---|---|---|---|---|"
        for each in kept["rows"]:
            row = _row(each)
            cells = (
                each["what"],
                each["peer"] or "–",
                format_samples(row.peer_samples, row.unit),
                format_samples(row.libpool_samples, row.unit),
                format_ratio(row),
            )
            yield f"| {' | '.join(cells)} |"
        if kept["skipped"]:
            yield "\nNot measured: " + "; ".join(kept["skipped"]) + "."
    if content["charts"]:
        yield f"\n### Charts\n\n{_circumstances(content['charts'])}"


def _row(each: dict[str, Any]) -> Row:
    return Row(
        each["what"],
        each["peer"] or "",
        unit=each["unit"],
        peer_samples=each["peer_samples"],
        libpool_samples=each["libpool_samples"],
    )


def _marked(each: dict[str, Any]) -> str:
    text: str = each["target"]
    return text.replace("NOT MET", "**not met**")


def _circumstances(kept: Content) -> str:
    about, options = kept["about"], kept["options"]
    return (
        f"{about['date']}: {about['processor']}, {about['cores']} cores, Linux {about['kernel']}, "
        f"{about['python']}, libpool {about['libpool']}; {options['workers']} workers, "
        f"{options['rounds']} rounds; load average {about['load']} before the run."
    )
