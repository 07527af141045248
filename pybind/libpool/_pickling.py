"""Pickles of what plain pickle can't send, or would send wrongly."""

from __future__ import annotations

import dis
import importlib
import io
import operator
import os
import pickle
import re
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, cast

import cloudpickle.cloudpickle as cloudpickle

from libpool import _core
from libpool._errors import RemoteError, RemoteTraceback, short_repr
from libpool._names import Chain, names_of
from libpool._snapshot import DRIFTED, SAME, cell_contents, cells_of
from libpool._sources import Lines, lines_of, remember
from libpool._tensors import reducer

if TYPE_CHECKING:
    from libpool._functions import Registry

__all__ = [
    "PatchedModule",
    "Pickler",
    "dumps",
    "dumps_exception",
    "enter_worker",
    "keep_globals",
    "loads_exception",
    "registries",
    "stored_globals",
]

PROTOCOL = 5

registries: weakref.WeakSet[Registry] = weakref.WeakSet()
"""The registries of all pools of this process that take jobs."""

_own_token: str | None = None
"""In a worker: the token of its pool's registry."""


def dumps(
    obj: Any,
    known_to: Iterable[Registry] | None = None,
    kind: type[Pickler] | None = None,
    buffer_callback: Any = None,
) -> bytes:
    """Pickle anything that can be pickled, functions and classes also by value.

    Parameters
    ----------
    obj : object
        What to pickle.
    known_to : iterable of Registry, optional
        The pools whose workers may get it: what all of these know is sent by reference. By
        default all pools of this process.
    kind : type, optional
        Of the pickler.
    buffer_callback : callable, optional
        As of `pickle.Pickler`, with a method ``clear`` that forgets what it was called with.

    Raises
    ------
    Exception
        Whatever pickling raises, with a note that names the object.
    """
    known_to = list(registries) if known_to is None else list(known_to)
    if buffer_callback is not None:
        buffer_callback.clear()  # plain pickle may have been tried before
    kind = kind or Pickler
    pickler = kind(known_to, buffer_callback=buffer_callback)
    try:
        return pickler.dumps(obj)
    except Exception as error:
        if pickler.met_drifted:
            # By value would be better, for the data has changed; but the workers have their own.
            if buffer_callback is not None:
                buffer_callback.clear()
            try:
                return kind(known_to, False, buffer_callback).dumps(obj)
            except Exception:
                pass
        error.add_note(f"libpool could not pickle {_name_culprit(obj, known_to, kind)}")
        raise


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends functions and classes by reference where all of `known_to` have the same one.

    A class that only some of them have goes in both ways, and each worker takes the right one.

    Attributes
    ----------
    met_drifted : bool
        Whether something was sent by value only since data around it has changed.
    """

    def __init__(
        self,
        known_to: Iterable[Registry],
        by_value_if_drifted: bool = True,
        buffer_callback: Any = None,
    ) -> None:
        self._buffer = io.BytesIO()
        super().__init__(self._buffer, protocol=PROTOCOL, buffer_callback=buffer_callback)
        self._known_to = list(known_to)
        self._tolerated = SAME if by_value_if_drifted else DRIFTED
        self._standing: dict[int, tuple[int, Any]] = {}
        self._namespaces: dict[int, _KeptGlobals] = {}
        self.met_drifted = False

    def dumps(self, obj: Any) -> bytes:
        self.dump(obj)
        return self._buffer.getvalue()

    def _by_reference(self, obj: Any) -> bool:
        if not self._known_to:
            return bool(cloudpickle._should_pickle_by_reference(obj))
        found = self._standing.get(id(obj))
        if found is None:
            standing = max(registry.standing(obj) for registry in self._known_to)
            self._standing[id(obj)] = standing, obj
        else:
            standing = found[0]
        self.met_drifted |= standing == DRIFTED
        return standing <= self._tolerated

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is memoryview:
            return _reduce_memory(obj)
        if kind is FunctionType:
            return NotImplemented if self._by_reference(obj) else self._dynamic_function_reduce(obj)
        if issubclass(kind, type):
            if self._by_reference(obj):
                return NotImplemented
            return self._reduce_drifted_class(obj) or self._reduce_class(obj)
        if kind is MethodType:
            same = getattr(obj.__self__, obj.__func__.__name__, None) == obj
            return obj.__reduce__() if same else NotImplemented
        if "torch" in sys.modules and (reduce := reducer(kind)) is not None:
            return reduce(obj)
        if kind is CodeType:
            return _make_code, (obj.co_filename, *self.dispatch_table[CodeType](obj))
        if issubclass(kind, ModuleType):
            if self._by_reference(obj) or self._importable(obj):
                return importlib.import_module, (obj.__name__,)
            hidden = ("__builtins__", "__loader__", "__spec__")
            state = {name: value for name, value in vars(obj).items() if name not in hidden}
            return cloudpickle.dynamic_subimport, (obj.__name__, state)
        return NotImplemented

    def _importable(self, module: ModuleType) -> bool:
        return all(registry.snapshot.had(module.__name__) for registry in self._known_to)

    def _dynamic_function_reduce(self, func: FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        slots: dict[str, Any] = reduced[2][1]
        kept = self._kept_names(func)
        if kept:
            reduced = self._with_kept_globals(reduced, kept)
        names = names_of(func.__code__)
        tails: dict[str, list[Chain]] = {}
        for name, *tail in names.globals:
            tails.setdefault(name, []).append(tuple(tail))
        for name, used in tails.items():
            if type(module := slots["__globals__"].get(name)) is ModuleType:
                slots["__globals__"][name] = self._patched(module, used)
        if func.__closure__:
            slots["__closure__"] = tuple(
                self._patched_cell(cell, names.tails_of(variable))
                for variable, cell in cells_of(func)
            )
        lines = lines_of(func.__code__)
        if lines is None:
            return reduced
        make, args, state, *between, set_state = reduced
        return make, args, (lines, set_state, state), *between, _set_function_state

    def _kept_names(self, func: FunctionType) -> frozenset[str]:
        """The globals that the function finds in the workers, set there by the initializer."""
        if not self._known_to or func.__globals__ is not vars(sys.modules["__main__"]):
            return frozenset()
        return frozenset.intersection(*(frozenset(one.kept) for one in self._known_to))

    def _with_kept_globals(self, reduced: Any, kept: frozenset[str]) -> Any:
        make, (code, namespace, *others), (state, slots), *rest = reduced
        for name in kept & slots["__globals__"].keys():
            if all(registry.is_as_before(name) for registry in self._known_to):
                del slots["__globals__"][name]
        # One for each namespace, so that functions which share one do so in the worker.
        shared = self._namespaces.setdefault(id(namespace), _KeptGlobals(namespace))
        return make, (code, shared, *others), (state, slots), *rest

    def _patched_cell(self, cell: CellType, tails: list[Chain]) -> CellType:
        module = cell_contents(cell)
        if type(module) is not ModuleType or (new := self._patched(module, tails)) is module:
            return cell
        return CellType(new)

    def _patched(self, module: ModuleType, tails: list[Chain]) -> ModuleType | PatchedModule:
        """The module, or what unpickles as the module as it is here, if the workers' differs."""
        if self._importable(module):  # else it is sent by value as a whole
            for registry in self._known_to:
                attributes = registry.patch(module, filter(None, tails), self._tolerated)
                if attributes is not None:
                    return PatchedModule(module.__name__, attributes)
        return module

    def _reduce_drifted_class(self, cls: type) -> Any:
        """Send the worker's own class with new data, so that instances remain instances of it."""
        if not self._known_to:
            return None
        names: set[str] = set()
        others: dict[int, type] = {}
        for registry in self._known_to:
            found = registry.drifted_classes(cls)
            if found is None:
                return None
            for one in found:
                if one.cls is cls:
                    names |= one.drifted
                else:
                    others[id(one.cls)] = one.cls  # is pickled in the same way
        now = cls.__dict__
        values = {name: now[name] for name in names if name in now}
        state = os.getpid(), values, names - values.keys(), list(others.values())
        where = cls.__module__, cls.__qualname__
        return _find_class, where, state, None, None, _set_class_data

    def _reduce_class(self, cls: type) -> Any:
        reduced = super().reducer_override(cls)
        if not isinstance(reduced, tuple):
            reduced = cloudpickle._dynamic_class_reduce(cls)
        if len(reduced) < 6:  # a built-in type
            return reduced
        make, args, state, _, _, set_state = reduced
        known = [one.token for one in self._known_to if one.standing(cls) == SAME]
        where = (known, cls.__module__, cls.__qualname__)
        return _make_class, (make, args, where), (set_state, state), None, None, _set_class_state


