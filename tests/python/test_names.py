"""Names and titles of a pool's processes, as ps, top and logging show them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support import program, run

from libpool import Executor, Pool
from libpool._lifetime import Base


class Named(Base):
    """A pool of two workers with a name."""

    def __init__(self, name: Any) -> None:
        self._launch(
            2,
            "workers",
            None,
            (),
            shared_limit=0,
            memory_limit=0,
            timeout=None,
            retries=0,
            tasks=None,
            name=name,
        )

    def _at_exit(self) -> None:
        self.terminate()


def names() -> tuple[int, str, str, str]:
    """In a job: worker number from the title, comm, title, and multiprocessing's name."""
    title = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode()
    comm = Path("/proc/self/comm").read_text().strip()
    number = int(title.partition(" worker ")[2].partition(":")[0])
    return number, comm, title, multiprocessing.current_process().name


def own_command() -> str:
    return Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()


@pytest.mark.parametrize("name", [None, "renderer", "größer"])
def test_a_worker_is_called_after_its_pool_and_number(name: str | None) -> None:
    pool = Named(name)
    try:
        for _ in range(20):
            number, comm, title, process = pool.submit(names).result()
            wanted = name or "libpool"
            assert process == f"{wanted}-{number}"
            assert comm == process
            assert title.startswith(f"{wanted} worker {number}: {own_command()[:100]}")
        supervisor = Path(f"/proc/{pool.supervisor_pid}")
        assert (supervisor / "comm").read_text() == f"{wanted}-watch\n"
        assert (supervisor / "cmdline").read_text().startswith(f"{wanted} supervisor: ")
    finally:
        pool.terminate()


def test_a_long_name_is_cut_where_the_system_wants_it_short() -> None:
    pool = Named("a-name-that-is-longer-than-fits")
    try:
        number, comm, title, process = pool.submit(names).result()
        assert comm == f"a-name-that-i-{number}"
        assert title.startswith(f"a-name-that-is-longer-than-fits worker {number}: ")
        assert process == f"a-name-that-is-longer-than-fits-{number}"
    finally:
        pool.terminate()


@pytest.mark.parametrize(
    ("name", "error"), [("", ValueError), ("a\nb", ValueError), (3, TypeError), (b"a", TypeError)]
)
def test_a_bad_name_is_refused(name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="name must be"):
        Named(name)


def test_ps_shows_the_workers_of_a_script(tmp_path: Path) -> None:
    path = program(
        tmp_path / "script.py",
        """
        import os, subprocess, sys
        from libpool import Pool

        if __name__ == "__main__":
            with Pool(1) as pool:
                pool.apply(abs, (1,))
                pids = [*pool.worker_pids(), pool.supervisor_pid, os.getpid()]
                for pid in pids:
                    command = ["ps", "-o", "args=", "-p", str(pid)]
                    print(subprocess.run(command, capture_output=True, text=True).stdout.strip())
        """,
    )
    own = f"{sys.executable} -X faulthandler {path}"
    assert run(path).splitlines() == [
        f"libpool worker 0: {own}",
        f"libpool supervisor: {own}",
        own,
    ]


def test_a_program_that_a_job_starts_has_its_own_name(executor: Executor) -> None:
    def child() -> str:
        return subprocess.run(
            ["cat", "/proc/self/comm", "/proc/self/cmdline"], capture_output=True, text=True
        ).stdout

    assert executor.submit(child).result() == "cat\ncat\0/proc/self/comm\0/proc/self/cmdline\0"


def test_a_job_keeps_its_arguments_and_environment(executor: Executor) -> None:
    def inside() -> tuple[list[str], dict[str, str]]:
        # pytest changes one of them all the time.
        environment = {n: value for n, value in os.environ.items() if n != "PYTEST_CURRENT_TEST"}
        return sys.argv, environment

    assert executor.submit(inside).result() == inside()


def test_a_worker_has_one_thread_which_is_the_main_one_wherever_the_pool_was_made() -> None:
    def inside() -> tuple[bool, int]:
        return threading.current_thread() is threading.main_thread(), threading.active_count()

    found: list[tuple[bool, int]] = []

    def make() -> None:
        with Pool(1) as pool:
            found.append(pool.apply(inside))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert found == [(True, 1)]
