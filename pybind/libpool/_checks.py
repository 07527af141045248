"""Walks through what a function or class depends on: do the workers have it, may it be sent again.

Both walks collect guards, the conditions under which their answer holds: see `_functions`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from libpool._names import Chain, names_of
from libpool._snapshot import (
    CHANGED,
    DRIFTED,
    SAME,
    ClassState,
    ModuleState,
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

if TYPE_CHECKING:
    from libpool._functions import Registry

__all__ = ["MISSING", "Capture", "Check", "Guarded"]

MISSING = object()
"""What a namespace has under a name that it does not have."""

_SCALARS = (type(None), type(...), type(NotImplemented), bool, int, float, complex, str, bytes)


class Guarded:
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


class Check(Guarded):
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
        value = namespace.get(first, MISSING)
        self.guard_item(namespace, first, value)
        if state is not None:
            self._compare(state, first, value)
        if rest:
            self._same(value)
        for part in rest:
            if not is_a(value, type):
                return False
            value = value.__dict__.get(part, MISSING)
        if is_a(value, staticmethod):
            value = value.__func__
        return value is obj

    def _compare(self, state: ModuleState, name: str, value: object) -> None:
        """Compare what a module of the program has under a name with what it had."""
        before = state.values.get(name, MISSING)
        if value is not MISSING and self.snapshot.lacks(state, name, value):
            self._note(CHANGED if is_a(value, (FunctionType, type)) else DRIFTED)
        if value is before:
            return
        if before is not MISSING or is_a(value, (FunctionType, type)):
            self._note(CHANGED)
        elif matters(value) or (name in state.names) == (value is MISSING):
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
        value = namespace.get(name, MISSING)
        if value is MISSING:
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


class Capture(Guarded):
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
        value = namespace.get(chain[0], MISSING)
        if value is MISSING:
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