def _make_code(filename: str, make: Callable[..., CodeType], args: tuple[Any, ...]) -> CodeType:
    """The code with the name of its file, which cloudpickle 3.1.3 and later leave out.

    Tracebacks and warnings are to show the line that the user wrote.
    """
    return make(*args).replace(co_filename=filename)


def _reduce_memory(view: memoryview) -> Any:
    """Its content as a buffer, where a memoryview can be made of that again."""
    kind = view.format.removeprefix("@")
    shape = view.shape or ()
    if kind not in _NATIVE_FORMATS or not shape or (len(shape) > 1 and 0 in shape):
        return NotImplemented  # it arrives as bytes
    content: Any = view
    if not view.c_contiguous:
        content = view.tobytes() if view.readonly else bytearray(view.tobytes())
    return _make_memory, (pickle.PickleBuffer(content), kind, shape)


_NATIVE_FORMATS = frozenset("bBcdfhHiIlLnNPqQ?")
"""Of `memoryview.cast`."""


def _make_memory(content: Any, kind: Any, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(content).cast("B")
    if len(shape) > 1:
        return view.cast(kind, shape)
    return view if kind == "B" else view.cast(kind)


def _set_function_state(
    function: FunctionType, state: tuple[Lines, Callable[[FunctionType, Any], object], Any]
) -> None:
    lines, set_state, inner = state
    remember(lines)
    set_state(function, inner)


_MAIN_NAMES = ("__main__", "__mp_main__")

_kept_globals: dict[str, Any] = {}
"""In a worker: the globals of `__main__` that the initializer has set."""


class _KeptGlobals:
    """Unpickles as the namespace of functions sent by value, with what the initializer has set."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace

    def __reduce__(self) -> tuple[Any, ...]:
        return _add_kept_globals, (self.namespace,)


def _add_kept_globals(namespace: dict[str, Any]) -> dict[str, Any]:
    return _kept_globals | namespace


def stored_globals(function: Callable[..., object]) -> frozenset[str]:
    """The globals of `__main__` that a function sets itself."""
    if type(function) is not FunctionType or function.__module__ not in _MAIN_NAMES:
        return frozenset()
    return frozenset(
        instruction.argval
        for instruction in dis.get_instructions(function.__code__)
        if instruction.opname == "STORE_GLOBAL"
    )


def keep_globals(initializer: Callable[..., object]) -> None:
    """In a worker: let jobs have the globals that the initializer has set."""
    if type(initializer) is FunctionType:
        names = stored_globals(initializer) & initializer.__globals__.keys()
        _kept_globals.update({name: initializer.__globals__[name] for name in names})


class PatchedModule:
    """Unpickles as a copy of a module, in which some attributes differ."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self.name = name
        self.attributes = attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_patched_module, (self.name, self.attributes)


def _make_patched_module(name: str, attributes: dict[str, Any]) -> ModuleType:
    original = importlib.import_module(name)
    module = ModuleType(name)
    module.__dict__.update(original.__dict__)
    module.__dict__.update(attributes)
    return module


# A class that was sent by value comes back with the results that are instances of it. cloudpickle
# finds the original by an identifier, but then sets all its attributes to what came back, copies.
# The process that defined the class must keep it as it is.

_copies: weakref.WeakSet[type] = weakref.WeakSet()
"""The classes of this process that were defined in another one."""


memory_limit = 0
"""Bytes that this worker may allocate; 0: no limit."""


def enter_worker(token: str, worker_limit: int) -> None:
    """Forget which classes this process has sent by value: it was the host that did.

    What the host has under the identifier of such a class is its own; what this process has is a
    copy of it from the moment of the fork, and must not be changed.
    """
    global _own_token
    _own_token = token
    global memory_limit
    memory_limit = worker_limit
    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.clear()
    _copies.clear()


def _make_class(
    make: Callable[..., type], args: tuple[Any, ...], where: tuple[list[str], str, str]
) -> type:
    tokens, module, name = where
    if _own_token in tokens:
        return _find_class(module, name)
    identifier = args[-2]
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(identifier)
    if known is not None:
        return cast(type, known)
    cls = make(*args)
    _copies.add(cls)
    return cls


def _set_class_state(cls: type, state: tuple[Callable[[type, Any], object], Any]) -> None:
    if cls in _copies:
        set_state, inner = state
        set_state(cls, inner)


def _find_class(module: str, name: str) -> type:
    return cast(type, operator.attrgetter(name)(importlib.import_module(module)))


def _set_class_data(cls: type, state: tuple[int, dict[str, Any], set[str], list[type]]) -> None:
    sender, values, missing, _ = state
    if sender == os.getpid():
        return
    for name, value in values.items():
        type.__setattr__(cls, name, value)
    for name in missing & cls.__dict__.keys():
        type.__delattr__(cls, name)


# ---- Errors -------------------------------------------------------------------------------------


def _name_culprit(obj: Any, known_to: list[Registry], kind: type[Pickler]) -> str:
    """Find and name the innermost part of `obj` that can't be pickled."""

    def fails(part: Any) -> bool:
        try:
            kind(known_to).dumps(part)
        except Exception:
            return True
        return False

    where = ""
    for _ in range(20):
        found = next(((path, part) for path, part in _parts(obj) if fails(part)), None)
        if found is None:
            break
        where += found[0]
        obj = found[1]
    type_name = type(obj).__qualname__
    found_at = f", found at {where.removeprefix(', ')}" if where else ""
    return f"{short_repr(obj)} (of type {type_name}){found_at}{_advice(obj)}"


def _advice(obj: Any) -> str:
    """What to do instead of sending `obj`, where there is something for it."""
    if isinstance(obj, _core.Workers):
        return "; in a job, libpool.current() is the pool that runs it"
    ctypes, cffi = sys.modules.get("_ctypes"), sys.modules.get("_cffi_backend")
    if (ctypes and isinstance(obj, ctypes.CFuncPtr)) or (
        cffi and isinstance(obj, cffi._CDataBase) and cffi.typeof(obj).kind == "function"
    ):
        return "; libpool.native() makes of a C function one that can be sent"
    return ""


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, tuple | list | set | frozenset):
        for number, item in enumerate(obj):
            yield f"[{number}]", item
    elif isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{short_repr(key, 40)}]", value
    elif type(obj) is FunctionType:
        cells = obj.__closure__ or ()
        for name, cell in zip(obj.__code__.co_freevars, cells, strict=True):
            try:
                yield f", variable {name}", cell.cell_contents
            except ValueError:
                continue
        for name in obj.__code__.co_names:
            if name in obj.__globals__:
                yield f", global {name}", obj.__globals__[name]
    elif not isinstance(obj, type | ModuleType | _core.Workers):  # a pool's parts explain nothing
        for name, value in getattr(obj, "__dict__", {}).items():
            yield f".{name}", value


