"""The start methods: workers that are forks of the host, or of an interpreter of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from support import descendants, program, remaining_after, run, start, until

from libpool import BrokenPool, Executor, Pool, WorkerDied
from libpool._spawn import choose_method

METHODS = ["fork", "forkserver", "spawn"]
OTHERS = ["forkserver", "spawn"]

state: Any = None


@pytest.fixture(autouse=True)
def no_tracker_stays() -> Iterator[None]:
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture
def own_default() -> Iterator[None]:
    """Leaves the program's start method as it was."""
    default = multiprocessing.context._default_context  # type: ignore[attr-defined]
    before = default.get_start_method(allow_none=True)
    default.set_start_method(None, force=True)
    yield
    default.set_start_method(before, force=True)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[Pool, Executor])
def make(request: pytest.FixtureRequest, method: str) -> Iterator[Callable[..., Pool | Executor]]:
    """Makes a pool of either kind with each start method."""
    made = []

    def of_kind(*args: Any, **kwargs: Any) -> Pool | Executor:
        name = "context" if request.param is Pool else "mp_context"
        kwargs[name] = multiprocessing.get_context(method)
        made.append(request.param(*args, **kwargs))
        return made[-1]

    yield of_kind
    for one in made:
        one.terminate()


def set_state(value: Any) -> None:
    global state
    state = value


def get_state() -> Any:
    return state


def divide(x: int, y: int) -> float:
    return x / y


def process_ids() -> tuple[int, int]:
    return os.getpid(), os.getppid()


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Thing:
    def __init__(self, value: int) -> None:
        self.value = value

    def doubled(self) -> int:
        return 2 * self.value


# ---- What is the same with all of them ----------------------------------------------------------


def test_results_and_exceptions(make: Callable[..., Pool | Executor]) -> None:
    workers = make(2)
    assert [workers.submit(divide, x, 2).result() for x in range(4)] == [0, 0.5, 1, 1.5]
    error = workers.submit(divide, 1, 0).exception()
    assert isinstance(error, ZeroDivisionError)
    assert "x / y" in str(error.__cause__)


def test_workers_are_children_of_the_supervisor(make: Callable[..., Pool | Executor]) -> None:
    workers = make(2)
    worker, supervisor = workers.submit(process_ids).result()
    assert supervisor == workers.supervisor_pid
    assert worker in workers.worker_pids()


def test_the_initializer_runs_once_in_each_worker(make: Callable[..., Pool | Executor]) -> None:
    workers = make(2, initializer=set_state, initargs=({"a": [1]},))
    assert [workers.submit(get_state).result() for _ in range(5)] == [{"a": [1]}] * 5
    assert state is None


def test_lambdas_and_closures_see_what_they_capture_now(
    make: Callable[..., Pool | Executor],
) -> None:
    workers = make(2)
    factor = 2
    call = lambda x: x * factor  # noqa: E731
    assert [workers.submit(call, x).result() for x in (1, 2, 3)] == [2, 4, 6]
    factor = 5
    assert [workers.submit(call, x).result() for x in (1, 2, 3)] == [5, 10, 15]


def test_objects_and_bound_methods_there_and_back(make: Callable[..., Pool | Executor]) -> None:
    workers = make(2)
    made = workers.submit(Thing, 4).result()
    assert type(made) is Thing
    assert workers.submit(made.doubled).result() == 8


