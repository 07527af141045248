"""CPython's test_concurrent_futures, unchanged, with `libpool.Executor` for both executors.

The tests come from the interpreter's `test` package. Which of them can't apply is in `exceptions`.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import pkgutil
import unittest
from collections.abc import Iterator
from types import ModuleType

import pytest
from loading import cases, need, put_libpool_in_programs

PACKAGE = "test.test_concurrent_futures"

need(PACKAGE)

import substitute  # noqa: E402
from test import support  # noqa: E402

substitute.put_executors_in_place()
put_libpool_in_programs()


def load() -> list[ModuleType]:
    """Up to 3.11 it is one module, later a package of them."""
    package = importlib.import_module(PACKAGE)
    if not hasattr(package, "__path__"):
        return [package]
    return [
        importlib.import_module(f"{PACKAGE}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
        if found.name.startswith("test_") and found.name != "test_interpreter_pool"
    ]


modules = load()
globals().update(cases(modules))  # pytest finds them here


@pytest.fixture(scope="module", autouse=True)
def set_up() -> Iterator[None]:
    """Do what `unittest` and CPython's runner do around a module."""
    assert concurrent.futures.ProcessPoolExecutor is substitute.ProcessPoolExecutor
    assert concurrent.futures.ThreadPoolExecutor is substitute.ThreadPoolExecutor
    support.environment_altered = False
    for module in modules:
        module.setUpModule()
    yield
    unittest.doModuleCleanups()
    assert not support.environment_altered, "the tests left threads or processes behind"
