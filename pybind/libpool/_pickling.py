"""Pickles of what plain pickle can't send, or would send wrongly."""

from __future__ import annotations

import dis
import importlib
import io
import operator
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Iterable
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, resolve_bases
from typing import TYPE_CHECKING, Any, cast

import cloudpickle.cloudpickle as cloudpickle

from libpool._culprit import name_culprit
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
    "enter_worker",
    "keep_globals",
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
        culprit = name_culprit(obj, lambda part: kind(known_to).dumps(part))
        error.add_note(f"libpool could not pickle {culprit}")
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

_copies: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()
"""The classes of this process that were defined in another one, and what they were given there."""


def enter_worker(token: str) -> None:
    """Forget which classes this process has sent by value: it was the host that did.

    What the host has under the identifier of such a class is its own; what this process has is a
    copy of it from the moment of the fork, and must not be changed.
    """
    global _own_token
    _own_token = token
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
    if known is not None and (known not in _copies or _has_bases(known, make, args)):
        return cast(type, known)
    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.pop(identifier, None)
    cls = make(*args)
    _copies[cls] = frozenset()
    return cls


def _has_bases(cls: type, make: Callable[..., type], args: tuple[Any, ...]) -> bool:
    """Whether a copy has, or could be given, the bases that the class has by now."""
    if make is not cloudpickle._make_skeleton_class:
        return True  # an enumeration's do not change
    bases = resolve_bases(args[2])
    if cls.__bases__ != bases:
        try:
            cls.__bases__ = bases
        except TypeError:  # of another layout
            return False
    return True


def _set_class_state(cls: type, state: tuple[Callable[[type, Any], object], Any]) -> None:
    before = _copies.get(cls)
    if before is None:
        return
    set_state, inner = state
    set_state(cls, inner)
    # cloudpickle only adds: what the class no longer has would stay here.
    _copies[cls] = now = frozenset(inner[0])
    for name in (before - now) & cls.__dict__.keys():
        type.__delattr__(cls, name)


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
