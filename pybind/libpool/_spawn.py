"""Start methods: workers that are forks of this process, or of an interpreter of their own.

``fork``
    The supervisor is a fork of this process.
``spawn``
    The supervisor is a new interpreter, which imports nothing of the program. Each worker, once it
    is forked, prepares `__main__` for itself.
``forkserver``
    The supervisor is a new interpreter, which prepares `__main__`, or what
    `multiprocessing.set_forkserver_preload()` says. Workers are forks of that.

`__main__` is prepared by `multiprocessing.spawn`. This module imports `multiprocessing` only where
it is needed: many programs that use the start method ``fork`` do without.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import traceback
from collections import ChainMap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from libpool import _core, _pickling
from libpool._main_source import MainSource
from libpool._snapshot import ImportedSnapshot, Snapshot

if TYPE_CHECKING:
    from libpool._functions import Registry
    from libpool._lifetime import Base

__all__ = ["Plan", "choose_method", "main", "make_launch", "make_snapshot", "refuse_in_preparation"]

METHODS = ("fork", "forkserver", "spawn")

_preparing = False
"""A worker or supervisor that libpool started imports the program's `__main__` now."""


def choose_method(context: Any = None) -> str:
    """Decide how to start the workers.

    Parameters
    ----------
    context : multiprocessing context, optional
        Its start method is used. Default: what `multiprocessing.set_start_method()` chose, or
        ``fork`` while this process has one thread, else ``forkserver``.

    Returns
    -------
    str
        One of ``fork``, ``forkserver`` and ``spawn``.

    Raises
    ------
    ValueError
        The context has another start method.
    """
    method = context.get_start_method() if context is not None else _chosen_method()
    if method is None:
        method = "fork" if _thread_count() == 1 else "forkserver"
    if method not in METHODS:
        raise ValueError(f"libpool has the start methods {', '.join(METHODS)}, not {method!r}")
    return str(method)


def _chosen_method() -> str | None:
    module = sys.modules.get("multiprocessing.context")
    if module is None:
        return None
    method: str | None = module._default_context.get_start_method(allow_none=True)
    return method


def _thread_count() -> int:
    """Threads that run Python code, other than libpool's own, which hold no locks for long."""
    own = [one for one in threading.enumerate() if one.name.startswith("libpool-")]
    return len(sys._current_frames()) - len(own)


def refuse_in_preparation() -> None:
    """Raise what `multiprocessing` raises where `__main__` lacks its guard.

    With ``fork``, multiprocessing has no such check and needs none.
    """
    if _preparing:
        from multiprocessing import spawn

        spawn._check_not_importing_main()  # type: ignore[attr-defined]


# ---- In the host --------------------------------------------------------------------------------


class Plan(NamedTuple):
    """What the new interpreter is told, in terms of built-in types only."""

    method: str
    token: str
    memory_limit: int
    name: str
    """What ps and top show of workers, with a number."""
    preparation: dict[str, Any]
    """Of `multiprocessing.spawn.get_preparation_data()`."""
    preload: list[str]
    tracker: int
    """The descriptor to `multiprocessing.resource_tracker`."""
    descriptors: list[int]
    start: bytes
    """The pickled (initializer, initargs)."""


class _Inherited:
    """A descriptor that a worker inherits."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def detach(self) -> int:
        return self.descriptor


class _Popen:
    """Stands for the process to be started, while multiprocessing's objects are pickled for it."""

    DupFd = _Inherited

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return descriptor


def make_snapshot(method: str) -> Snapshot:
    """What the workers will know."""
    if method == "fork":
        return Snapshot()
    return ImportedSnapshot(_main_source(_preparation("")))


def make_launch(
    kind: type[Base],
    method: str,
    registry: Registry,
    memory_limit: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    name: str,
) -> tuple[tuple[bytes, ...], bytes, tuple[int, ...]]:
    """Make what `_core.Workers._start` takes as `launch`.

    Raises
    ------
    Exception
        The initializer or its arguments can't be pickled.
    """
    from multiprocessing import context, resource_tracker

    popen = _Popen()
    context.set_spawning_popen(popen)  # type: ignore[arg-type]
    try:
        plan = Plan(
            method,
            registry.token,
            memory_limit,
            name,
            _preparation(name),
            _preload(),
            resource_tracker.getfd() or -1,
            popen.descriptors,
            _dumps_start(registry, (initializer, initargs)),
        )
        payload = pickle.dumps(tuple(plan), _pickling.PROTOCOL)
    finally:
        context.set_spawning_popen(None)
    return _command(kind), payload, (*popen.descriptors, plan.tracker)


def _preparation(name: str) -> dict[str, Any]:
    from multiprocessing import context, spawn

    default = context._default_context
    chosen = default.get_start_method(allow_none=True)
    data = spawn.get_preparation_data(name)
    if chosen is None:
        # It has fixed the program's start method by asking for it.
        default.set_start_method(None, force=True)
        del data["start_method"]
    path = data.get("init_main_from_path")
    if path is not None and not os.path.isfile(path):
        del data["init_main_from_path"]  # "<stdin>"
    return data


