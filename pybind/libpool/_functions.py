"""How a function is sent to the workers: by reference where they have the same one, else by value.

A worker is a fork of the host at the moment the pool was made. So a reference (module and name)
means in the worker what it meant then, and is right only if the function, and what it calls, has
not changed since. `Registry` knows what was there, and decides.

What was decided for a function holds as long as certain objects are where they were. These
conditions go along as *guards*, which the C code checks by identity at each submit:

``("item", dict, key, value)``
    ``dict.get(key) is value``
``("func", function, code, defaults, keyword_defaults)``
    The function still has exactly these.
``("cell", cell, value)``
    ``cell.cell_contents is value``

There is none for classes, since Python tells nobody that one has been modified. What depends on a
class of the user's program is looked at anew each time, here, with what is known of it at hand.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from libpool import _pickling
from libpool._names import Chain, names_of
from libpool._snapshot import (
    CHANGED,
    DRIFTED,
    SAME,
    ClassState,
    ModuleState,
    Snapshot,
    cell_contents,
    cells_of,
    closure_of,
    inside,
    is_a,
    is_user_class,
    is_user_module,
    matters,
    namespace_of,
)

__all__ = ["Guards", "Registry"]

Guards = tuple[tuple[Any, ...], ...]

_MISSING = object()
_SCALARS = (type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes)


_count = itertools.count()


class Registry:
    """What the workers of one pool know. Make it right before the supervisor is started.

    Parameters
    ----------
    snapshot : Snapshot, optional
        What they know from the start. Default: what this process has.
    token : str, optional
        In a worker that is no fork of the host: that of the host's registry.
    """

    def __init__(self, snapshot: Snapshot | None = None, token: str | None = None) -> None:
        self.snapshot = Snapshot() if snapshot is None else snapshot
        self._host = os.getpid() if token is None else 0
        self.token = token or f"{self._host}-{next(_count)}"
        self.kept: dict[str, object] = {}
        self._known: dict[int, _Known] = {}
        _pickling.registries.add(self)

    def in_worker(self) -> bool:
        """Whether this is the copy of the registry that a worker has."""
        return os.getpid() != self._host

    def keep(self, names: Iterable[str]) -> None:
        """Note globals of `__main__` that the workers set themselves, before their first job.

        A function that is sent by value finds what they have, not what the host has, as long as
        the host does not change it.
        """
        here = vars(sys.modules["__main__"])
        self.kept = {name: here.get(name) for name in names}

    def is_as_before(self, name: str) -> bool:
        """Whether one of these is still what it was when the pool was made."""
        return self.kept.get(name) is vars(sys.modules["__main__"]).get(name)

    def tolerated(self) -> int:
        """In a worker, data drifts as jobs and the initializer set it, in its siblings as well."""
        return DRIFTED if self.in_worker() else SAME

    def describe(self, fn: Callable[..., Any]) -> tuple[bytes, Guards | None]:
        """Decide how to send a function.

        Parameters
        ----------
        fn : callable
            What is to be called in a worker.

        Returns
        -------
        payload : bytes
            A pickle of the function.
        guards : tuple or None
            The conditions under which this payload may be sent again; None: it may not.
        """
        known = self._known.get(id(fn))
        if known is not None and known.function is fn and known.holds(self.tolerated()):
            return known.payload, None
        kind = type(fn)
        if kind is FunctionType or issubclass(kind, type):
            check = Check(self)
            check.reference(fn)
            if check.verdict == SAME:
                return self._keep(fn, pickle.dumps(fn, _pickling.PROTOCOL), check)
        payload = _pickling.dumps(fn, [self])
        if kind is FunctionType or kind is BuiltinFunctionType:
            capture = Capture(self)
            capture.value(fn)
            if capture.constant:
                return self._keep(fn, payload, capture)
        return payload, None

    def _keep(
        self, fn: Callable[..., Any], payload: bytes, found: _Guarded
    ) -> tuple[bytes, Guards | None]:
        guards = tuple(found.found.values())
        if not found.classes:
            return payload, guards
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known[id(fn)] = _Known(fn, payload, guards, tuple(found.classes.values()))
        return payload, None

    def standing(self, obj: Any) -> int:
        """Tell what a worker has under the name of a function, class or module: see `SAME`."""
        check = Check(self)
        check.reference(obj)
        return check.verdict

    def drifted_classes(self, cls: type) -> list[ClassState] | None:
        """Find out whether a class differs from what the workers have only by data of classes.

        Returns
        -------
        list of ClassState or None
            The classes that have the data: itself, or what it leads to. None: it differs by more.
        """
        check = Check(self)
        check.reference(cls)
        return None if check.verdict_but_classes else check.drifted_classes

    def patch(
        self, module: ModuleType, tails: Iterable[Chain], tolerated: int = SAME
    ) -> dict[str, Any] | None:
        """What of a module of the user's program differs in the workers.

        Parameters
        ----------
        module : module
            The module as it is here.
        tails : iterable of tuple of str
            The attributes that are of interest, and attributes of these.
        tolerated : int
            DRIFTED: what has only drifted does not differ.

        Returns
        -------
        dict or None
            The attributes of interest as they are here, with `PatchedModule` in the place of
            modules that differ; None if the workers have the same.
        """
        by_name: dict[str, list[Chain]] = {}
        for name, *tail in tails:
            by_name.setdefault(name, []).append(tuple(tail))
        attributes: dict[str, Any] = {}
        differs = False
        for name, inner_tails in by_name.items():
            value = namespace_of(module).get(name, _MISSING)
            if value is _MISSING:
                continue
            check = Check(self)
            check.attribute(module, (name,))
            differs = differs or check.verdict > tolerated
            if is_a(value, ModuleType):
                inner = self.patch(value, filter(None, inner_tails), tolerated)
                if inner is not None:
                    differs = True
                    value = _pickling.PatchedModule(value.__name__, inner)
            attributes[name] = value
        return attributes if differs else None


_KNOWN_LIMIT = 1000


class _Known(NamedTuple):
    """A function of which it is known how to send it, while its guards hold."""

    function: Callable[..., Any]
    payload: bytes
    guards: Guards
    classes: tuple[ClassState, ...]

    def holds(self, tolerated: int) -> bool:
        for guard in self.guards:
            match guard:
                case "item", place, key, value:
                    if place.get(key) is not value:
                        return False
                case "func", function, code, defaults, keyword_defaults:
                    if (
                        function.__code__ is not code
                        or function.__defaults__ is not defaults
                        or function.__kwdefaults__ is not keyword_defaults
                    ):
                        return False
                case _, cell, value:
                    if cell_contents(cell) is not value:
                        return False
        return all(state.look() <= tolerated for state in self.classes)


class _Guarded:
    """Collects guards."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.snapshot = registry.snapshot
        self.found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.classes: dict[int, ClassState] = {}

    def guard_item(self, place: dict[str, Any], key: str, value: object) -> None:
        self.found["item", id(place), key] = ("item", place, key, value)

    def guard_absent(self, place: dict[str, Any], key: str) -> None:
        self.guard_item(place, key, None)

    def guard_function(self, function: FunctionType) -> None:
        keyword_defaults = function.__kwdefaults__
        self.found["func", id(function)] = (
            "func",
            function,
            function.__code__,
            function.__defaults__,
            keyword_defaults,
        )
        if keyword_defaults is not None:  # a dict, which can be modified where it is
            code = function.__code__
            first = code.co_argcount
            for name in code.co_varnames[first : first + code.co_kwonlyargcount]:
                if name in keyword_defaults:
                    self.guard_item(keyword_defaults, name, keyword_defaults[name])
                else:
                    self.guard_absent(keyword_defaults, name)
        for cell in function.__closure__ or ():
            self.found["cell", id(cell)] = ("cell", cell, cell_contents(cell))
        self._guard_looked_up(function)

    def _guard_looked_up(self, function: FunctionType) -> None:
        """Guard the attributes that other functions lack and that `getattr()` may ask for."""
        names = names_of(function.__code__).globals
        if ("getattr",) not in names and ("hasattr",) not in names:
            return
        found = [function.__globals__.get(chain[0]) for chain in names]
        found += [cell_contents(cell) for cell in function.__closure__ or ()]
        for text in _strings_in(function.__code__):
            for value in found:
                if type(value) is FunctionType and text not in value.__dict__:
                    self.guard_absent(value.__dict__, text)