# ---- Exceptions ---------------------------------------------------------------------------------


def dumps_exception(exc: BaseException) -> bytes:
    """Pickle what a job raised: the exception, or what can be told of it, and its traceback."""
    if isinstance(exc, MemoryError):
        # What the job has filled the memory with is in its frames, and we need some, too.
        traceback.clear_frames(exc.__traceback__)
    # How far a job of this one got is nothing that the next host could make sense of.
    vars(exc).pop("_libpool_part", None)
    if memory_limit and isinstance(exc, MemoryError):
        exc.add_note(f"this pool's workers may allocate {memory_limit} bytes each (memory_limit)")
    text = "".join(traceback.format_exception(exc))
    notes = [str(note) for note in getattr(exc, "__notes__", ())]
    summary = f"{_qualified_name(type(exc))}: {_text_of(exc)}"
    payload, reason = _best(exc)
    if not payload:
        notes.append(reason)
    return pickle.dumps((payload, summary, notes, text), PROTOCOL)


def _best(exc: BaseException) -> tuple[bytes, str]:
    """Pickle an exception as faithfully as can be, or say why it can't be done."""
    reason = ""
    for attempt in (_plain, _rebuilt, _without_attributes):
        try:
            return attempt(exc), ""
        except Exception as error:
            reason = reason or f"libpool could not send the original: {_text_of(error)}"
    return b"", reason


