"""What a job raises arrives with type, arguments, notes and the worker's traceback."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import program, start, until

from libpool import BrokenPool, Executor, Pool, RemoteError, WorkerDied
from libpool._errors import RemoteTraceback, worker_died
from libpool._exceptions import dumps_exception, loads_exception


class Plain(Exception):
    pass


class TwoArguments(Exception):
    """Can't be unpickled the usual way: `args` are not what __init__ takes."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ({code})")
        self.name = name
        self.code = code


class Doubling(Exception):
    """Can be unpickled the usual way, but gives another message each time."""

    def __init__(self, message: str) -> None:
        super().__init__(f"[{message}]")


class Reducing(Exception):
    def __init__(self, a: int, *, b: int) -> None:
        super().__init__(a)
        self.b = b

    def __reduce__(self) -> tuple[Any, ...]:
        return _reducing, (self.args[0], self.b)


def _reducing(a: int, b: int) -> Reducing:
    return Reducing(a, b=b)


class Stubborn(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("no pickle of me")

    def __new__(cls, *args: object) -> Stubborn:
        raise RuntimeError("no copy of me")

    @classmethod
    def made(cls) -> Stubborn:
        return Exception.__new__(cls)


class BadText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def raise_(error: BaseException) -> None:
    raise error


def call_and_raise(make: Callable[..., BaseException], *args: object) -> None:
    raise make(*args)


def outcome(workers: Any, function: Callable[..., Any], *args: object) -> Any:
    return workers.submit(function, *args).exception()


# ---- What arrives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, args",
    [
        (ValueError, ()),
        (ValueError, ("text", 1)),
        (KeyError, ("key",)),
        (Plain, (1, [2])),
        (FileNotFoundError, (2, "No such file", "name")),
        (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "why")),
        (StopIteration, (5,)),
        (ExceptionGroup, ("several", [ValueError(1), Plain(2)])),
        (concurrent.futures.CancelledError, ()),
        (concurrent.futures.TimeoutError, ("late",)),
        (MemoryError, ()),
        (RecursionError, ("deep",)),
        (GeneratorExit, ()),
        (SystemExit, (3,)),
        (KeyboardInterrupt, ()),
        (ValueError, (object,)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_type_and_arguments_arrive(workers: Any, make: Any, args: tuple[object, ...]) -> None:
    error = outcome(workers, call_and_raise, make, *args)
    assert type(error) is make
    assert str(error) == str(make(*args))
    assert repr(error.args) == repr(make(*args).args)
    if isinstance(error, FileNotFoundError):
        assert (error.errno, error.filename) == (2, "name")
    if isinstance(error, UnicodeDecodeError):
        assert error.object == b"\xff"


def test_result_raises_it(workers: Any) -> None:
    with pytest.raises(Plain, match="why"):
        workers.submit(call_and_raise, Plain, "why").result()


def test_attributes_and_notes_arrive(executor: Executor) -> None:
    def fail() -> None:
        error = Plain("x")
        error.detail = {"a": [1]}  # type: ignore[attr-defined]
        error.add_note("first")
        error.add_note("second")
        raise error

    error = outcome(executor, fail)
    assert error.detail == {"a": [1]}
    assert error.__notes__ == ["first", "second"]


def test_an_exception_with_a_constructor_of_its_own_arrives(executor: Executor) -> None:
    error = outcome(executor, call_and_raise, TwoArguments, "name", 5)
    assert type(error) is TwoArguments
    assert (str(error), error.args, error.name, error.code) == (
        "name (5)",
        ("name (5)",),
        "name",
        5,
    )


def test_an_exception_that_alters_its_message_arrives_as_it_was(executor: Executor) -> None:
    error = outcome(executor, call_and_raise, Doubling, "x")
    assert type(error) is Doubling and str(error) == "[x]"


def test_an_exception_that_pickles_itself_arrives(executor: Executor) -> None:
    error = outcome(executor, lambda: raise_(Reducing(1, b=2)))
    assert type(error) is Reducing and (error.args, error.b) == ((1,), 2)


def test_an_exception_of_a_local_class_arrives_as_that_class(executor: Executor) -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("x")

    assert type(outcome(executor, fail)) is Local


def test_the_traceback_of_the_worker_is_the_cause(executor: Executor) -> None:
    def inner() -> None:
        raise Plain("deep inside")

    def fail() -> None:
        try:
            {}["missing"]
        except KeyError:
            inner()

    error = outcome(executor, fail)
    cause = error.__cause__
    assert isinstance(cause, RemoteTraceback)
    text = str(cause)
    assert text.startswith('\n"""\nTraceback (most recent call last):\n')
    assert text.endswith('Plain: deep inside\n"""')
    assert "KeyError: 'missing'" in text
    assert "During handling of the above exception" in text
    assert "in inner" in text and "in fail" in text
    printed = "".join(traceback.format_exception(error))
    assert text in printed and "direct cause" in printed


def test_the_traceback_survives_another_hop(pool: Pool) -> None:
    error = outcome(pool, _submit_and_wait)
    assert type(error) is Plain
    assert "in call_and_raise" in str(error.__cause__)
    assert "in _submit_and_wait" in str(error.__cause__)


def _submit_and_wait() -> None:
    import libpool

    pool = libpool.current()
    assert pool is not None
    pool.submit(call_and_raise, Plain, "x").result()


def test_an_exception_of_map_has_the_traceback(pool: Pool, executor: Executor) -> None:
    with pytest.raises(Plain) as caught:
        pool.map(_fail_at_three, range(10))
    assert "in _fail_at_three" in str(caught.value.__cause__)
    with pytest.raises(Plain) as caught:
        list(executor.map(_fail_at_three, range(10), chunksize=2))
    assert "in _fail_at_three" in str(caught.value.__cause__)


def _fail_at_three(x: int) -> int:
    if x == 3:
        raise Plain(x)
    return x


def test_the_same_exception_is_raised_each_time(executor: Executor) -> None:
    future = executor.submit(call_and_raise, Plain, "x")
    first = future.exception()
    with pytest.raises(Plain) as caught:
        future.result()
    assert caught.value is first


# ---- What can't be sent -------------------------------------------------------------------------


def test_an_attribute_that_can_not_be_pickled_is_left_out(executor: Executor) -> None:
    def fail() -> None:
        error = Plain("x")
        error.lock, error.number = threading.Lock(), 5  # type: ignore[attr-defined]
        raise error

    error = outcome(executor, fail)
    assert type(error) is Plain and error.args == ("x",)
    assert error.number == 5 and not hasattr(error, "lock")
    assert any("lock" in note for note in error.__notes__)


def test_an_argument_of_an_exception_that_can_not_be_pickled(executor: Executor) -> None:
    error = outcome(executor, lambda: raise_(ValueError(threading.Lock())))
    assert type(error) is RemoteError
    assert "ValueError" in str(error) and "_thread.lock" in str(error)
    assert any("cannot pickle" in note for note in error.__notes__)
    assert "in raise_" in str(error.__cause__)


def test_an_exception_that_can_neither_be_pickled_nor_made(executor: Executor) -> None:
    error = outcome(executor, lambda: raise_(Stubborn.made()))
    assert type(error) is RemoteError
    assert "Stubborn" in str(error)
    assert "Stubborn" in str(error.__cause__)


def test_an_exception_whose_text_fails(executor: Executor) -> None:
    error = outcome(executor, call_and_raise, BadText, 1)
    assert type(error) is BadText and error.args == (1,)


def test_an_exception_that_the_host_can_not_load() -> None:
    data = dumps_exception(Plain("x")).replace(b"Plain", b"Gone_")
    error = loads_exception(data)
    assert type(error) is RemoteError
    assert any("could not" in note for note in error.__notes__)


@pytest.mark.parametrize("argument", [threading.Lock(), (i for i in ())], ids=["lock", "generator"])
def test_an_argument_that_can_not_be_pickled_is_named(workers: Any, argument: Any) -> None:
    for arguments in ([argument], [{"key": [1, argument]}]):
        error = outcome(workers, len, *arguments)
        assert isinstance(error, TypeError | pickle.PicklingError)
        assert any(type(argument).__name__ in note for note in error.__notes__)
    assert workers.submit(len, "abc").result() == 3


def test_ctrl_c_while_an_argument_is_pickled_is_nobodys_fault(workers: Any) -> None:
    pickled: list[object] = []

    class Interrupted:
        def __reduce__(self) -> Any:
            pickled.append(self)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        workers.submit(abs, Interrupted())
    assert not hasattr(caught.value, "__notes__")
    assert len(pickled) == 1
    with pytest.raises(KeyboardInterrupt) as caught:
        workers.submit(Interrupted().__reduce__)
    assert not hasattr(caught.value, "__notes__")


def test_an_item_that_can_not_be_pickled_is_named(pool: Pool) -> None:
    with pytest.raises(TypeError) as caught:
        pool.map(str, [1, 2, threading.Lock(), 4])
    assert any("lock" in note for note in caught.value.__notes__)


def test_a_result_that_can_not_be_pickled_is_named(workers: Any) -> None:
    for make in (threading.Lock, lambda: {"key": [threading.Lock()]}):
        error = outcome(workers, make)
        assert isinstance(error, TypeError)
        assert any("lock" in note for note in error.__notes__)
        assert error.__cause__ is not None
    assert workers.submit(len, "abc").result() == 3


class FailsToLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return call_and_raise, (Plain, "while loading")


def test_an_argument_that_can_not_be_loaded(workers: Any) -> None:
    error = outcome(workers, len, FailsToLoad())
    assert type(error) is Plain and "while loading" in str(error)


def test_a_result_that_can_not_be_loaded(workers: Any) -> None:
    error = outcome(workers, FailsToLoad)
    assert type(error) is Plain
    assert workers.submit(len, "abc").result() == 3


class FailsToPickle:
    def __reduce__(self) -> tuple[Any, ...]:
        raise Plain("while pickling")

    def __repr__(self) -> str:
        raise ValueError("no repr")


def test_an_object_whose_repr_fails_is_named_by_its_type(workers: Any) -> None:
    error = outcome(workers, len, FailsToPickle())
    assert type(error) is Plain
    assert any("FailsToPickle" in note for note in error.__notes__)
    error = outcome(workers, FailsToPickle)
    assert type(error) is Plain
    assert any("FailsToPickle" in note for note in error.__notes__)


# ---- Errors of the pool -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, exitcode, text",
    [
        (9, -9, "a worker was killed by SIGKILL (signal 9)"),
        (11 | 0x80, -11, "a worker was killed by SIGSEGV (signal 11)"),
        (40, -40, "a worker was killed by signal 40"),
        (3 << 8, 3, "a worker exited with code 3"),
        (0, 0, "a worker exited with code 0"),
    ],
)
def test_worker_died_tells_how(status: int, exitcode: int, text: str) -> None:
    error = worker_died(status, raise_)
    assert str(error) == f"{text} while it ran {raise_!r}"
    assert error.exitcode == exitcode
    assert error.signal == (-exitcode if exitcode < 0 else None)
    assert isinstance(error, concurrent.futures.BrokenExecutor)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.exitcode) == (WorkerDied, str(error), exitcode)
    assert isinstance(WorkerDied("x", -9).signal, signal.Signals)


