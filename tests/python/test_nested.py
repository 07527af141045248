"""Jobs that use the pool that runs them, or make one of their own."""

from __future__ import annotations

import concurrent.futures
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import until

import libpool
from libpool import Executor, Pool

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples" / "python"


def here() -> Any:
    pool = libpool.current()
    assert pool is not None
    return pool


def fibonacci(n: int) -> int:
    if n < 2:
        return n
    left = here().submit(fibonacci, n - 1)
    return fibonacci(n - 2) + int(left.result())


def both_forked(n: int) -> int:
    if n < 2:
        return n
    futures = [here().submit(both_forked, n - 1), here().submit(both_forked, n - 2)]
    return sum(future.result() for future in futures)


def quicksort(numbers: list[int]) -> list[int]:
    if len(numbers) <= 1:
        return numbers
    pivot = numbers[len(numbers) // 2]
    parts = [[x for x in numbers if x < pivot], [x for x in numbers if x > pivot]]
    smaller, larger = here().map(quicksort, parts)
    return [*smaller, *(x for x in numbers if x == pivot), *larger]


def chain(depth: int) -> int:
    return 1 + int(here().submit(chain, depth - 1).result()) if depth else 0


# ---- Fork and join ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("function", [fibonacci, both_forked])
def test_fibonacci_by_fork_and_join(count: int, function: Any) -> None:
    with Pool(count) as pool:
        assert pool.apply(function, (17,)) == 1597
    with Executor(count) as executor:
        assert [f.result() for f in [executor.submit(function, 12) for _ in range(5)]] == [144] * 5


@pytest.mark.parametrize("kind", [Pool, Executor])
def test_quicksort_by_nested_map_on_two_workers(kind: Any) -> None:
    chance = random.Random(4)
    numbers = [chance.randrange(1000) for _ in range(1500)]
    with kind(2) as pool:
        assert pool.submit(quicksort, numbers).result() == sorted(numbers)
        assert pool.submit(quicksort, list(range(300))).result() == list(range(300))


def test_nesting_goes_as_deep_as_python_recursion() -> None:
    with Pool(2) as pool:
        assert pool.map(chain, [500, 300]) == [500, 300]


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="how deep C may call Python is built into later versions"
)
def test_nesting_goes_as_deep_as_the_recursion_limit_is_set() -> None:
    with Pool(2, initializer=sys.setrecursionlimit, initargs=(100_000,)) as pool:
        # Some 1.7 kB of stack each; where one worker runs all of them, 8 MiB have to do.
        assert pool.submit(chain, 4000).result() == 4000


def test_a_nesting_past_the_recursion_limit_is_an_error_and_the_pool_goes_on() -> None:
    with Pool(2, initializer=sys.setrecursionlimit, initargs=(300,)) as pool:
        error = pool.submit(chain, 1000).exception()
        assert error is not None and "recursion" in str(error)
        assert pool.submit(chain, 10).result() == 10


# ---- What current() is --------------------------------------------------------------------------


def _use_all_of_pool() -> list[object]:
    pool = here()
    return [
        type(pool).__name__,
        pool.map(abs, [-1, -2]),
        pool.starmap(pow, [(2, 3)]),
        pool.apply(max, (3, 4)),
        pool.submit(int, "5").result(),
        pool.options(timeout=20, retries=1).submit(int, "6").result(),
        pool.workers,
        pool.stats()["workers"],
        len(pool.worker_pids()),
        repr(pool),
    ]


def _use_all_of_executor() -> list[object]:
    executor = here()
    futures = [executor.submit(int, n) for n in range(5)]
    done, waiting = concurrent.futures.wait(futures, timeout=20)
    return [
        type(executor).__name__,
        list(executor.map(abs, [-1, -2])),
        list(executor.map(pow, [2, 3], [3, 2], chunksize=2)),
        len(done),
        len(waiting),
        sorted(f.result() for f in concurrent.futures.as_completed(futures, timeout=20)),
    ]


def test_current_has_the_whole_interface_of_the_pools_class() -> None:
    with Pool(2) as pool:
        wanted = ["Pool", [1, 2], [8], 4, 5, 6, 2, 2, 2, "<libpool.Pool state=RUN pool_size=2>"]
        until(lambda: len(pool.worker_pids()) == 2)
        assert pool.submit(_use_all_of_pool).result() == wanted
    with Executor(2) as executor:
        wanted = ["Executor", [1, 2], [8, 9], 5, 0, [0, 1, 2, 3, 4]]
        assert executor.submit(_use_all_of_executor).result() == wanted
    assert libpool.current() is None


class Special(Pool):
    """A user's own pool."""

    def twice(self, x: int) -> int:
        return int(self.apply(int, (2 * x,)))


def _use_own_class() -> int:
    return int(here().twice(21))


