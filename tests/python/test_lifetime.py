"""Pools begin and end without a trace, whoever ends them and whoever does not."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import (
    MIB,
    Gate,
    cpu_seconds,
    descendants,
    mappings,
    open_descriptors,
    pass_gates,
    program,
    run,
    start,
    stat_of,
    until,
)

from libpool import Executor, Pool


def square(x: int) -> int:
    return x * x


# ---- Leaks --------------------------------------------------------------------------------------


def make_and_use(kind: Any) -> None:
    with kind(2) as workers:
        assert workers.submit(square, 3).result() == 9
        workers.submit(square, 3).add_done_callback(lambda future: None)


def test_200_pools_leave_nothing_behind() -> None:
    for kind in (Pool, Executor):
        make_and_use(kind)
    gc.collect()
    before = open_descriptors(), mappings(), threading.active_count()
    for number in range(200):
        make_and_use((Pool, Executor)[number % 2])
    gc.collect()
    descriptors, maps, threads = open_descriptors(), mappings(), threading.active_count()
    assert descriptors == before[0]
    assert maps <= before[1] + 5  # the allocator's own
    assert threads == before[2]
    assert descendants(os.getpid()) == set()


def test_pools_that_were_dropped_leave_nothing_behind() -> None:
    def drop() -> None:
        Executor(1).submit(square, 3)

    # A pool's processes are gone a moment before its descriptors, also those of an earlier test.
    before = open_descriptors()
    for _ in range(30):
        drop()
        gc.collect()
    until(lambda: descendants(os.getpid()) == set() and open_descriptors() <= before)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_memory_stays_flat_over_two_million_jobs(executor: Executor) -> None:
    def million() -> tuple[int, int]:
        for _ in range(20):
            futures = [executor.submit(square, x) for x in range(50_000)]
            assert futures[-1].result() == 49_999**2
            assert all(future.exception() is None for future in futures)
            del futures
        gc.collect()
        return resident(), executor.stats()["memory"]

    first, second = million(), million()
    assert second[0] <= first[0] + 8 * MIB
    assert second[1] <= first[1] + 8 * MIB


def test_memory_stays_flat_over_large_arguments_and_results(executor: Executor) -> None:
    data = bytes(4 * MIB)

    def many() -> tuple[int, int]:
        for _ in range(100):
            assert len(executor.submit(_reverse, data).result()) == len(data)
        gc.collect()
        return resident(), executor.stats()["memory"]

    many()
    first, second = many(), many()
    assert second[0] <= first[0] + 8 * MIB
    assert second[1] <= max(first[1], 64 * MIB)


def _reverse(data: bytes) -> bytes:
    return data[::-1]


def test_memory_stays_flat_over_functions_sent_by_value(executor: Executor) -> None:
    def many() -> int:
        for number in range(3000):
            assert executor.submit(lambda number=number: number).result() == number
        gc.collect()
        return resident()

    many()
    first, second = many(), many()
    assert second <= first + 8 * MIB


# ---- Idle ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_idle_pool_uses_no_processor_time() -> None:
    with Pool(8) as pool:
        pool.map(square, range(1000), chunksize=1)
        until(lambda: len(pool.worker_pids()) == 8)
        pids = [pool.supervisor_pid, *pool.worker_pids()]
        sleeper = threading.Event()
        sleeper.wait(1)  # spinning ends
        before = sum(map(cpu_seconds, pids))
        sleeper.wait(5)
        used = sum(map(cpu_seconds, pids)) - before
    assert used <= 0.002 * 5 + 1 / os.sysconf("SC_CLK_TCK")


# ---- The end of the program ---------------------------------------------------------------------


def ends_as(tmp_path: Path, code: str) -> str:
    return run(program(tmp_path / "ending.py", code))


def test_an_executor_finishes_at_exit(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import os, libpool

        def job(x):
            os.write(1, b"%d\\n" % x)

        executor = libpool.Executor(2)
        futures = [executor.submit(job, x) for x in range(100)]
        dropped = libpool.Executor(1)
        for x in range(100, 150):
            dropped.submit(job, x)
        del dropped
        left = libpool.Executor(1)
        for x in range(150, 200):
            left.submit(job, x)
        left.shutdown(wait=False)
        """,
    )
    assert sorted(map(int, output.split())) == list(range(200))


def test_a_pool_is_terminated_at_exit(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import os, time, libpool

        read_end, write_end = os.pipe()

        def job(x):
            os.write(write_end, b"x")
            time.sleep(1000)

        pool = libpool.Pool(2)
        futures = [pool.submit(job, x) for x in range(10)]
        os.read(read_end, 1)
        print(*pool.worker_pids(), pool.supervisor_pid)
        """,
    )
    assert [pid for pid in output.split() if stat_of(int(pid))] == []


def test_callbacks_run_at_exit(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import libpool

        executor = libpool.Executor(2)
        for x in range(10):
            executor.submit(pow, x, 2).add_done_callback(lambda f: print(f.result()))
        """,
    )
    assert sorted(map(int, output.split())) == [x * x for x in range(10)]


def test_threads_may_use_a_pool_to_their_end(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import threading, libpool

        def use():
            threading.main_thread().join()
            print(executor.submit(pow, 3, 2).result())

        executor = libpool.Executor(1)
        threading.Thread(target=use).start()
        """,
    )
    assert output == "9\n"


def test_handlers_at_exit_may_use_a_pool(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import atexit, libpool

        pool = libpool.Pool(1)
        atexit.register(lambda: print(pool.apply(pow, (3, 2))))
        """,
    )
    assert output == "9\n"