def test_broken_pool_is_a_broken_executor() -> None:
    assert issubclass(BrokenPool, concurrent.futures.BrokenExecutor)
    assert issubclass(concurrent.futures.BrokenExecutor, RuntimeError)


def test_a_failing_initializer_breaks_the_pool_and_is_told(tmp_path: Path) -> None:
    path = program(
        tmp_path / "initializer.py",
        """
        import libpool

        def fail():
            raise ValueError("in the initializer")

        for kind in libpool.Pool, libpool.Executor:
            workers = kind(2, initializer=fail)
            try:
                workers.submit(len, "abc").result()
            except libpool.BrokenPool as error:
                print(error)
            try:
                workers.submit(len, "abc").result()
            except libpool.BrokenPool as error:
                print("still")
            workers.terminate()
        """,
    )
    process = start(path)
    output, errors = process.communicate(timeout=40)
    assert process.returncode == 0
    assert output.count("broken") == output.count("still") == 2
    assert "Exception in initializer:" in errors
    assert "ValueError: in the initializer" in errors


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_in_a_job_ends_the_job_only(workers: Any, code: int) -> None:
    pid = workers.submit(os.getpid).result()
    with pytest.raises(SystemExit) as caught:
        workers.submit(sys.exit, code).result()
    assert caught.value.code == code
    until(lambda: pid in workers.worker_pids())