def test_current_is_of_the_users_own_class() -> None:
    with Special(2) as pool:
        assert pool.submit(_use_own_class).result() == 42


def _try_to_end(how: str) -> None:
    pool = here()
    if how == "with":
        with pool:
            pass
    else:
        getattr(pool, how)()


@pytest.mark.parametrize(
    "kind, how",
    [
        *((Pool, how) for how in ("close", "terminate", "with")),
        *((Executor, how) for how in ("shutdown", "close", "terminate", "with")),
    ],
)
def test_a_job_cannot_end_the_pool_that_runs_it(kind: Any, how: str) -> None:
    pool = kind(1)
    with pytest.raises(RuntimeError, match="a job can't close, terminate or join the pool"):
        pool.submit(_try_to_end, how).result()
    assert pool.submit(abs, -1).result() == 1
    pool.terminate()


# ---- Pools inside of jobs -----------------------------------------------------------------------


def _sum_in_own_pool(kind: Any, count: int) -> tuple[int, list[int], bool]:
    outer = here()
    with kind(2) as pool:
        total = sum(pool.map(abs, range(-count, 0)))
        pids = {pool.submit(os.getpid).result() for _ in range(20)}
        inner_is_own = pool.submit(lambda: type(libpool.current())).result() is kind
    return total, sorted(pids), inner_is_own and here() is outer


@pytest.mark.parametrize("outer", [Pool, Executor])
@pytest.mark.parametrize("inner", [Pool, Executor])
def test_a_job_makes_a_pool_of_its_own(outer: Any, inner: Any) -> None:
    with outer(2) as pool:
        pool.submit(abs, -1).result()
        futures = [pool.submit(_sum_in_own_pool, inner, n) for n in (10, 20, 30)]
        for n, future in zip((10, 20, 30), futures):
            total, pids, own = future.result()
            assert total == n * (n + 1) // 2 and own
            assert not set(pids) & {os.getpid(), *pool.worker_pids()}


def _nest_pools(depth: int) -> int:
    if depth == 0:
        return 0
    with Pool(1) as pool:
        return 1 + pool.apply(_nest_pools, (depth - 1,))


def test_pools_in_jobs_nest() -> None:
    assert _nest_pools(4) == 4


def _keep_own_pool() -> int:
    global _own
    if _own is None:
        _own = Executor(1)
    return _own.submit(os.getpid).result()


_own: Executor | None = None


def test_a_pool_kept_in_a_worker_lives_as_long_as_the_worker() -> None:
    with Pool(1) as pool:
        first = pool.apply(_keep_own_pool)
        assert pool.apply(_keep_own_pool) == first


# ---- The examples -------------------------------------------------------------------------------


def run_example(path: Path, *arguments: object, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, path, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def test_the_example_of_fork_and_join_runs() -> None:
    output = run_example(EXAMPLES / "fork_join.py", "--fibonacci", 14, "--numbers", 60_000)
    assert re.search(r"^fibonacci\(14\) is 377: \d+ jobs in [0-9.]+ s$", output, re.MULTILINE)
    assert re.search(r"^sorted 60000 numbers: \d+ jobs in [0-9.]+ s$", output, re.MULTILINE)


def test_the_example_of_native_jobs_runs() -> None:
    output = run_example(EXAMPLES / "native_jobs.py")
    assert "lgamma(10) is 12.802\n" in output
    assert "log((n - 1)!) is [0.0, 0.0, 0.69, 1.79, 3.18]\n" in output
    assert "checksums ['" in output
    assert "abort(): a worker was killed by SIGABRT" in output


@pytest.fixture
def extension(tmp_path: Path) -> Iterator[Path]:
    """The folder where the example's extension module has been built, as setup.py builds it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    target = tmp_path / f"primes{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    source = EXAMPLES / "gil_extension" / "primes.c"
    command = [compiler, "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", include, source]
    subprocess.run([*command, "-o", target], check=True, timeout=60)
    yield tmp_path


def test_the_example_of_an_extension_and_native_jobs_counts_the_same(extension: Path) -> None:
    script = EXAMPLES / "gil_extension" / "compare.py"
    output = run_example(script, "--numbers", 20_000, "--workers", 2, PYTHONPATH=str(extension))
    for name in ("one thread", "threads, extension without GIL", "pool, native job"):
        found = re.findall(rf"^{name} +2262 primes +[0-9.]+ ms", output, re.MULTILINE)
        assert len(found) == 2, output


def test_threads_run_while_the_extension_counts(
    extension: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the GIL held in C, no other thread would take a step before the count has ended."""
    monkeypatch.syspath_prepend(str(extension))
    primes = importlib.import_module("primes")
    steps = 0
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(primes.count, 0, 2_000_000)
        while not future.done():
            steps += 1
    assert future.result() == 148_933
    assert steps > 100