def _strings_in(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if type(constant) is str and constant.isidentifier():
            yield constant
        elif type(constant) is CodeType:
            yield from _strings_in(constant)


class Check(_Guarded):
    """Finds out whether the workers have the same function, by walking through all that it calls.

    The walk follows global names, attributes of modules, closures, defaults, methods and the
    usual wrappers, within the user's program.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.verdict = SAME
        self.verdict_but_classes = SAME
        self.drifted_classes: list[ClassState] = []
        self._seen: set[int] = set()

    def _note(self, verdict: int) -> None:
        if verdict <= self.registry.tolerated():
            return
        self.verdict = max(verdict, self.verdict)
        self.verdict_but_classes = max(verdict, self.verdict_but_classes)

    def reference(self, obj: Any) -> None:
        """Check a function, class or module that would be sent by its name."""
        if is_a(obj, ModuleType):
            if not self.snapshot.has_module(obj):
                self._note(CHANGED)
        elif not self._locate(obj):
            self._note(CHANGED)
        else:
            self._same(obj)

    def _locate(self, obj: Any) -> bool:
        """Whether `obj` is what its module and qualified name say, here and in the workers."""
        name, path = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
        if not isinstance(name, str) or not isinstance(path, str) or "<" in path:
            return False
        module = sys.modules.get(name)
        if module is None or not is_a(module, ModuleType) or not self.snapshot.has_module(module):
            return False
        self.guard_item(sys.modules, name, module)
        namespace = namespace_of(module)
        state = self.snapshot.modules.get(name)
        if state is None and "__spec__" in namespace:
            self.guard_item(namespace, "__spec__", namespace["__spec__"])
        first, *rest = path.split(".")
        value = namespace.get(first, _MISSING)
        self.guard_item(namespace, first, value)
        if state is not None:
            self._compare(state, first, value)
        if rest:
            self._same(value)
        for part in rest:
            if not is_a(value, type):
                return False
            value = value.__dict__.get(part, _MISSING)
        if is_a(value, staticmethod):
            value = value.__func__
        return value is obj

    def _compare(self, state: ModuleState, name: str, value: object) -> None:
        """Compare what a module of the program has under a name with what it had."""
        before = state.values.get(name, _MISSING)
        if value is not _MISSING and self.snapshot.lacks(state, name, value):
            self._note(CHANGED if is_a(value, (FunctionType, type)) else DRIFTED)
        if value is before:
            return
        if before is not _MISSING or is_a(value, (FunctionType, type)):
            self._note(CHANGED)
        elif matters(value) or (name in state.names) == (value is _MISSING):
            self._note(DRIFTED)  # what was not there, or was data, is there now; or is gone

    def attribute(self, module: ModuleType, tail: Chain) -> None:
        """Check attributes of a module, and of these."""
        if not is_user_module(module.__name__, module):
            return
        if not self.snapshot.has_module(module):
            self._note(CHANGED)
            return
        namespace = namespace_of(module)
        self._global(namespace, self.snapshot.module_of(namespace), tail)

    def _global(self, namespace: dict[str, Any], state: ModuleState | None, chain: Chain) -> None:
        if self.verdict == CHANGED:
            return
        name = chain[0]
        value = namespace.get(name, _MISSING)
        if value is _MISSING:
            self.guard_absent(namespace, name)
        else:
            self.guard_item(namespace, name, value)
        if state is not None:
            self._compare(state, name, value)
        if is_a(value, ModuleType):
            if len(chain) > 1:
                self.attribute(value, chain[1:])
        else:
            if len(chain) > 1 and type(value) is FunctionType and chain[1] not in value.__dict__:
                self.guard_absent(value.__dict__, chain[1])
            self._same(value)

    def _same(self, value: Any) -> None:
        """Check what a value leads to, given that the workers have the same value."""
        if self.verdict == CHANGED or id(value) in self._seen:
            return
        self._seen.add(id(value))
        kind = type(value)
        if kind is FunctionType:
            self._function(value)
        elif issubclass(kind, type):
            self._class(value)
        else:
            if id(kind) in self.snapshot.classes:
                self._same(kind)
            for inner in inside(value):
                self._same(inner)

    def _function(self, function: FunctionType) -> None:
        namespace = function.__globals__
        module = sys.modules.get(namespace.get("__name__", ""))
        ours = (
            module is None
            or not is_a(module, ModuleType)
            or namespace_of(module) is not namespace
            or is_user_module(module.__name__, module)
        )
        state = self.snapshot.functions.get(id(function))
        if state is None:
            if ours:
                self._note(CHANGED)
            return
        if not state.is_current():
            self._note(CHANGED)
            return
        if state.has_drifted():
            self._note(DRIFTED)
        for key, value in function.__dict__.items():
            self.guard_item(function.__dict__, key, value)
        for now, before in zip(closure_of(function), state.cells, strict=True):
            if now is not before:
                self._note(CHANGED if callable(now) or callable(before) else DRIFTED)
        self.guard_function(function)
        for value in (
            *closure_of(function),
            *(function.__defaults__ or ()),
            *(function.__kwdefaults__ or {}).values(),
        ):
            if callable(value):
                self._same(value)
        names = names_of(function.__code__)
        for variable, cell in cells_of(function):
            if is_a(content := cell_contents(cell), ModuleType):
                for tail in names.tails_of(variable):
                    self.attribute(content, tail)
        if ours:
            module_state = self.snapshot.module_of(namespace)
            for chain in names.globals:
                self._global(namespace, module_state, chain)

    def _class(self, cls: type) -> None:
        state = self.snapshot.classes.get(id(cls))
        if state is None:
            if is_user_class(cls):
                self._note(CHANGED)
            return
        found = state.look()
        if found == CHANGED:
            self._note(CHANGED)
            return
        self.classes[id(cls)] = state
        if found > self.registry.tolerated():
            self.verdict = max(self.verdict, DRIFTED)
            self.drifted_classes.append(state)
        for member in state.callables:
            self._same(member)


class Capture(_Guarded):
    """Finds out whether what a function captures can't change unnoticed."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.constant = True
        self._seen: set[int] = set()

    def value(self, value: Any, tail: Chain = ()) -> None:
        """Walk through a captured value, of which the attributes `tail` are used."""
        kind = type(value)
        if not self.constant or kind in _SCALARS:
            return
        if kind is tuple or kind is frozenset:
            for item in value:
                self.value(item)
        elif kind is FunctionType:
            if not self._by_reference(value) and id(value) not in self._seen:
                self._seen.add(id(value))
                self._function(value)
            if tail:
                self._attribute(value.__dict__, tail)
        elif issubclass(kind, type):
            self.constant = self._by_reference(value)
        elif issubclass(kind, ModuleType):
            self._module(value, tail)
        elif kind is BuiltinFunctionType:
            owner = value.__self__
            if is_a(owner, ModuleType):
                self.guard_item(namespace_of(owner), value.__name__, value)
            else:
                self.value(owner)
        else:
            self.constant = False

    def _by_reference(self, value: Any) -> bool:
        check = Check(self.registry)
        check.reference(value)
        if check.verdict == SAME:
            self.found.update(check.found)
            self.classes.update(check.classes)
        return check.verdict == SAME

    def _module(self, module: ModuleType, tail: Chain) -> None:
        if not self._by_reference(module):
            self.constant = False
        elif tail:
            check = Check(self.registry)
            check.attribute(module, tail)
            if check.verdict == CHANGED:  # it is sent along, see Registry.patch
                self._attribute(namespace_of(module), tail)
            else:
                self.found.update(check.found)
                self.classes.update(check.classes)

    def _attribute(self, namespace: dict[str, Any], chain: Chain) -> None:
        value = namespace.get(chain[0], _MISSING)
        if value is _MISSING:
            self.guard_absent(namespace, chain[0])
        else:
            self.guard_item(namespace, chain[0], value)
            self.value(value, chain[1:])

    def _function(self, function: FunctionType) -> None:
        self.guard_function(function)
        names = names_of(function.__code__)
        for variable, cell in cells_of(function):
            content = cell_contents(cell)
            for tail in names.tails_of(variable) or [()]:
                self.value(content, tail)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.value(value)
        for name, value in function.__dict__.items():
            if name != "__wrapped__":  # attributes can be added and looked up in many ways
                self.constant = False
            self.value(value)
        for chain in names.globals:
            self._attribute(function.__globals__, chain)
