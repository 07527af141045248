"""CPython's test_concurrent_futures, unchanged, with `libpool.Executor` for both executors.

The tests come from the interpreter's `test` package. Which of them can't apply is in `exceptions`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PACKAGE = "test.test_concurrent_futures"


def is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if not is_there(PACKAGE):
    pytest.skip(f"this interpreter comes without {PACKAGE}", allow_module_level=True)

import substitute  # noqa: E402
from test import support  # noqa: E402
from test.support import script_helper  # noqa: E402

HERE = str(Path(__file__).parent)
PRELUDE = f"import sys; sys.path.insert(0, {HERE!r}); import substitute_on_import\n"


def with_prelude(run: Any) -> Any:
    """Have programs that the tests start get libpool as well."""

    def run_program(*args: str, **options: Any) -> Any:
        where = args.index("-c") + 1
        changed = (*args[:where], PRELUDE + args[where], *args[where + 1 :])
        return run(*changed, **options)

    return run_program


script_helper.assert_python_ok = with_prelude(script_helper.assert_python_ok)


def load() -> list[ModuleType]:
    """Up to 3.12 it is one module, later a package of them."""
    package = importlib.import_module(PACKAGE)
    if not hasattr(package, "__path__"):
        return [package]
    return [
        importlib.import_module(f"{PACKAGE}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
        if found.name.startswith("test_") and found.name != "test_interpreter_pool"
    ]


modules = load()
for module in modules:
    for name, case in vars(module).items():
        if isinstance(case, type) and issubclass(case, unittest.TestCase):
            globals()[name] = case  # pytest finds it here


@pytest.fixture(scope="module", autouse=True)
def set_up() -> Iterator[None]:
    """Do what `unittest` and CPython's runner do around a module."""
    assert (
        substitute.ProcessPoolExecutor
        is importlib.import_module("concurrent.futures").ProcessPoolExecutor
    )
    support.environment_altered = False
    for module in modules:
        module.setUpModule()
    yield
    unittest.doModuleCleanups()
    assert not support.environment_altered, "the tests left threads or processes behind"