@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)", "raise SystemExit(3)"])
def test_the_exit_code_is_that_of_the_host(tmp_path: Path, end: str) -> None:
    path = program(
        tmp_path / "ending.py",
        f"""
        import os, sys, libpool

        pool = libpool.Pool(2)
        executor = libpool.Executor(2)
        pool.apply(pow, (1, 1))
        {end}
        """,
    )
    process = start(path)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 3


def test_an_uncaught_error_ends_the_program(tmp_path: Path) -> None:
    path = program(
        tmp_path / "ending.py",
        """
        import libpool

        pool = libpool.Pool(2)
        executor = libpool.Executor(2)
        executor.submit(pow, 1, 1)
        pool.map(len, [1])
        """,
    )
    process = start(path)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 1 and output == ""
    assert errors.rstrip().endswith("TypeError: object of type 'int' has no len()")


# ---- Output -------------------------------------------------------------------------------------


def test_what_is_printed_appears_once(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import libpool

        def job(x):
            print("job", x)

        print("host before")
        with libpool.Executor(2) as executor:
            print("host within")
            list(executor.map(job, range(20)))
        print("host after")
        with libpool.Pool(2) as pool:
            pool.map(job, range(20, 40))
        """,
    )
    lines = output.splitlines()
    assert sorted(lines) == sorted(
        [*(f"job {x}" for x in range(40)), "host before", "host within", "host after"]
    )
    assert lines[0] == "host before"


def test_a_file_that_the_host_is_writing_is_written_once(tmp_path: Path) -> None:
    ends_as(
        tmp_path,
        f"""
        import libpool

        file = open({str(tmp_path / "written")!r}, "w")
        file.write("once")
        with libpool.Executor(2) as executor:
            executor.submit(pow, 1, 1).result()
        file.close()
        """,
    )
    assert (tmp_path / "written").read_text() == "once"


def test_jobs_do_not_read_what_is_typed(tmp_path: Path) -> None:
    path = program(
        tmp_path / "reading.py",
        """
        import sys, libpool
        with libpool.Executor(1) as executor:
            print(repr(executor.submit(lambda: sys.stdin.read()).result()))
        print(repr(sys.stdin.read()))
        """,
    )
    process = start(path, stdin=-1)
    assert process.communicate("typed", timeout=20) == ("''\n'typed'\n", "")


def test_logging_that_was_set_up_in_the_host_works_in_workers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ends_as(
        tmp_path,
        f"""
        import logging, libpool

        logging.basicConfig(filename={str(log)!r}, level=logging.INFO, format="%(message)s")
        with libpool.Executor(2) as executor:
            list(executor.map(logging.info, ["a", "b", "c"]))
        """,
    )
    assert sorted(log.read_text().split()) == ["a", "b", "c"]


# ---- What workers are ---------------------------------------------------------------------------


def test_workers_have_names(executor: Executor) -> None:
    names = {
        Path(f"/proc/{executor.submit(os.getpid).result()}/comm").read_text() for _ in range(50)
    }
    assert names <= {"libpool-0\n", "libpool-1\n"} and names


def test_an_inherited_multiprocessing_queue_works_in_jobs(tmp_path: Path) -> None:
    output = ends_as(
        tmp_path,
        """
        import multiprocessing, libpool

        queue = multiprocessing.Queue()
        queue.put("host")

        def job(x):
            queue.put(x)
            return multiprocessing.current_process().name

        with libpool.Executor(2) as executor:
            print(all(name.startswith("libpool-") for name in executor.map(job, range(10))))
        print(sorted(str(queue.get(timeout=10)) for _ in range(11)))
        """,
    )
    assert output == f"True\n{sorted(['host', *map(str, range(10))])}\n"


def test_random_numbers_differ_between_workers(started: Gate, held: Gate) -> None:
    import random

    random.seed(1)
    with Executor(4) as executor:
        futures = [executor.submit(_draw, started, held) for _ in range(4)]
        for _ in range(4):
            started.wait_for()
        held.open(4)
        drawn = [future.result() for future in futures]
    assert len(set(drawn)) == 4


def _draw(started: Gate, held: Gate) -> float:
    import random

    pass_gates(started, held)
    return random.random()


def test_a_job_sees_the_module_state_of_the_moment_the_pool_was_made(
    gate: Callable[[], Gate],
) -> None:
    STATE["x"] = 1
    with Executor(1) as executor:
        STATE["x"] = 2
        assert executor.submit(_state).result() == 1
    with Executor(1) as executor:
        assert executor.submit(_state).result() == 2


STATE: dict[str, int] = {}


def _state() -> int:
    return STATE["x"]


def test_a_pool_is_not_made_where_the_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 1, hard))
    try:
        with pytest.raises(OSError):
            Pool(2)
        with pytest.raises(OSError):
            Executor(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_descriptors() == before
    with Pool(2) as pool:
        assert pool.apply(square, (3,)) == 9


def test_a_pool_of_many_workers_works() -> None:
    with Executor(64) as executor:
        assert list(executor.map(square, range(1000))) == [x * x for x in range(1000)]
        assert executor.workers == 64


def test_a_pool_that_runs_in_a_cycle_is_collected(started: Gate, held: Gate) -> None:
    executor = Executor(1)
    executor.myself = executor  # type: ignore[attr-defined]
    future = executor.submit(pass_gates, started, held, 5)
    del executor
    gc.collect()
    held.open()
    assert future.result(20) == 5
    assert sys.getrefcount(future) == 2
