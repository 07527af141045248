"""What a review found: each of these went wrong once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    Gate,
    check_change,
    descendants,
    is_alive,
    pass_gates,
    program,
    remaining_after,
    run,
    start,
    until,
)

import libpool
from libpool import BrokenPool, Executor, Pool, RemoteError

SECOND = 1.0


# ---- Data of classes and functions --------------------------------------------------------------


class Base:
    depth = 0


class Counted(Base):
    n = 1
    table: dict[str, int] = {}
    made = 0

    def __init__(self) -> None:
        Counted.made += 1

    def read(self) -> int:
        return self.n

    @classmethod
    def of_class(cls) -> int:
        return cls.n


class Kind(type):
    tag = 0


class OfKind(metaclass=Kind):
    def read(self) -> int:
        return type(type(self)).tag


class User:
    def ask(self) -> int:
        return Counted.n


def read_n() -> int:
    return Counted.n


def is_counted(value: object) -> bool:
    return isinstance(value, Counted)


def marked() -> object:
    return getattr(marked, "mark", None)


def reads_mark() -> object:
    return marked.mark  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What tests do to the classes and functions of this module is undone."""
    classes = [(cls, dict(cls.__dict__)) for cls in (Base, Counted, User)]
    functions = [(function, dict(function.__dict__)) for function in (marked, read_n)]
    yield
    for cls, before in classes:
        for name in cls.__dict__.keys() - before.keys() - {"__slotnames__", "__annotations__"}:
            delattr(cls, name)
        for name, value in before.items():
            if name not in ("__dict__", "__weakref__") and cls.__dict__.get(name) is not value:
                setattr(cls, name, value)
    for function, attributes in functions:
        function.__dict__.clear()
        function.__dict__.update(attributes)


def set_n(value: int) -> Callable[[], None]:
    return lambda: setattr(Counted, "n", value)


def call_lambda(pool: Pool) -> int:
    return pool.apply(lambda: Counted.n)


@pytest.mark.parametrize(
    "call",
    [
        call_lambda,
        lambda pool: pool.apply(read_n),
        lambda pool: pool.apply(Counted.of_class),
        lambda pool: pool.apply(User().ask),
        lambda pool: pool.apply(Counted().read),
        lambda pool: pool.map(lambda _: Counted.n, [0])[0],
    ],
    ids=["lambda", "function", "classmethod", "other class", "method", "map"],
)
def test_an_attribute_of_a_class_that_changes(pool: Pool, call: Callable[[Pool], int]) -> None:
    check_change(lambda: call(pool), 1, set_n(2), 2)
    check_change(lambda: call(pool), 2, set_n(1), 1)  # not what workers have been told before
    check_change(lambda: call(pool), 1, set_n(3), 3)


def test_each_worker_sees_it(started: Gate, held: Gate) -> None:
    with Pool(3) as pool:
        Counted.n = 7

        def look() -> tuple[int, int]:
            pass_gates(started, held)
            return os.getpid(), Counted.n

        futures = [pool.submit(look) for _ in range(3)]
        for _ in futures:
            started.wait_for()
        held.open(3)
        seen = dict(future.result() for future in futures)
        assert sorted(seen.values()) == [7] * 3


def test_an_attribute_that_is_added_and_removed(pool: Pool) -> None:
    def look() -> object:
        return getattr(Counted, "late", "none"), hasattr(Counted, "table")

    assert pool.apply(look) == ("none", True)
    Counted.late = 5  # type: ignore[attr-defined]
    assert pool.apply(look) == (5, True)
    del Counted.late  # type: ignore[attr-defined]
    table = Counted.table
    del Counted.table
    assert pool.apply(look) == ("none", False)
    Counted.table = table
    assert pool.apply(look) == ("none", True)


def test_an_attribute_of_a_base_class(pool: Pool) -> None:
    def change() -> None:
        Base.depth = 4

    check_change(lambda: pool.apply(lambda: Counted.depth), 0, change, 4)