def loads_exception(data: bytes) -> BaseException:
    """Make a job's exception from what `dumps_exception()` gave.

    Its `__cause__` is a `RemoteTraceback`. What can't be made here becomes a `RemoteError`.
    """
    payload, summary, notes, text = pickle.loads(data)
    exc: BaseException = RemoteError(summary)
    if payload:
        try:
            exc = pickle.loads(payload)
        except Exception as error:
            notes.append(f"libpool could not make the original: {short_repr(error)}")
    if not getattr(exc, "__notes__", None):
        for note in notes:
            exc.add_note(note)
    exc.__cause__ = RemoteTraceback(text)
    return exc


def _plain(exc: BaseException) -> bytes:
    """As the class itself wants to be pickled, if that gives the same message again.

    It often does not: by default `__init__` is called with `args`, and many classes pass to
    `Exception.__init__` other arguments than they take.
    """
    payload = dumps(exc)
    copy = _load_same_type(exc, payload)
    if list(_texts_of(copy)) != list(_texts_of(exc)):
        raise pickle.PicklingError("its copy has another message")
    return payload


def _rebuilt(exc: BaseException) -> bytes:
    """Type, arguments and attributes, without a call of `__init__`."""
    return _rebuild_with(exc, exc.__dict__)


def _without_attributes(exc: BaseException) -> bytes:
    """The same without those attributes that can't be pickled."""
    kept, lost = {}, []
    for name, value in exc.__dict__.items():
        try:
            pickle.loads(dumps(value))
        except Exception:
            lost.append(name)
        else:
            kept[name] = value
    note = f"libpool could not send these attributes of it: {', '.join(lost)}"
    kept["__notes__"] = [*kept.get("__notes__", ()), note]
    return _rebuild_with(exc, kept)


