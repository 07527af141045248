"""Finding CPython's tests, and loading them unchanged with libpool in place."""

from __future__ import annotations

import importlib.util
import unittest
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

__all__ = ["cases", "need", "put_libpool_in_programs"]

HERE = str(Path(__file__).parent)
PRELUDE = f"import sys; sys.path.insert(0, {HERE!r}); import substitute_on_import\n"


def need(name: str) -> None:
    """Skip the calling module where the interpreter comes without one of that name."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        pytest.skip(f"this interpreter comes without {name}", allow_module_level=True)


def put_libpool_in_programs() -> None:
    """Have programs that the tests start get libpool as well."""
    from test.support import script_helper

    original = script_helper.assert_python_ok
    if hasattr(original, "original"):
        return

    def assert_python_ok(*args: str, **options: Any) -> Any:
        code = args.index("-c") + 1
        return original(*args[:code], PRELUDE + args[code], *args[code + 1 :], **options)

    assert_python_ok.original = original  # type: ignore[attr-defined]
    script_helper.assert_python_ok = assert_python_ok


def cases(modules: Iterable[ModuleType]) -> Iterator[tuple[str, type[unittest.TestCase]]]:
    """The test cases in some modules, by their names."""
    for module in modules:
        for name, case in vars(module).items():
            if isinstance(case, type) and issubclass(case, unittest.TestCase):
                yield name, case