def test_an_attribute_of_a_metaclass(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def change() -> None:
        monkeypatch.setattr(Kind, "tag", 4)

    check_change(lambda: pool.apply(OfKind().read), 0, change, 4)


def test_an_attribute_that_becomes_a_method(pool: Pool) -> None:
    def change() -> None:
        Counted.n = lambda: 8  # type: ignore[assignment]

    check_change(lambda: pool.apply(lambda: callable(Counted.n)), False, change, True)


def test_an_attribute_that_refers_to_its_class(pool: Pool) -> None:
    Counted.only = Counted()  # type: ignore[attr-defined]
    assert pool.apply(lambda: type(Counted.only) is Counted)  # type: ignore[attr-defined]


def test_an_attribute_that_can_not_be_pickled_does_not_stand_in_the_way(pool: Pool) -> None:
    import threading

    Counted.lock = threading.Lock()  # type: ignore[attr-defined]
    assert pool.apply(read_n) == 1
    assert pool.apply(lambda: Counted.n) == 1


def test_instances_are_what_they_were_while_their_class_counts(pool: Pool) -> None:
    for _ in range(3):
        made = Counted()  # which changes Counted.made
        assert pool.apply(is_counted, (made,))
        assert pool.apply(lambda value: isinstance(value, Counted), (made,))
        assert type(pool.apply(lambda: copy.copy(Counted()))) is Counted
        assert pool.apply(lambda: Counted.made) == Counted.made


def test_pickling_instances_changes_no_class(pool: Pool) -> None:
    for _ in range(3):
        assert pool.apply(copy.copy, (User(),)) is not None  # sets User.__slotnames__
    registry = pool._registry
    assert registry.standing(User) == 0
    assert not registry.snapshot.classes[id(User)].drifted


def test_a_class_of_the_main_program(tmp_path: Path) -> None:
    script = program(
        tmp_path / "main.py",
        """
        from libpool import Pool

        class C:
            n = 1
            def read(self):
                return self.n

        def f():
            return C.n

        def h():
            return getattr(h, "attr", 1)

        def g(c):
            return c.n, isinstance(c, C)

        if __name__ == "__main__":
            with Pool(2) as p:
                for n in (1, 2, 3, 1):
                    C.n = h.attr = n
                    for _ in range(3):
                        got = [p.apply(f), p.apply(lambda: C.n), p.apply(C().read), p.apply(h)]
                        assert got == [n] * 4, got
                        assert p.apply(g, (C(),)) == (n, True)
        """,
    )
    assert run(script) == ""


def test_attributes_of_a_function(pool: Pool) -> None:
    def mark(value: object) -> Callable[[], None]:
        return lambda: setattr(marked, "mark", value)

    check_change(lambda: pool.apply(marked), None, mark(2), 2)
    check_change(lambda: pool.apply(reads_mark), 2, mark(3), 3)
    check_change(lambda: pool.apply(lambda: marked()), 3, mark(4), 4)
    asks = lambda: getattr(marked, "other", 0)  # noqa: E731
    check_change(lambda: pool.apply(asks), 0, lambda: setattr(marked, "other", 1), 1)
    del marked.other  # type: ignore[attr-defined]
    del marked.mark  # type: ignore[attr-defined]
    assert pool.apply(marked) is None
    with pytest.raises(AttributeError):
        pool.apply(reads_mark)


def test_an_attribute_that_a_function_reads_comes_later(pool: Pool) -> None:
    for _ in range(3):
        with pytest.raises(AttributeError):
            pool.apply(reads_mark)
    marked.mark = 1  # type: ignore[attr-defined]
    assert [pool.apply(reads_mark) for _ in range(3)] == [1] * 3


# ---- What can't be unpickled in the worker ------------------------------------------------------


class BadLoad:
    def __reduce__(self) -> tuple[Any, ...]:
        return _fail, ()


class BadFunction(BadLoad):
    def __call__(self) -> None: ...


def _fail() -> None:
    raise ValueError("cannot be made")


def notes_of(future: Any) -> list[str]:
    error = future.exception(timeout=20)
    assert type(error) is ValueError
    return list(error.__notes__)


def first(value: object, *_: object, **__: object) -> object:
    return value


def test_an_argument_that_can_not_be_unpickled_names_the_function(workers: Any) -> None:
    note = ["raised while the arguments of <built-in function id> were unpickled"]
    assert notes_of(workers.submit(id, BadLoad())) == note
    for args, kwargs in [
        ([BadLoad()], {}),
        ([1, [BadLoad()], "x"], {}),
        ([1] * 20 + [BadLoad()], {}),
        ([1], {"a": BadLoad()}),
    ]:
        (told,) = notes_of(workers.submit(first, *args, **kwargs))
        assert told.startswith("raised while the arguments of <function first at 0x")
        assert told.endswith("> were unpickled")
    assert workers.submit(first, 1).result() == 1


def test_an_item_that_can_not_be_unpickled_names_the_function(
    pool: Pool, executor: Executor
) -> None:
    for call in (
        lambda: pool.map(first, [BadLoad(), 1]),
        lambda: pool.starmap(first, [(BadLoad(),), (1,)]),
        lambda: list(executor.map(first, [BadLoad(), 1], chunksize=2)),
        lambda: list(executor.map(first, [BadLoad(), 1])),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert "the arguments of <function first at" in caught.value.__notes__[0]


def test_a_function_that_can_not_be_unpickled_says_so(workers: Any) -> None:
    bad = BadFunction()
    assert notes_of(workers.submit(bad)) == ["raised while the function was unpickled"]

    def captures() -> object:
        return bad

    assert notes_of(workers.submit(captures)) == ["raised while the function was unpickled"]


# ---- Groups of exceptions -----------------------------------------------------------------------


class TwoArguments(Exception):
    """Can't be unpickled the usual way: `args` are not what __init__ takes."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ({code})")
        self.code = code


class Doubling(Exception):
    """Unpickled the usual way it has another message."""

    def __init__(self, message: str) -> None:
        super().__init__(f"[{message}]")


class Unmakeable(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("no pickle of me")

    def __new__(cls, *args: object) -> Unmakeable:
        raise RuntimeError("no copy of me")


def _raise_group() -> None:
    special = TwoArguments("a", 5)
    special.add_note("noted")
    inner = ExceptionGroup("inner", [special, KeyError("k")])
    raise ExceptionGroup("outer", [inner, Doubling("d"), ValueError(1)])


def test_a_group_arrives_with_the_exceptions_in_it(workers: Any) -> None:
    error = workers.submit(_raise_group).exception()
    assert type(error) is ExceptionGroup and error.message == "outer"
    inner, doubling, value = error.exceptions
    assert type(inner) is ExceptionGroup and inner.message == "inner"
    special, key = inner.exceptions
    assert type(special) is TwoArguments and special.code == 5 and str(special) == "a (5)"
    assert special.__notes__ == ["noted"]
    assert type(key) is KeyError and key.args == ("k",)
    assert type(doubling) is Doubling and str(doubling) == "[d]"
    assert type(value) is ValueError and value.args == (1,)


def test_a_group_of_what_ends_programs(workers: Any) -> None:
    def job() -> None:
        raise BaseExceptionGroup("all", [KeyboardInterrupt(), TwoArguments("a", 1)])

    error = workers.submit(job).exception()
    assert type(error) is BaseExceptionGroup
    assert [type(one) for one in error.exceptions] == [KeyboardInterrupt, TwoArguments]


def test_a_part_of_a_group_that_can_not_be_sent_has_a_stand_in(workers: Any) -> None:
    def job() -> None:
        raise ExceptionGroup("some", [Exception.__new__(Unmakeable), ValueError(2)])

    error = workers.submit(job).exception()
    assert type(error) is ExceptionGroup
    stand_in, value = error.exceptions
    assert type(stand_in) is RemoteError and "Unmakeable" in str(stand_in)
    assert value.args == (2,)


def test_an_exception_among_the_arguments_of_another(workers: Any) -> None:
    def job() -> None:
        raise ValueError("because", TwoArguments("a", 5))

    error = workers.submit(job).exception()
    assert type(error) is ValueError
    assert type(error.args[1]) is TwoArguments and error.args[1].code == 5


# ---- Pools in jobs ------------------------------------------------------------------------------


def _use_a_pool_of_its_own(started: Gate, held: Gate, n: int) -> tuple[int, list[int]]:
    pass_gates(started, held)
    with Pool(2) as inner:
        squares = inner.map(lambda x: x * x + n, range(20))
        assert inner.apply(len, ("abc",)) == 3
    return os.getpid(), squares


def test_each_worker_can_make_a_pool(started: Gate, held: Gate) -> None:
    with Pool(3) as pool:
        for _ in range(3):
            futures = [pool.submit(_use_a_pool_of_its_own, started, held, n) for n in range(3)]
            for _ in futures:
                started.wait_for()
            held.open(3)
            results = [future.result(timeout=30) for future in futures]
            assert len({pid for pid, _ in results}) == 3
            assert [squares for _, squares in results] == [
                [x * x + n for x in range(20)] for n in range(3)
            ]


# ---- The supervisor's death and watched futures -------------------------------------------------


def _kill_supervisor(workers: Any) -> float:
    os.kill(workers.supervisor_pid, signal.SIGKILL)
    return time.monotonic()


def test_wait_ends_with_the_supervisor(started: Gate, held: Gate, workers: Any) -> None:
    futures = [workers.submit(pass_gates, started, held) for _ in range(20)]
    started.wait_for()
    killed = _kill_supervisor(workers)
    done, _ = concurrent.futures.wait(futures, timeout=10)
    assert time.monotonic() - killed < SECOND
    assert done == set(futures)
    assert {type(future.exception(0)) for future in futures} == {BrokenPool}


def test_as_completed_ends_with_the_supervisor(started: Gate, held: Gate, workers: Any) -> None:
    futures = [workers.submit(pass_gates, started, held) for _ in range(20)]
    started.wait_for()
    killed = _kill_supervisor(workers)
    ended = list(concurrent.futures.as_completed(futures, timeout=10))
    assert time.monotonic() - killed < SECOND
    assert len(ended) == 20
    assert {type(future.exception(0)) for future in ended} == {BrokenPool}


def test_asyncio_hears_of_the_supervisors_end(started: Gate, held: Gate, workers: Any) -> None:
    async def main() -> list[object]:
        futures = [workers.submit(pass_gates, started, held) for _ in range(20)]
        wrapped = [asyncio.wrap_future(future) for future in futures]
        started.wait_for()
        _kill_supervisor(workers)
        async with asyncio.timeout(10):
            return await asyncio.gather(*wrapped, return_exceptions=True)

    begun = time.monotonic()
    assert {type(error) for error in asyncio.run(main())} == {BrokenPool}
    assert time.monotonic() - begun < 2 * SECOND


def test_callbacks_hear_of_the_supervisors_end(started: Gate, held: Gate, workers: Any) -> None:
    futures = [workers.submit(pass_gates, started, held) for _ in range(20)]
    heard: list[object] = []
    for future in futures:
        future.add_done_callback(lambda one: heard.append(type(one.exception(0))))
    started.wait_for()
    _kill_supervisor(workers)
    until(lambda: len(heard) == 20, timeout=SECOND)
    assert set(heard) == {BrokenPool}


# ---- Jobs with a time limit ---------------------------------------------------------------------


def _wait_for_nested(started: Gate, held: Gate) -> object:
    pool = libpool.current()
    assert pool is not None
    return pool.submit(pass_gates, started, held, "nested").result()


def test_a_job_with_a_limit_is_not_kept_waiting_by_a_job_that_waits(
    started: Gate, held: Gate
) -> None:
    with Pool(3) as pool:
        waiting = pool.submit(_wait_for_nested, started, held)
        started.wait_for()
        limited = pool.options(timeout=30)
        for n in range(30):
            begun = time.monotonic()
            assert limited.submit(first, n).result(timeout=20) == n
            assert time.monotonic() - begun < SECOND
            time.sleep(n % 3 * 0.001)  # so that workers begin to sleep, or don't
        held.open()
        assert waiting.result(timeout=20) == "nested"


# ---- The end of the host ------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_workers_that_gave_up_root_end_with_the_supervisor() -> None:
    with Executor(3, initializer=os.setuid, initargs=(65534,)) as executor:
        assert executor.submit(os.getuid).result(timeout=20) == 65534
        until(lambda: len(executor.worker_pids()) == 3)
        pids = executor.worker_pids()
        _kill_supervisor(executor)
        assert remaining_after(pids, SECOND) == set()


EXEC = """
    import os, sys
    from libpool import Executor, Pool

    if __name__ == "__main__":
        pool = {kind}(3)
        assert pool.submit(len, "abc").result() == 3
        {busy}
        print(pool.supervisor_pid, *pool.worker_pids(), flush=True)
        sys.stdin.readline()
        os.execv(sys.executable, [sys.executable, "-c", "print('new', flush=True); input()"])
"""


@pytest.mark.parametrize("kind", ["Pool", "Executor"])
@pytest.mark.parametrize("busy", ["", "pool.submit(__import__('time').sleep, 30)"])
def test_a_host_that_becomes_another_program_ends_the_pool(
    tmp_path: Path, kind: str, busy: str
) -> None:
    host = start(program(tmp_path / "host.py", EXEC.format(kind=kind, busy=busy)), stdin=-1)
    assert host.stdin is not None and host.stdout is not None
    try:
        pids = [int(pid) for pid in host.stdout.readline().split()]
        assert len(pids) > 1 and descendants(host.pid) >= set(pids)
        host.stdin.write("\n")
        host.stdin.flush()
        assert host.stdout.readline() == "new\n"
        assert remaining_after(pids, SECOND) == set()
        assert is_alive(host.pid)
    finally:
        host.kill()
        host.communicate()