def _rebuild_with(exc: BaseException, attributes: dict[str, Any]) -> bytes:
    payload = dumps(_Rebuilt(exc, attributes))
    _load_same_type(exc, payload)
    return payload


class _Rebuilt:
    """Unpickles as an exception of the same type and arguments, with these attributes."""

    def __init__(self, exc: BaseException, attributes: dict[str, Any]) -> None:
        self._args = type(exc), tuple(map(_sendable, exc.args)), attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._args


class _Pickled:
    """Unpickles as what was pickled."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._payload,)


def _sendable(value: object) -> object:
    """What unpickles as an exception's argument; the exceptions of a group are in a sequence."""
    kind = type(value)
    if kind is list or kind is tuple:
        return kind(map(_sendable, value))  # type: ignore[call-overload]
    if not isinstance(value, BaseException):
        return value
    payload, reason = _best(value)
    if payload:
        return _Pickled(payload)
    stand_in = RemoteError(f"{_qualified_name(kind)}: {_text_of(value)}")
    stand_in.add_note(reason)
    return stand_in


def _rebuild(
    kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]
) -> BaseException:
    exc = kind.__new__(kind, *args)
    exc.args = args
    exc.__dict__.update(attributes)
    return exc


_ADDRESS = re.compile("0x[0-9a-fA-F]+")


def _load_same_type(exc: BaseException, payload: bytes) -> BaseException:
    copy = pickle.loads(payload)
    if type(copy) is not type(exc):
        raise pickle.PicklingError(f"its copy is {short_repr(copy)}")
    return copy


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:
        return f"<its str() raised {type(error).__name__}>"


def _texts_of(exc: BaseException) -> Iterator[str]:
    """The message, and those of a group's exceptions, without what differs between processes."""
    yield _ADDRESS.sub("", _text_of(exc))
    if isinstance(exc, BaseExceptionGroup):
        for one in exc.exceptions:
            yield from _texts_of(one)


def _qualified_name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