def _main_source(preparation: dict[str, Any]) -> MainSource | None:
    """The source of the `__main__` that the workers will have; None: they will have none."""
    name: str | None = preparation.get("init_main_from_name")
    path: str | None = preparation.get("init_main_from_path")
    if name is not None and name != "__main__" and not name.endswith(".__main__"):
        path = getattr(sys.modules["__main__"], "__file__", None)
    elif path is None or os.path.splitext(os.path.basename(path))[0] == "ipython":
        return None
    return None if path is None else MainSource.read(path)


def _preload() -> list[str]:
    """The modules that multiprocessing's fork server would load."""
    module = sys.modules.get("multiprocessing.forkserver")
    names = ["__main__"] if module is None else module._forkserver._preload_modules
    return list(names)


def _command(kind: type[Base]) -> tuple[bytes, ...]:
    from multiprocessing import spawn, util

    executable = spawn.get_executable()
    if not executable:
        raise RuntimeError("multiprocessing.spawn.get_executable() names no interpreter")
    name = next(one.__name__ for one in kind.__mro__ if one.__module__.startswith("libpool."))
    # libpool is to be found there as it was found here.
    path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    code = f"import sys; sys.path = {path!r}; from libpool._spawn import main; main({name!r})"
    flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return tuple(map(os.fsencode, [executable, *flags, "-c", code, "--multiprocessing-fork"]))


def _dumps_start(registry: Registry, start: tuple[Any, ...]) -> bytes:
    from multiprocessing import reduction

    class Pickler(_pickling.Pickler):
        dispatch_table = ChainMap(
            reduction.ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
            _pickling.Pickler.dispatch_table,
        )

    return _pickling.dumps(start, [registry], Pickler)


# ---- In the new interpreter ---------------------------------------------------------------------


class _WorkerRegistry:
    """The registry of a worker: it can be made only when `__main__` is there."""

    actual: Registry

    def describe(self, fn: Callable[..., Any]) -> tuple[bytes, tuple[tuple[Any, ...], ...] | None]:
        return self.actual.describe(fn)


def main(kind: str) -> None:
    """Be the supervisor of the pool whose descriptor is the last argument."""
    import libpool

    cls: type[Base] = getattr(libpool, kind)
    workers = cls.__new__(cls)
    plan = Plan(*pickle.loads(workers._attach(int(sys.argv[-1]))))
    workers._attached()
    from libpool import _lifetime

    _lifetime.detach_stdin()
    for descriptor in plan.descriptors:
        os.set_inheritable(descriptor, False)
    from multiprocessing import resource_tracker

    os.set_inheritable(plan.tracker, False)
    resource_tracker._resource_tracker._fd = plan.tracker  # type: ignore[attr-defined]
    start = _Start(workers, plan)
    if plan.method == "forkserver":
        start.preload()
    workers._serve(start, _lifetime._end_work, start.registry)


class _Start:
    """What a worker does first."""

    def __init__(self, workers: Base, plan: Plan) -> None:
        self.workers = workers
        self.plan = plan
        self.registry = _WorkerRegistry()
        self.prepared = False

    def preload(self) -> None:
        """Prepare what all workers will have, in the supervisor."""
        sys.path[:] = self.plan.preparation["sys_path"]
        for name in self.plan.preload:
            if name == "__main__":
                self.prepare()
            else:
                with contextlib.suppress(ImportError):  # as the fork server does
                    __import__(name)

    def prepare(self) -> None:
        """Prepare `__main__`, and all else that multiprocessing hands on."""
        from multiprocessing import spawn

        with _inheriting():
            spawn.prepare(self.plan.preparation)
        self.prepared = True

    def __call__(self, worker: int) -> None:
        from libpool import _lifetime

        _lifetime.enter_worker(self.plan.token, self.plan.memory_limit, self.plan.name, worker)
        try:
            initializer, initargs = self.load(worker)
        except BaseException:
            traceback.print_exc()
            _lifetime.flush()
            os._exit(_core.EXIT_HOPELESS)
        _lifetime.initialize(initializer, initargs)

    def load(self, worker: int) -> tuple[Callable[..., object] | None, tuple[Any, ...]]:
        """Make the initializer, and what it and the jobs need."""
        from libpool._functions import Registry

        if not self.prepared:
            self.plan.preparation["name"] = f"{self.plan.name}-{worker}"
            self.prepare()
        self.registry.actual = Registry(Snapshot(), self.plan.token)
        self.workers._registry = self.registry.actual
        with _inheriting():
            start: tuple[Callable[..., object] | None, tuple[Any, ...]]
            start = pickle.loads(self.plan.start)
        return start


@contextlib.contextmanager
def _inheriting() -> Iterator[None]:
    global _preparing
    from multiprocessing import process

    _preparing = True
    process.current_process()._inheriting = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined]
        _preparing = False
