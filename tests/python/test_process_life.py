"""Signals, forks, threads and the end of the program: a pool is a good neighbour in all of them.

What `test_signals`, `test_lifetime`, `test_death` and `test_bad_input` say about one of these is
not repeated here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import catches_usr1
from support import (
    Gate,
    descendants,
    is_alive,
    pass_gates,
    program,
    remaining_after,
    start,
    until,
)

from libpool import BrokenPool, Executor, Pool

KINDS = ["Pool", "Executor"]

PRELUDE = """
import faulthandler, os, signal, sys, threading, time, warnings
faulthandler.register(signal.SIGUSR1, all_threads=True)  # what the time-out sends
warnings.simplefilter("ignore", DeprecationWarning)  # os.fork() with threads, from 3.12 on
"""


def square(x: int) -> int:
    return x * x


class Host:
    """A program with pools, in a session of its own."""

    def __init__(self, path: Path, *args: str) -> None:
        self.process = start(path, *args, start_new_session=True, stdin=subprocess.PIPE)
        self.pid = self.process.pid

    def says(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.finish()}"
        return line.rstrip("\n")

    def hears(self, line: str) -> None:
        """Give it a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        os.killpg(self.pid, signal.SIGINT)

    def finish(self, timeout: float = 30) -> tuple[int, str, str]:
        """Wait for its end: exit code, and what else it wrote to stdout and stderr."""
        try:
            output, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            for pid in filter(catches_usr1, [self.pid, *descendants(self.pid)]):
                os.kill(pid, signal.SIGUSR1)
                select_nothing(0.2)  # or the stacks would be mixed up
            self.process.kill()
            pytest.fail(f"it has not ended in {timeout} s:\n{self.process.communicate()[1]}")
        return self.process.returncode, output, errors


