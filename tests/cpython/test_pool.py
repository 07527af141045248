"""The tests of pools in CPython's _test_multiprocessing, unchanged, with `libpool.Pool` for both.

They come from the interpreter's `test` package. Which of them can't apply is in `exceptions`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.dummy
import sys
import unittest
from collections.abc import Iterator
from types import ModuleType

import pytest
from loading import cases, need, put_libpool_in_programs

MODULE = "test._test_multiprocessing"

need(MODULE)

import substitute  # noqa: E402
from test import support  # noqa: E402

substitute.put_pools_in_place()
put_libpool_in_programs()

tests = sys.modules["pool_tests"] = ModuleType("pool_tests")  # where pickle finds the classes
importlib.import_module(MODULE).install_tests_in_module_dict(vars(tests), "fork")
globals().update(  # pytest finds them here
    (name, case)
    for name, case in cases([tests])
    if name.startswith(("WithProcessesTestPool", "WithThreadsTestPool"))
    or name == "TestInitializers"
)


@pytest.fixture(scope="module", autouse=True)
def set_up() -> Iterator[None]:
    """Do what `unittest` and CPython's runner do around a module."""
    assert multiprocessing.Pool is multiprocessing.pool.Pool is substitute.Pool
    assert multiprocessing.dummy.Pool is substitute.Pool
    support.environment_altered = False
    tests.setUpModule()
    yield
    tests.tearDownModule()
    unittest.doModuleCleanups()
    assert not support.environment_altered, "the tests left threads or processes behind"
