"""The same calls on the imitated classes and on libpool's have the same outcome."""

from __future__ import annotations

import concurrent.futures
import inspect
import multiprocessing
import multiprocessing.pool
import operator
from collections.abc import Callable
from typing import Any

import pytest

import libpool
from libpool._imap import IMapIterator

FORK = multiprocessing.get_context("fork")

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def make_process_pool_executor(*args: Any, **kwargs: Any) -> Any:
    return concurrent.futures.ProcessPoolExecutor(*args, mp_context=FORK, **kwargs)


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call returns or raises, in comparable form."""
    try:
        result = call()
    except BaseException as error:
        return type(error).__name__, str(error)
    return "returns", result


class Fancy(Exception):
    def __init__(self, *args: object, extra: int = 0) -> None:
        super().__init__(*args)
        self.extra = extra


def fancy(x: int) -> None:
    raise Fancy("text", x, extra=5)


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def reciprocal(x: int) -> float:
    return 1 / x


def generate() -> Any:
    yield 1
    raise KeyError("in the middle")


EXECUTOR_CALLS: dict[str, Callable[[Any], Any]] = {
    "submit": lambda ex: ex.submit(echo, 1, a=2).result(),
    "submit keyword fn": lambda ex: ex.submit(echo, fn=1, self=2).result(),
    "submit nothing": lambda ex: type(_error(lambda: ex.submit())),
    "error": lambda ex: ex.submit(reciprocal, 0).result(),
    "error with attributes": lambda ex: (lambda e: (e.args, e.extra))(
        ex.submit(fancy, 1).exception()
    ),
    "no error": lambda ex: ex.submit(echo).exception(),
    "not callable": lambda ex: type(_error(lambda: ex.submit(5).result())),
    "map": lambda ex: list(ex.map(pow, [1, 2, 3], [4, 5, 6, 7])),
    "map in chunks": lambda ex: list(ex.map(pow, [1, 2, 3], [4, 5, 6, 7], chunksize=2)),
    "map with an error": lambda ex: list(ex.map(reciprocal, [1, 0])),
    "map with an error in chunks": lambda ex: list(ex.map(reciprocal, [1, 0], chunksize=2)),
    "map of nothing": lambda ex: list(ex.map(echo, [])),
    "map without iterables": lambda ex: list(ex.map(echo)),
    "map of no iterable": lambda ex: ex.map(echo, 5),
    "map of a generator that fails": lambda ex: list(ex.map(echo, generate())),
    "map chunksize 0": lambda ex: ex.map(echo, [1], chunksize=0),
    "map chunksize -1": lambda ex: ex.map(echo, [1], chunksize=-1),
    "map huge chunks": lambda ex: list(ex.map(echo, [1, 2], chunksize=10**9)),
    "map with a timeout": lambda ex: list(ex.map(reciprocal, [1, 2], timeout=60)),
    "result, timeout": lambda ex: ex.submit(echo).result(timeout=60),
    "cancel a finished one": lambda ex: _finished(ex.submit(echo)).cancel(),
    "state": lambda ex: (lambda f: (f.done(), f.running(), f.cancelled()))(
        _finished(ex.submit(echo))
    ),
    "repr": lambda ex: repr(_finished(ex.submit(echo))).split(" ", 3)[3:],
    "lock": lambda ex: type(ex.submit(echo, __import__("threading").Lock()).exception()),
    "exit": lambda ex: ex.submit(exit, 3).result(),
    "interrupt": lambda ex: ex.submit(_raise, KeyboardInterrupt).result(),
    "stop iteration": lambda ex: ex.submit(next, iter([])).result(),
    "set result": lambda ex: _finished(ex.submit(echo)).set_result(1),
    "after shutdown": lambda ex: (ex.shutdown(), ex.submit(echo)),
    "map after shutdown": lambda ex: (ex.shutdown(), ex.map(echo, [1])),
    "shutdown twice": lambda ex: (ex.shutdown(), ex.shutdown(wait=False, cancel_futures=True)),
    "context": lambda ex: ex.__enter__() is ex and ex.__exit__(None, None, None),
}


def _raise(kind: type[BaseException]) -> None:
    raise kind


def _error(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _finished(future: Any) -> Any:
    future.exception(timeout=60)
    return future


@pytest.mark.parametrize("name", EXECUTOR_CALLS)
def test_executor_does_what_process_pool_executor_does(name: str) -> None:
    call = EXECUTOR_CALLS[name]
    outcomes = []
    for make in (make_process_pool_executor, libpool.Executor):
        executor = make(2)
        outcomes.append(outcome(lambda executor=executor: call(executor)))
        executor.shutdown()
    theirs, ours = outcomes
    if name == "set result":  # the text has the future's address
        theirs, ours = theirs[:1], ours[:1]
    assert ours == theirs


@pytest.mark.parametrize(
    "kwargs",
    [
        {"max_workers": 0},
        {"max_workers": -1},
        {"max_workers": "2"},
        {"max_workers": 1, "initializer": 5},
        {"max_workers": 1, "nonsense": 5},
    ],
    ids=repr,
)
def test_executor_refuses_what_process_pool_executor_refuses(kwargs: Any) -> None:
    kind, text = outcome(lambda: make_process_pool_executor(**kwargs))
    assert kind != "returns"
    ours = outcome(lambda: libpool.Executor(**kwargs))
    assert ours[0] == kind
    if kind != "TypeError" or "initializer must" in text:
        assert ours == (kind, text)


POOL_CALLS: dict[str, Callable[[Any], Any]] = {
    "apply": lambda pool: pool.apply(echo, (1,), {"a": 2}),
    "apply list": lambda pool: pool.apply(echo, [1, 2]),
    "apply nothing": lambda pool: pool.apply(echo),
    "apply error": lambda pool: pool.apply(reciprocal, (0,)),
    "apply not callable": lambda pool: type(_error(lambda: pool.apply(5))),
    "map": lambda pool: pool.map(abs, [3, -1, 2]),
    "map any iterable": lambda pool: pool.map(abs, iter({1: 2, 3: 4})),
    "map of nothing": lambda pool: pool.map(abs, []),
    "map of no iterable": lambda pool: pool.map(abs, 5),
    "map error": lambda pool: pool.map(reciprocal, [1, 0, 2]),
    "map of a generator that fails": lambda pool: pool.map(abs, generate()),
    "map chunksize": lambda pool: pool.map(abs, range(10), 3),
    "map chunksize keyword": lambda pool: pool.map(func=abs, iterable=range(10), chunksize=99),
    "starmap": lambda pool: pool.starmap(pow, [(1, 2), [3, 4], iter((5, 6))][:2]),
    "starmap of bad items": lambda pool: pool.starmap(abs, [1, 2]),
    "starmap chunksize": lambda pool: pool.starmap(operator.add, [(1, 2)] * 10, 4),
    "apply_async": lambda pool: pool.apply_async(echo, (1,), {"a": 2}).get(60),
    "apply_async error": lambda pool: pool.apply_async(reciprocal, (0,)).get(),
    "apply_async, no success": lambda pool: _waited(pool.apply_async(abs, "x")).successful(),
    "apply_async, success": lambda pool: _waited(pool.apply_async(abs, (1,))).successful(),
    "apply_async closed": lambda pool: (pool.close(), pool.apply_async(abs, (1,))),
    "map_async": lambda pool: pool.map_async(abs, [3, -1, 2]).get(),
    "map_async of nothing": lambda pool: pool.map_async(abs, [], callback=1 / 1).get(),
    "map_async of no iterable": lambda pool: pool.map_async(abs, 5),
    "map_async error": lambda pool: pool.map_async(reciprocal, [1, 0, 2]).get(),
    "map_async closed": lambda pool: (pool.close(), pool.map_async(abs, [])),
    "starmap_async": lambda pool: pool.starmap_async(pow, [(1, 2), [3, 4]], 1).get(),
    "callbacks": lambda pool: _called_back(pool, abs, [1, -2]),
    "error callbacks": lambda pool: _called_back(pool, reciprocal, [1, 0]),
    "callbacks of nothing": lambda pool: _called_back(pool, abs, []),
    "imap": lambda pool: list(pool.imap(abs, [3, -1, 2])),
    "imap of nothing": lambda pool: list(pool.imap(abs, [])),
    "imap of no iterable": lambda pool: list(pool.imap(abs, 5)),
    "imap chunksize": lambda pool: list(pool.imap(abs, range(10), 3)),
    "imap error": lambda pool: _outcomes(pool.imap(reciprocal, [1, 0, 2])),
    "imap of a generator that fails": lambda pool: _outcomes(pool.imap(abs, generate(), 1)),
    "imap in chunks of a generator that fails": lambda pool: outcome(
        lambda: list(pool.imap(abs, generate(), 2))
    ),
    "imap closed": lambda pool: (pool.close(), pool.imap(abs, [])),
    "imap, then close": lambda pool: _closed(pool, pool.imap(abs, range(1000))),
    "imap, then close and join": lambda pool: _joined(pool, pool.imap(abs, range(10_000))),
    "imap_unordered": lambda pool: sorted(pool.imap_unordered(abs, [3, -1, 2])),
    "imap_unordered of no iterable": lambda pool: list(pool.imap_unordered(abs, 5)),
    "imap_unordered closed": lambda pool: (pool.close(), pool.imap_unordered(abs, [])),
    "map chunksize 0": lambda pool: type(_error(lambda: pool.imap(abs, [1], 0))),
    "imap chunksize 0": lambda pool: pool.imap(abs, [1], 0),
    "imap_unordered chunksize 0": lambda pool: pool.imap_unordered(abs, [1], 0),
    "pickle": lambda pool: pool.__reduce__(),
    "close": lambda pool: pool.close(),
    "close twice": lambda pool: (pool.close(), pool.close()),
    "terminate twice": lambda pool: (pool.terminate(), pool.terminate()),
    "join running": lambda pool: pool.join(),
    "apply closed": lambda pool: (pool.close(), pool.apply(abs, (1,))),
    "map closed": lambda pool: (pool.close(), pool.map(abs, [])),
    "map terminated": lambda pool: (pool.terminate(), pool.map(abs, [1])),
    "starmap closed": lambda pool: (pool.close(), pool.starmap(abs, [])),
    "enter closed": lambda pool: (pool.close(), pool.__enter__()),
    "context": lambda pool: pool.__enter__() is pool and pool.__exit__(None, None, None),
    "closed, terminated": lambda pool: (pool.close(), pool.terminate()),
}


def _waited(result: Any) -> Any:
    result.wait(60)
    assert result.ready()
    return result


def _called_back(pool: Any, fn: Callable[[int], Any], items: list[int]) -> Any:
    told: list[Any] = []
    result = pool.map_async(fn, items, 1, told.append, lambda error: told.append(repr(error)))
    result.wait(60)
    return told


def _outcomes(iterator: Any) -> list[tuple[str, Any]]:
    found = []
    while not found or found[-1][0] != "StopIteration":
        found.append(outcome(lambda: next(iterator)))
    return found


def _closed(pool: Any, iterator: Any) -> list[Any]:
    pool.close()
    return [outcome(lambda: pool.apply(abs, (1,))), list(iterator)]


def _joined(pool: Any, iterator: Any) -> list[Any]:
    pool.close()
    pool.join()
    return list(iterator)


@pytest.mark.parametrize("name", POOL_CALLS)
def test_pool_does_what_multiprocessing_pool_does(name: str) -> None:
    call = POOL_CALLS[name]
    outcomes = []
    for make in (FORK.Pool, libpool.Pool):
        pool = make(2)
        outcomes.append(outcome(lambda pool=pool: call(pool)))
        pool.terminate()
        pool.join()
    theirs, ours = outcomes
    assert ours == theirs


@pytest.mark.parametrize(
    "kwargs",
    [
        {"processes": 0},
        {"processes": -1},
        {"processes": "2"},
        {"processes": 1, "initializer": 5},
        {"processes": 1, "nonsense": 5},
    ],
    ids=repr,
)
def test_pool_refuses_what_multiprocessing_pool_refuses(kwargs: Any) -> None:
    kind, text = outcome(lambda: FORK.Pool(**kwargs))
    assert kind != "returns"
    ours = outcome(lambda: libpool.Pool(**kwargs))
    assert ours[0] == kind
    if kind != "TypeError" or "initializer must" in text:
        assert ours == (kind, text)


MORE = {"self", "buffersize", "progress"}
"""Parameters that only some have."""


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (libpool.Executor.map, concurrent.futures.ProcessPoolExecutor.map),
        (libpool.Executor.shutdown, concurrent.futures.ProcessPoolExecutor.shutdown),
        (libpool.Pool.apply, multiprocessing.pool.Pool.apply),
        (libpool.Pool.map, multiprocessing.pool.Pool.map),
        (libpool.Pool.starmap, multiprocessing.pool.Pool.starmap),
        (libpool.Pool.apply_async, multiprocessing.pool.Pool.apply_async),
        (libpool.Pool.map_async, multiprocessing.pool.Pool.map_async),
        (libpool.Pool.starmap_async, multiprocessing.pool.Pool.starmap_async),
        (libpool.AsyncResult.get, multiprocessing.pool.AsyncResult.get),
        (libpool.AsyncResult.wait, multiprocessing.pool.AsyncResult.wait),
        (libpool.AsyncResult.ready, multiprocessing.pool.AsyncResult.ready),
        (libpool.AsyncResult.successful, multiprocessing.pool.AsyncResult.successful),
        (IMapIterator.next, multiprocessing.pool.IMapIterator.next),
        (libpool.Pool.close, multiprocessing.pool.Pool.close),
        (libpool.Pool.terminate, multiprocessing.pool.Pool.terminate),
    ],
    ids=lambda method: method.__qualname__,
)
def test_signatures_are_the_same(ours: Any, theirs: Any) -> None:
    def parameters(method: Any) -> list[tuple[str, Any, Any]]:
        found = inspect.signature(method).parameters.values()
        return [(p.name, p.kind, p.default) for p in found if p.name not in MORE]

    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_signatures_differ_in_the_default_chunk_size_only(name: str) -> None:
    ours = inspect.signature(getattr(libpool.Pool, name)).parameters
    theirs = inspect.signature(getattr(multiprocessing.pool.Pool, name)).parameters
    assert [name for name in ours if name not in MORE] == [n for n in theirs if n != "self"]
    assert (ours["chunksize"].default, theirs["chunksize"].default) == (None, 1)