def select_nothing(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Starts programs; what is left of them at the end of the test is killed."""
    started: list[Host] = []

    def make(code: str, *args: str) -> Host:
        path = program(tmp_path / f"host{len(started)}.py", PRELUDE + textwrap.dedent(code))
        started.append(Host(path, *args))
        return started[-1]

    yield make
    for one in started:
        try:
            os.killpg(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        one.process.communicate()


# ---- Ctrl-C -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 100_000])
def test_ctrl_c_during_submit_leaves_a_pool_that_works(
    host: Callable[..., Host], kind: str, size: int
) -> None:
    program = host(
        """
        import collections, libpool

        data = bytes(int(sys.argv[2]))
        workers = getattr(libpool, sys.argv[1])(2)
        workers.submit(pow, 2, 3).result()
        for _ in range(20):
            futures = collections.deque(maxlen=100)
            try:
                print("ready", flush=True)
                while True:
                    futures.append(workers.submit(len, data))
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            assert all(future.result() == len(data) for future in futures)
            assert workers.submit(pow, 2, 3).result() == 8
        workers.close()
        workers.join()
        """,
        kind,
        str(size),
    )
    for _ in range(20):
        assert program.says() == "ready"
        program.interrupt()
        assert program.says() == "interrupted"
    assert program.finish() == (0, "", "")


def test_ctrl_c_during_join_can_be_followed_by_terminate(host: Callable[..., Host]) -> None:
    program = host(
        """
        import libpool

        def job():
            print("ready", flush=True)
            time.sleep(1000)

        pool = libpool.Pool(2)
        pool.submit(job)
        pool.close()
        try:
            pool.join()
        except KeyboardInterrupt:
            pool.terminate()
            pool.join()
            print("ended", flush=True)
        """
    )
    assert program.says() == "ready"
    program.interrupt()
    assert program.says() == "ended"
    assert descendants(program.pid) == set()
    assert program.finish() == (0, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_while_pools_are_made_and_closed_leaves_no_process(
    host: Callable[..., Host], kind: str
) -> None:
    program = host(
        """
        import gc, libpool

        def interrupt(number, frame):
            global interrupted
            interrupted = True  # Python ignores exceptions in finalizers and around a fork
            raise KeyboardInterrupt

        make = getattr(libpool, sys.argv[1])
        signal.signal(signal.SIGINT, interrupt)
        for _ in range(10):
            interrupted = False
            try:
                print("ready", flush=True)
                while not interrupted:
                    with make(2) as workers:
                        workers.submit(pow, 2, 3).result()
            except KeyboardInterrupt:
                pass
            print("interrupted", flush=True)
        workers = None
        gc.collect()
        print("done", flush=True)
        sys.stdin.readline()
        """,
        kind,
    )
    for _ in range(10):
        assert program.says() == "ready"
        until(lambda: descendants(program.pid))  # it has begun
        program.interrupt()
        assert program.says() == "interrupted"
    assert program.says() == "done"
    until(lambda: descendants(program.pid) == set())
    program.hears("end")
    code, _, _ = program.finish()
    assert code == 0


def test_for_fork_hooks_a_worker_is_one_fork_of_the_host(host: Callable[..., Host]) -> None:
    program = host(
        """
        import libpool

        ran = []
        os.register_at_fork(
            before=lambda: ran.append("before"),
            after_in_parent=lambda: ran.append("parent"),
            after_in_child=lambda: ran.append("child"),
        )

        def what_ran():
            return ran

        with libpool.Pool(1) as pool:
            print(ran, flush=True)
            print(pool.apply(what_ran), flush=True)
            try:
                pool.apply(os._exit, (1,))
            except libpool.WorkerDied:
                print(pool.apply(what_ran), flush=True)  # in the one that replaced it
        """
    )
    assert program.says() == "['before', 'parent']"
    assert program.says() == "['before', 'child']"
    assert program.says() == "['before', 'child']"
    program.finish()


def test_ctrl_c_while_the_supervisor_starts_is_the_hosts(host: Callable[..., Host]) -> None:
    program = host(
        """
        import libpool

        def in_child():
            print("forked", flush=True)
            end = time.monotonic() + 0.5
            while time.monotonic() < end:  # as Python code of its own and of libraries does
                pass

        os.register_at_fork(after_in_child=in_child)
        try:
            pool = libpool.Pool(1)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        """
    )
    assert program.says() == "forked"
    program.interrupt()
    _, _, errors = program.finish()
    assert errors == ""


def test_ctrl_c_within_the_context_ends_what_runs(host: Callable[..., Host]) -> None:
    # ProcessPoolExecutor's workers are interrupted as well, so that its jobs end, and the context.
    program = host(
        """
        import libpool

        def job():
            print("ready", flush=True)
            time.sleep(1000)

        with libpool.Executor(1) as executor:
            executor.submit(job).result()
        """
    )
    assert program.says() == "ready"
    program.interrupt()
    code, _, errors = program.finish(timeout=3)
    assert code == -signal.SIGINT
    assert errors.count("Traceback") == 1


def test_ctrl_c_ends_asyncio_run(host: Callable[..., Host]) -> None:
    program = host(
        """
        import asyncio, libpool

        def job():
            print("ready", flush=True)
            time.sleep(1000)

        async def main():
            await asyncio.wrap_future(pool.submit(job))

        with libpool.Pool(2) as pool:
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """
    )
    assert program.says() == "ready"
    program.interrupt()
    assert program.says() == "interrupted"
    assert program.finish() == (0, "", "")


# ---- SIGTERM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_sigterm_ends_the_host_and_everything_with_it(
    host: Callable[..., Host], kind: str, busy: bool
) -> None:
    program = host(
        """
        import libpool

        def job():
            print("ready", flush=True)
            time.sleep(1000)

        with getattr(libpool, sys.argv[1])(2) as workers:
            if sys.argv[2] == "busy":
                workers.submit(job).result()
            workers.submit(pow, 2, 3).result()
            print("ready", flush=True)
            signal.pause()
        """,
        kind,
        "busy" if busy else "idle",
    )
    assert program.says() == "ready"
    until(lambda: len(descendants(program.pid)) == 3)
    others = descendants(program.pid)
    os.kill(program.pid, signal.SIGTERM)
    assert program.finish() == (-signal.SIGTERM, "", "")
    assert remaining_after(others, 1) == set()


def test_a_sigterm_handler_may_exit_while_jobs_run(host: Callable[..., Host]) -> None:
    program = host(
        """
        import libpool

        def job():
            print("ready", flush=True)
            time.sleep(1000)

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        with libpool.Pool(2) as pool:
            pool.apply(job)
        """
    )
    assert program.says() == "ready"
    others = descendants(program.pid)
    os.kill(program.pid, signal.SIGTERM)
    assert program.finish() == (7, "", "")
    assert remaining_after(others, 1) == set()


# ---- sys.exit -----------------------------------------------------------------------------------

EXITING = """
    import libpool

    def job(x):
        os.write(1, b"started\\n")
        sys.stdin.readline()  # there is nothing to read: what is typed is for the host
        os.read(read_end, 1)
        os.write(1, b"finished\\n")

    def release():
        threading.main_thread().join()
        os.write(write_end, b"x" * 4)

    read_end, write_end = os.pipe()
    workers = getattr(libpool, sys.argv[1])(2)
    for x in range(4):
        workers.submit(job, x)
    threading.Thread(target=release, daemon=sys.argv[1] == "Pool").start()
    sys.stdin.readline()
    sys.exit(3)
"""


def test_sys_exit_terminates_a_pool_whose_jobs_run(host: Callable[..., Host]) -> None:
    program = host(EXITING.replace("main_thread().join()", "Event().wait()"), "Pool")
    assert [program.says(), program.says()] == ["started", "started"]
    others = descendants(program.pid)
    program.hears("exit")
    assert program.finish() == (3, "", "")
    assert remaining_after(others, 1) == set()


def test_sys_exit_waits_for_what_was_submitted_to_an_executor(host: Callable[..., Host]) -> None:
    program = host(EXITING, "Executor")
    assert [program.says(), program.says()] == ["started", "started"]
    program.hears("exit")
    code, output, errors = program.finish()
    assert (code, errors) == (3, "")
    assert sorted(output.split()) == ["finished"] * 4 + ["started"] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_sys_exit_within_the_context(host: Callable[..., Host], kind: str) -> None:
    program = host(
        """
        import libpool

        with getattr(libpool, sys.argv[1])(2) as workers:
            workers.submit(pow, 2, 3)
            sys.exit(3)
        """,
        kind,
    )
    assert program.finish() == (3, "", "")


# ---- os.fork ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["main thread", "another thread"])
def test_a_forked_child_may_end_like_any_program(
    host: Callable[..., Host], kind: str, where: str
) -> None:
    program = host(
        """
        import multiprocessing, libpool

        def job(x):
            forked.wait(20)
            return x

        def fork():
            global code
            if os.fork() == 0:
                sys.exit(5)  # through all handlers, of libpool as well
            code = os.waitstatus_to_exitcode(os.wait()[1])

        forked = multiprocessing.Event()
        workers = getattr(libpool, sys.argv[1])(2)
        futures = [workers.submit(job, x) for x in range(10)]
        futures[-1].add_done_callback(lambda future: None)  # there is a thread now
        if sys.argv[2] == "main thread":
            fork()
        else:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        forked.set()
        print(code, [future.result(20) for future in futures])
        print(workers.submit(pow, 2, 3).result(20))
        """,
        kind,
        where,
    )
    code, output, errors = program.finish()
    assert (code, errors) == (0, "")
    # In a thread, SystemExit ends the thread, which is all that the child has.
    ended = 5 if where == "main thread" else 0
    assert output == f"{ended} {list(range(10))}\n8\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["return", "raise"])
def test_a_child_that_a_job_forks_does_not_go_on_as_the_worker(
    host: Callable[..., Host], tmp_path: Path, kind: str, end: str
) -> None:
    program = host(
        """
        import libpool

        def job(x):
            child = os.fork()
            if child == 0 and sys.argv[2] == "raise":
                sys.exit(7)
            if child:
                os.waitpid(child, 0)
                with open(sys.argv[3], "a") as file:
                    file.write(f"{x} ")
            return os.getppid()

        workers = getattr(libpool, sys.argv[1])(2)
        supervisor = {workers.supervisor_pid}
        print({workers.submit(job, x).result(20) for x in range(20)} == supervisor)
        print(set(workers.map(job, range(20, 30), chunksize=5)) == supervisor)
        print(sorted(int(x) for x in open(sys.argv[3]).read().split()) == list(range(30)))
        print(workers.stats()["workers_started"])
        """,
        kind,
        end,
        str(tmp_path / "items"),
    )
    assert program.finish() == (0, "True\nTrue\nTrue\n2\n", "")


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_forked_child_that_outlives_the_host_does_not_keep_the_workers(
    host: Callable[..., Host], end: str
) -> None:
    program = host(
        """
        import libpool

        read_end, write_end = os.pipe()
        pool = libpool.Pool(2)
        executor = libpool.Executor(2)
        pool.apply(pow, (2, 3))
        child = os.fork()
        if child == 0:
            os.close(write_end)
            for descriptor in (0, 1, 2):  # the test waits for the end of these
                os.dup2(read_end, descriptor)
            os.read(read_end, 1)
            signal.pause()
        print(child, flush=True)
        sys.stdin.readline()
        """
    )
    child = int(program.says())
    try:
        until(lambda: len(descendants(program.pid)) == 7)
        others = descendants(program.pid) - {child}
        if end == "kill":
            program.process.kill()
        else:
            program.hears("end")
        code, output, errors = program.finish()
        assert (output, errors) == ("", "")
        assert code == (-signal.SIGKILL if end == "kill" else 0)
        assert remaining_after(others, 1) == set()
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        remaining_after([child], 5)


def test_a_forked_child_that_execs_has_none_of_the_descriptors(pool: Pool) -> None:
    pool.submit(square, 2).add_done_callback(lambda future: None)
    listing = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
    ).stdout
    assert "libpool" not in listing
    assert "eventfd" not in listing and "pidfd" not in listing


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_job_has_started_does_not_keep_the_pool(kind: str) -> None:
    with {"Pool": Pool, "Executor": Executor}[kind](1) as workers:
        child: int = workers.submit(_start_sleeper).result()
    try:
        workers.join()
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def _start_sleeper() -> int:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid


# ---- Other children of the host -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "handler",
    ["signal.SIG_IGN", "signal.SIG_DFL", "reap"],
    ids=["ignored", "default", "a handler that reaps all"],
)
def test_whoever_reaps_the_hosts_children(
    host: Callable[..., Host], kind: str, handler: str
) -> None:
    program = host(
        """
        import libpool

        def reap(number, frame):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass

        signal.signal(signal.SIGCHLD, eval(sys.argv[2]))
        for number in range(5):
            with getattr(libpool, sys.argv[1])(2) as workers:
                assert workers.submit(pow, 2, 3).result(20) == 8
                died = workers.submit(os._exit, 3).exception(20)
                assert isinstance(died, libpool.WorkerDied) and died.exitcode == 3, died
                assert workers.submit(pow, 2, 3).result(20) == 8
            workers.join()
        workers = getattr(libpool, sys.argv[1])(2)
        future = workers.submit(time.sleep, 1000)
        os.kill(workers.supervisor_pid, signal.SIGKILL)
        assert isinstance(future.exception(20), libpool.BrokenPool)
        workers.terminate()
        workers.join()
        """,
        kind,
        handler,
    )
    assert program.finish() == (0, "", "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # os.fork() with threads
def test_the_host_can_wait_for_its_own_children(pool: Pool) -> None:
    future = pool.submit(square, 3)
    with subprocess.Popen(["false"]) as child:
        assert child.wait(20) == 1
    assert future.result(20) == 9
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read_end, 1)
        os._exit(7)
    os.write(write_end, b"x")
    os.close(read_end)
    os.close(write_end)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    assert pool.apply(square, (3,)) == 9


def test_a_subprocess_that_outlives_the_host_does_not_keep_the_workers(
    host: Callable[..., Host],
) -> None:
    program = host(
        """
        import subprocess, libpool

        pool = libpool.Pool(2)
        nothing = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "1000"], close_fds=False, start_new_session=True,
                                 stdin=nothing, stdout=nothing, stderr=nothing)
        print(child.pid, flush=True)
        pool.apply(time.sleep, (1000,))
        """
    )
    child = int(program.says())
    try:
        until(lambda: len(descendants(program.pid)) == 4)
        others = descendants(program.pid) - {child}
        program.process.kill()
        program.process.wait()
        assert remaining_after(others, 1) == set()
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        remaining_after([child], 5)


# ---- multiprocessing beside a pool --------------------------------------------------------------

BESIDE = """
    import concurrent.futures, multiprocessing

    def double(x):
        return 2 * x

    def main():
        import libpool

        context = multiprocessing.get_context(sys.argv[2])
        make = getattr(libpool, sys.argv[1])
        first = make(2)
        with context.Pool(2) as theirs, make(2) as second:
            results = theirs.map_async(double, range(20))
            ours = [w.submit(double, x) for x in range(20) for w in (first, second)]
            assert results.get(20) == [2 * x for x in range(20)]
            assert [f.result(20) for f in ours] == [2 * x for x in range(20) for _ in range(2)]
            process = context.Process(target=double, args=(1,))
            process.start()
            process.join(20)
            assert process.exitcode == 0
            assert len(multiprocessing.active_children()) == 2, "theirs, and not ours"
        with concurrent.futures.ProcessPoolExecutor(2, context) as theirs:
            assert list(theirs.map(double, range(20))) == [2 * x for x in range(20)]
            died = first.submit(os._exit, 1).exception(20)
            assert isinstance(died, libpool.WorkerDied)
            assert list(theirs.map(double, range(20))) == [2 * x for x in range(20)]
        assert first.submit(double, 4).result(20) == 8
        first.terminate()
        print("done")

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_beside_a_pool(
    host: Callable[..., Host], kind: str, method: str
) -> None:
    assert host(BESIDE, kind, method).finish() == (0, "done\n", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_of_multiprocessing_within_a_job(host: Callable[..., Host], kind: str) -> None:
    program = host(
        """
        import multiprocessing, libpool

        def job(n):
            with multiprocessing.Pool(2) as theirs:
                return sum(theirs.map(abs, range(n)))

        with getattr(libpool, sys.argv[1])(2) as workers:
            print(workers.submit(job, 10).result(20))
        """,
        kind,
    )
    assert program.finish() == (0, "45\n", "")


@pytest.mark.parametrize("end", ["terminate", "kill", "join"])
def test_a_process_of_multiprocessing_takes_its_pool_with_it(
    host: Callable[..., Host], end: str
) -> None:
    program = host(
        """
        import multiprocessing, libpool

        def use(connection):
            pool = libpool.Pool(2)
            connection.send([*pool.worker_pids(), pool.supervisor_pid])
            connection.recv()
            sys.exit(0)

        outer = libpool.Pool(2)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=use, args=[theirs])
        process.start()
        print(*ours.recv(), flush=True)
        end = sys.argv[1]
        ours.send(None) if end == "join" else getattr(process, end)()
        process.join(20)
        print(process.exitcode, outer.apply(pow, (2, 3)), flush=True)
        sys.stdin.readline()
        """,
        end,
    )
    pids = [int(pid) for pid in program.says().split()]
    code = {"terminate": -signal.SIGTERM, "kill": -signal.SIGKILL, "join": 0}[end]
    assert program.says() == f"{int(code)} 8"
    assert remaining_after(pids, 1) == set()
    program.hears("end")
    assert program.finish() == (0, "", "")


# ---- Threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Pool, Executor], ids=KINDS)
def test_threads_make_use_and_end_pools_of_their_own(make: Any) -> None:
    results: list[int] = []

    def use(number: int) -> None:
        for _ in range(5):
            with make(1) as workers:
                results.append(workers.submit(square, number).result(20))
            workers.join()

    threads = [threading.Thread(target=use, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted(results) == sorted(5 * [0, 1, 4, 9])


def test_jobs_outlive_the_thread_that_made_the_pool_and_submitted_them(
    started: Gate, held: Gate, workers: Any
) -> None:
    made: list[Any] = []

    def make() -> None:
        mine = type(workers)(1)
        made.extend([mine, mine.submit(pass_gates, started, held, 5)])
        started.wait_for()

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    held.open()
    own, future = made
    assert future.result(20) == 5
    own.terminate()


@pytest.mark.parametrize("end", ["close", "terminate", "supervisor killed"])
def test_threads_submit_while_another_ends_the_pool(workers: Any, end: str) -> None:
    futures: list[list[Any]] = [[] for _ in range(4)]
    refusals: list[Exception] = []
    many = threading.Barrier(5)

    def submit(mine: list[Any]) -> None:
        try:
            for x in range(20_000):
                mine.append(workers.submit(square, x))
                if x == 100:
                    many.wait(20)
        except Exception as error:
            refusals.append(error)

    threads = [threading.Thread(target=submit, args=[mine]) for mine in futures]
    for thread in threads:
        thread.start()
    many.wait(20)
    if end == "supervisor killed":
        os.kill(workers.supervisor_pid, signal.SIGKILL)
    else:
        getattr(workers, end)()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    broken = end == "supervisor killed"
    cancelled = 0
    for mine in futures:
        for x, future in enumerate(mine):
            if future.cancelled():
                cancelled += 1
            elif broken and future.exception(30) is not None:
                assert isinstance(future.exception(), BrokenPool)
            else:
                assert future.result(30) == x * x
    assert end == "terminate" or cancelled == 0
    closed = ValueError if isinstance(workers, Pool) else RuntimeError
    expected = BrokenPool if broken else closed
    assert {type(error) for error in refusals} <= {expected}
    until(lambda: workers.check() != 0)  # the supervisor may be about to die still
    with pytest.raises(expected):
        workers.submit(square, 1)


def test_a_waiting_thread_hears_that_another_has_terminated_the_pool(
    started: Gate, held: Gate, workers: Any
) -> None:
    future = workers.submit(pass_gates, started, held)
    outcomes: list[str] = []

    def wait() -> None:
        waits.set()
        try:
            future.result(30)
        except BaseException as error:
            outcomes.append(type(error).__name__)

    waits = threading.Event()
    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait_for()
    assert waits.wait(20)
    workers.terminate()
    for thread in threads:
        thread.join(30)
    assert outcomes == ["CancelledError"] * 3


# ---- The interpreter ends -----------------------------------------------------------------------

WAITS = {
    "result": "future.result()",
    "result with timeout": "future.result(1000)",
    "exception": "future.exception()",
    "wait": "concurrent.futures.wait([future])",
    "as_completed": "list(concurrent.futures.as_completed([future]))",
    "join": "(workers.close(), workers.join())",
    "map": "list(workers.map(job, range(4)))",
}

WAITING = """
    import concurrent.futures, libpool

    def job(x):
        os.write(1, b"started\\n")
        os.read(read_end, 1)
        return x

    def wait():
        waits.set()
        try:
            eval(sys.argv[2])
        except (RuntimeError, ValueError, concurrent.futures.CancelledError):
            pass  # it may be told that the pool ends

    def release():
        threading.main_thread().join()
        os.write(write_end, b"x" * 10)

    read_end, write_end = os.pipe()
    waits = threading.Event()
    workers = getattr(libpool, sys.argv[1])(1)
    future = workers.submit(job, 1)
    threading.Thread(target=wait, daemon=True).start()
    waits.wait()
    if sys.argv[1] == "Executor":  # which waits for what was submitted
        threading.Thread(target=release).start()
    sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wait", WAITS)
def test_a_daemon_thread_that_waits_does_not_hold_up_the_end(
    host: Callable[..., Host], kind: str, wait: str
) -> None:
    program = host(WAITING, kind, WAITS[wait])
    assert program.says() == "started"
    others = descendants(program.pid)
    program.hears("end")
    code, output, errors = program.finish(timeout=20)
    assert (code, errors) == (0, "")
    assert set(output.split()) <= {"started"}
    assert remaining_after(others, 1) == set()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(5))
def test_daemon_threads_that_submit_do_not_hold_up_the_end(
    host: Callable[..., Host], kind: str, number: int
) -> None:
    program = host(
        """
        import collections, concurrent.futures, libpool

        def use(callbacks):
            futures = collections.deque(maxlen=50)
            try:
                while True:
                    futures.append(workers.submit(len, bytes(1000)))
                    if callbacks:
                        futures[-1].add_done_callback(lambda future: None)
                    if len(futures) == 50:
                        futures[0].result()
                        many.set()
            except (RuntimeError, ValueError, concurrent.futures.CancelledError):
                pass  # the pool has ended

        many = threading.Event()
        workers = getattr(libpool, sys.argv[1])(2)
        for callbacks in (False, False, True):
            threading.Thread(target=use, args=[callbacks], daemon=True).start()
        many.wait()
        """,
        kind,
    )
    assert program.finish(timeout=20) == (0, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_may_end_the_program_from_a_callback(host: Callable[..., Host], kind: str) -> None:
    program = host(
        """
        import libpool

        workers = getattr(libpool, sys.argv[1])(2)
        workers.submit(pow, 2, 3).add_done_callback(lambda future: os._exit(future.result()))
        threading.Event().wait()
        """,
        kind,
    )
    assert program.finish() == (8, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_in_a_cycle_at_the_end(host: Callable[..., Host], kind: str) -> None:
    program = host(
        """
        import gc, libpool

        gc.disable()

        class Keeper:
            def __del__(self):
                try:
                    self.workers.submit(pow, 2, 3)
                except Exception:
                    pass

        keeper = Keeper()
        keeper.workers = getattr(libpool, sys.argv[1])(2)
        keeper.workers.keeper = keeper
        keeper.future = keeper.workers.submit(pow, 2, 3)
        keeper.future.keeper = keeper
        del keeper
        """,
        kind,
    )
    code, output, errors = program.finish()
    assert (code, output) == (0, "")
    assert [line for line in errors.splitlines() if "ResourceWarning" not in line] == []