def test_a_function_that_was_changed_since_runs_as_it_is_now(
    make: Callable[..., Pool | Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = make(2)
    assert workers.submit(get_state).result() is None
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "get_state", lambda: "changed")
    assert [workers.submit(calls_get_state).result() for _ in range(3)] == ["changed"] * 3
    monkeypatch.undo()
    assert [workers.submit(calls_get_state).result() for _ in range(3)] == [None] * 3


def calls_get_state() -> Any:
    return get_state()


def test_a_dead_worker_is_replaced_and_initialized(make: Callable[..., Pool | Executor]) -> None:
    workers = make(1, initializer=set_state, initargs=(7,))
    for _ in range(3):
        with pytest.raises(WorkerDied):
            workers.submit(kill_itself).result()
        assert workers.submit(get_state).result() == 7


def test_workers_are_replaced_after_so_many_jobs(method: str) -> None:
    context = multiprocessing.get_context(method)
    with Executor(1, mp_context=context, max_tasks_per_child=2) as executor:
        pids = [executor.submit(os.getpid).result() for _ in range(6)]
    assert len(set(pids)) == 3


def test_a_nested_job_runs_in_the_same_pool(make: Callable[..., Pool | Executor]) -> None:
    workers = make(2)
    assert workers.submit(nested, 6).result() == 8


def nested(n: int) -> int:
    import libpool

    pool = libpool.current()
    assert pool is not None
    if n < 2:
        return n
    left = pool.submit(nested, n - 1)
    return nested(n - 2) + left.result()


def test_a_failing_initializer_breaks_the_pool(make: Callable[..., Pool | Executor]) -> None:
    workers = make(1, initializer=divide, initargs=(1, 0))
    with pytest.raises(BrokenPool):
        workers.submit(get_state).result()


def test_the_end_of_the_supervisor_breaks_the_pool(make: Callable[..., Pool | Executor]) -> None:
    workers = make(2)
    worker, supervisor = workers.submit(process_ids).result()
    os.kill(supervisor, signal.SIGKILL)
    assert remaining_after([worker], 1) == set()
    with pytest.raises(BrokenPool):
        workers.submit(get_state).result()


def test_all_processes_end_with_the_host(tmp_path: Path, method: str) -> None:
    path = program(
        tmp_path / "host.py",
        """
        import multiprocessing, sys, time
        import libpool

        def wait(x):
            time.sleep(60)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            pool = libpool.Pool(2, context=context)
            pool.apply(abs, (1,))
            pool.submit(wait, 1)
            print("up", flush=True)
            time.sleep(60)
        """,
    )
    host = start(path, method)
    assert host.stdout is not None
    assert host.stdout.readline() == "up\n"
    until(lambda: len(descendants(host.pid)) >= 3)  # the first result needs only one worker
    found = descendants(host.pid)
    host.kill()
    assert remaining_after(found, 1) == set()
    host.communicate()


def test_ctrl_c_reaches_the_host_only(tmp_path: Path, method: str) -> None:
    path = program(
        tmp_path / "interrupted.py",
        """
        import multiprocessing, os, signal, sys, time
        import libpool

        def wait(x):
            print("runs", flush=True)
            time.sleep(60)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with libpool.Pool(1, context=context) as pool:
                try:
                    pool.map(wait, [1])
                except KeyboardInterrupt:
                    print("interrupted")
        """,
    )
    host = start(path, method, start_new_session=True)
    assert host.stdout is not None
    assert host.stdout.readline() == "runs\n"
    os.killpg(host.pid, signal.SIGINT)
    output, errors = host.communicate(timeout=20)
    assert (output, errors) == ("interrupted\n", "")


def test_multiprocessing_objects_in_initargs(tmp_path: Path, method: str) -> None:
    # In a program of its own, since multiprocessing keeps the memory of shared values for ever.
    path = program(
        tmp_path / "objects.py",
        """
        import multiprocessing, os, signal, sys
        import libpool

        def init(*args):
            global lock, number, queue, simple
            lock, number, queue, simple = args

        def add(value):
            with lock:
                number.value += value
            simple.put(value)
            return value

        def put(value):
            queue.put(value)

        def die(value):
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with context.Manager() as manager:
                args = (context.Lock(), context.Value("i", 0), context.Queue())
                args += (context.SimpleQueue(),)
                with libpool.Pool(2, init, args, context=context) as pool:
                    print(pool.map(add, range(5)))
                    pool.map(put, range(5))
                    print(sorted(args[2].get(timeout=20) for _ in range(5)))
                    for _ in range(2):
                        try:
                            pool.apply(die, (1,))
                        except libpool.WorkerDied:
                            print([pool.apply(add, (10,)) for _ in range(2)])
                    shared = manager.dict()
                    pool.starmap(shared.__setitem__, [(1, 2), (3, 4)])
                    print(sorted(shared.items()), args[1].value)
                    print(sorted(args[3].get() for _ in range(9)))
        """,
    )
    assert run(path, method) == (
        "[0, 1, 2, 3, 4]\n[0, 1, 2, 3, 4]\n[10, 10]\n[10, 10]\n[(1, 2), (3, 4)] 50\n"
        "[0, 1, 2, 3, 4, 10, 10, 10, 10]\n"
    )


# ---- Which of them is used ----------------------------------------------------------------------


def test_the_default_is_fork_with_one_thread_and_else_forkserver(tmp_path: Path) -> None:
    path = program(
        tmp_path / "threads.py",
        """
        import multiprocessing, threading
        from libpool import Pool
        from libpool._spawn import choose_method

        if __name__ == "__main__":
            print(choose_method())
            done = threading.Event()
            thread = threading.Thread(target=done.wait)
            thread.start()
            print(choose_method())
            with Pool(1) as pool:
                print(pool.apply(abs, (-1,)))
            print(multiprocessing.get_start_method(allow_none=True))  # it is still to be chosen
            done.set()
            thread.join()
            print(choose_method())
        """,
    )
    assert run(path) == "fork\nforkserver\n1\nNone\nfork\n"


def test_own_threads_do_not_count(tmp_path: Path) -> None:
    path = program(
        tmp_path / "own.py",
        """
        import os, threading
        from libpool import Pool
        from libpool._spawn import choose_method

        with Pool(1) as pool:
            called = threading.Event()
            pool.submit(abs, -1).add_done_callback(lambda _: called.set())
            assert called.wait(20)
            with open(os.devnull, "w") as nothing:
                pool.map(abs, range(3), progress={"file": nothing})
            print(threading.active_count(), choose_method())  # with tqdm's monitor
        """,
    )
    assert run(path) == "3 fork\n"


@pytest.mark.parametrize("chosen", METHODS)
def test_what_the_program_has_chosen_goes_first(own_default: None, chosen: str) -> None:
    multiprocessing.set_start_method(chosen)
    assert choose_method() == chosen
    assert choose_method(multiprocessing.get_context("spawn")) == "spawn"


def test_multiprocessing_is_not_imported_for_nothing(tmp_path: Path) -> None:
    path = program(
        tmp_path / "lean.py",
        """
        import sys, libpool
        with libpool.Pool(1) as pool:
            print(pool.apply(abs, (-1,)), "multiprocessing" in sys.modules)
        """,
    )
    assert run(path) == "1 False\n"


def test_a_start_method_that_does_not_exist_is_refused() -> None:
    class Context:
        def get_start_method(self) -> str:
            return "thread"

    with pytest.raises(ValueError, match="'thread'"):
        Pool(1, context=Context())


# ---- What can't be sent -------------------------------------------------------------------------


@pytest.mark.parametrize("method", OTHERS)
def test_an_initializer_that_can_not_be_pickled_is_an_error_of_the_constructor(method: str) -> None:
    context = multiprocessing.get_context(method)
    with pytest.raises(TypeError, match="pickle") as caught:
        Pool(1, set_state, (threading.Lock(),), context=context)
    assert "lock" in "".join(caught.value.__notes__)
    with pytest.raises(RuntimeError, match="fork context"):
        Pool(1, set_state, (multiprocessing.get_context("fork").Lock(),), context=context)


@pytest.mark.parametrize("method", OTHERS)
def test_an_interpreter_that_is_not_there_is_an_error_of_the_constructor(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    resource_tracker.ensure_running()  # by the interpreter that is there
    before = multiprocessing.spawn.get_executable()  # type: ignore[attr-defined]
    context.set_executable("/nonexistent/python")
    try:
        with pytest.raises(FileNotFoundError):
            Pool(1, context=context)
        context.set_executable("/bin/false")
        with Pool(1, context=context) as pool:
            with pytest.raises(BrokenPool):
                pool.apply(get_state)
    finally:
        context.set_executable(before)


# ---- Where the program comes from ---------------------------------------------------------------

SCRIPT = """
import multiprocessing, sys
import libpool

state = None

def init(x):
    global state
    state = x

def job(x):
    return helper(x) + state

def helper(x):
    return x * 10

class Thing:
    def __init__(self, x):
        self.x = x

def main(method):
    with libpool.Pool(2, init, (1,), context=multiprocessing.get_context(method)) as pool:
        k = 3
        print(pool.map(job, range(3)), pool.map(lambda x: helper(x) + k, range(3)))
        made = pool.apply(Thing, (5,))
        print(type(made) is Thing, made.x, pool.apply(lambda made: made.x, (made,)))
        global helper
        before, helper = helper, lambda x: -x
        print([pool.apply(job, (2,)) for _ in range(3)])
        helper = before
        print([pool.apply(job, (2,)) for _ in range(3)])

if __name__ == "__main__":
    def guarded(x):
        return helper(x) + 7

    for method in ("fork", "spawn", "forkserver"):
        main(method)
        with libpool.Pool(1, context=multiprocessing.get_context(method)) as pool:
            print(pool.map(guarded, [1, 2]))
"""
SAID = "[1, 11, 21] [3, 13, 23]\nTrue 5 5\n[-1, -1, -1]\n[21, 21, 21]\n[17, 27]\n"


def check(command: list[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, **options)
    assert (done.stdout, done.stderr) == (SAID * 3, "")


def test_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    check([sys.executable, "script.py"], cwd=tmp_path)
    check([sys.executable, str(tmp_path / "script.py")])


def test_a_module_and_a_package(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("__init__", "__main__", "module"):
        (package / f"{name}.py").write_text("" if name == "__init__" else SCRIPT)
    check([sys.executable, "-m", "package.module"], cwd=tmp_path)
    check([sys.executable, "-m", "package"], cwd=tmp_path)
    check([sys.executable, str(package)])


def test_a_command_and_standard_input() -> None:
    check([sys.executable, "-c", SCRIPT])
    check([sys.executable], input=SCRIPT)


@pytest.mark.parametrize("method", OTHERS)
def test_what_is_typed_into_an_interpreter(method: str) -> None:
    typed = f"""
import libpool, multiprocessing
k = None
def init(x):
    global k, only_here
    k = only_here = x

pool = libpool.Pool(2, init, (5,), context=multiprocessing.get_context({method!r}))
def f(x): return g(x) + only_here

def g(x): return x + k

print(pool.map(f, [1, 2]))
k = 1
print(pool.map(f, [1, 2]))
def g(x): return x * 100

print(pool.map(f, [1, 2]))
class A:
    def __init__(self, x): self.x = x

print([type(a) is A for a in pool.map(A, [1, 2])])
pool.terminate()
"""
    done = subprocess.run(
        [sys.executable, "-i", "-q", "-c", "import sys; sys.ps1 = sys.ps2 = ''"],
        input=typed,
        capture_output=True,
        text=True,
        timeout=40,
    )
    lines = done.stdout.splitlines()
    assert lines == ["[11, 12]", "[7, 8]", "[105, 205]", "[True, True]"], done.stderr


@pytest.mark.parametrize("method", OTHERS)
def test_a_script_without_the_guard_gets_the_error_of_multiprocessing(
    tmp_path: Path, method: str
) -> None:
    path = program(
        tmp_path / "unguarded.py",
        f"""
        import libpool, multiprocessing
        pool = libpool.Pool(2, context=multiprocessing.get_context({method!r}))
        print(pool.apply(abs, (-1,)))
        """,
    )
    process = start(path)
    output, errors = process.communicate(timeout=30)
    assert output == ""
    assert "before the\n        current process has finished its bootstrapping phase" in errors
    assert "libpool._errors.BrokenPool" in errors
    assert process.returncode == 1


@pytest.mark.parametrize("method", OTHERS)
def test_an_import_that_fails_in_the_worker_breaks_the_pool(tmp_path: Path, method: str) -> None:
    path = program(
        tmp_path / "failing.py",
        f"""
        import libpool, multiprocessing
        if __name__ == "__main__":
            pool = libpool.Pool(2, context=multiprocessing.get_context({method!r}))
            try:
                pool.apply(abs, (-1,))
            except libpool.BrokenPool:
                print("broken")
        else:
            raise OSError("no such thing here")
        """,
    )
    process = start(path)
    output, errors = process.communicate(timeout=30)
    assert output == "broken\n"
    assert 1 <= errors.count("OSError: no such thing here") <= 2


def test_spawned_workers_import_for_themselves_and_a_fork_server_once(tmp_path: Path) -> None:
    path = program(
        tmp_path / "counted.py",
        """
        import os, sys, libpool, multiprocessing

        imported_by = os.getpid()

        def job(x):
            return imported_by == os.getpid(), imported_by == os.getppid()

        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with libpool.Pool(2, context=multiprocessing.get_context(method)) as pool:
                    print(pool.apply(job, (1,)))
        """,
    )
    assert run(path) == "(False, False)\n(True, False)\n(False, True)\n"


def test_the_modules_to_preload_are_there_before_the_workers(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text("import os\npid = os.getpid()\n")
    path = program(
        tmp_path / "preloading.py",
        """
        import os, sys, libpool, multiprocessing

        def job(x):
            import preloaded
            return preloaded.pid == os.getppid()

        if __name__ == "__main__":
            multiprocessing.set_forkserver_preload(["preloaded", "no_such_module"])
            with libpool.Pool(2, context=multiprocessing.get_context("forkserver")) as pool:
                print(pool.apply(job, (1,)))
        """,
    )
    assert run(path) == "True\n"


@pytest.mark.parametrize("method", OTHERS)
def test_a_module_that_workers_can_not_import_is_sent_by_value(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("made_up")
    exec("k = 2\ndef f(x): return x * k", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_up", module)
    with Pool(1, context=multiprocessing.get_context(method)) as pool:
        assert pool.map(module.f, [1, 2]) == [2, 4]
        module.k = 3  # type: ignore[attr-defined]
        assert pool.map(module.f, [1, 2]) == [3, 6]


def parent() -> tuple[int, str, bool] | None:
    found = multiprocessing.parent_process()
    return None if found is None else (found.pid or 0, found.name, found.is_alive())


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_has_the_host_for_its_parent_process(method: str) -> None:
    with Pool(1, context=multiprocessing.get_context(method)) as pool:
        assert pool.apply(parent) == (os.getpid(), "MainProcess", True)
