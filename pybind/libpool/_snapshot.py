"""What the workers know: the program's modules, functions and classes when the pool was made."""

from __future__ import annotations

import functools
import importlib.machinery
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from libpool._main_source import MainSource

__all__ = [
    "CHANGED",
    "DRIFTED",
    "EMPTY_CELL",
    "SAME",
    "ClassState",
    "FunctionState",
    "ImportedSnapshot",
    "ModuleState",
    "Snapshot",
    "cell_contents",
    "cells_of",
    "closure_of",
    "inside",
    "is_a",
    "is_user_class",
    "is_user_module",
    "matters",
    "namespace_of",
]

SAME, DRIFTED, CHANGED = range(3)
"""What a worker has under the name of a function is: the same function; the same, but the data
around it has changed in the host; another function, or nothing."""

EMPTY_CELL = object()
_GONE = object()


def is_a(value: object, kind: type | tuple[type, ...]) -> bool:
    """`isinstance()` that proxies and mocks, which lie about their class, do not deceive."""
    return issubclass(type(value), kind)


def matters(value: object) -> bool:
    """Whether a function's meaning depends on which object this is."""
    return callable(value) or is_a(value, ModuleType)


def namespace_of(module: ModuleType) -> dict[str, Any]:
    """`module.__dict__`, without loading a lazy module."""
    namespace: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return namespace


class FunctionState(NamedTuple):
    """A function, and what calling it depends on, as it was at the snapshot."""

    function: FunctionType
    code: CodeType
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None
    cells: tuple[Any, ...]
    attributes: dict[str, Any] | None

    def is_current(self) -> bool:
        """Whether the function still has that code and those defaults."""
        function: FunctionType = self[0]  # by its name mypy takes it for a method
        return (
            function.__code__ is self.code
            and function.__defaults__ is self.defaults
            and _same_items(function.__kwdefaults__, self.keyword_defaults)
        )

    def has_drifted(self) -> bool:
        """Whether the function's attributes are others now."""
        function: FunctionType = self[0]
        return not _same_items(function.__dict__, self.attributes)


# What the class's own `__new__` does, without the call: there may be thousands of functions.
_new_state: Callable[[type[FunctionState], tuple[Any, ...]], FunctionState] = tuple.__new__


class ClassState:
    """A class as it is now, to be compared with it later.

    Attributes
    ----------
    cls : type
        The class.
    callables : list
        Its bases and its metaclass, and the methods, nested classes and other callables that it
        defines itself.
    drifted : set of str
        The attributes, other than these, that have been seen to differ from what they were. They
        stay here when they are as before again, since workers may have been told another value.
    """

    __slots__ = ("_bases", "_data", "_members", "_names", "callables", "cls", "drifted")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.drifted: set[str] = set()
        self._bases = cls.__bases__
        self._members: dict[str, object] = {}
        self._data: dict[str, object] = {}
        for name, value in list(cls.__dict__.items()):
            if name not in _NO_DATA:
                (self._members if _is_member(value) else self._data)[name] = value
        self._names = _NO_DATA.union(self._members, self._data)
        kind = type(cls)
        self.callables: list[object] = [*self._members.values(), *self._bases]
        if kind is not type:
            self.callables.append(kind)

    def look(self) -> int:
        """Compare: `SAME`; `DRIFTED` if data of the class has changed; else `CHANGED`."""
        now = self.cls.__dict__
        get = now.get
        if self.cls.__bases__ is not self._bases:
            return CHANGED
        for name, value in self._members.items():
            if get(name) is not value:
                return CHANGED
        changed = [name for name, value in self._data.items() if get(name, _GONE) is not value]
        if not self._names.issuperset(now):
            changed += [name for name in list(now) if name not in self._names]
        if changed:
            if any(_is_member(get(name)) for name in changed):
                return CHANGED
            self.drifted.update(changed)
        return DRIFTED if self.drifted else SAME


class ModuleState(NamedTuple):
    """A module of the user's program, the names it had, and the values that matter.

    These are the callables and the modules. Data is as it was in the workers, and may have
    changed there: that is the bargain of a function that is known by its name.
    """

    module: ModuleType
    names: frozenset[str]
    values: dict[str, object]


class Snapshot:
    """The functions and classes of the user's program now.

    The program is `__main__` and all loaded modules outside the standard library and
    site-packages. Of the other modules only reloading is noticed.
    """

    def __init__(self) -> None:
        self.modules: dict[str, ModuleState] = {}
        self.functions: dict[int, FunctionState] = {}
        self.classes: dict[int, ClassState] = {}
        self._specs: dict[str, object] = {}
        self._module_of_namespace: dict[int, str] = {}
        self._path = list(sys.path)
        self._finders = list(sys.meta_path)
        self._unimportable: dict[str, object] = {}

        # A program may have a thousand modules, nearly all of them known from the last pool.
        verdicts, specs = _verdicts, self._specs
        for name, module in list(sys.modules.items()):
            if not issubclass(type(module), ModuleType):
                continue
            namespace = namespace_of(module)
            specs[name] = spec = namespace.get("__spec__")
            known = verdicts.get(name)
            if known is None or known[0] is not spec or known[1] is not namespace.get("__file__"):
                self._record_module(name, module)
            elif known[2]:
                self._record_user_module(name, module)

    # ---- Taking the snapshot --------------------------------------------------------------------

    def _record_module(self, name: str, module: ModuleType) -> None:
        namespace = namespace_of(module)
        self._specs[name] = namespace.get("__spec__")
        if is_user_module(name, module):
            self._record_user_module(name, module)

    def _record_user_module(self, name: str, module: ModuleType) -> None:
        namespace = namespace_of(module)
        everything = namespace.copy()
        values = {key: value for key, value in everything.items() if matters(value)}
        self.modules[name] = ModuleState(module, frozenset(everything), values)
        self._module_of_namespace[id(namespace)] = name
        for value in values.values():
            self._record(value)

    def _record(self, value: object) -> None:
        """Record a function, or a class of the program, or what wraps one."""
        kind = type(value)
        if kind is FunctionType:
            if id(value) not in self.functions:
                self._record_function(value)  # type: ignore[arg-type]
        elif issubclass(kind, type):
            if id(value) not in self.classes and is_user_class(value):  # type: ignore[arg-type]
                self.classes[id(value)] = state = ClassState(value)  # type: ignore[arg-type]
                for member in state.callables:
                    self._record(member)
        else:
            for inner in inside(value):
                self._record(inner)

    def _record_function(self, function: FunctionType) -> None:
        cells = closure_of(function) if function.__closure__ else ()
        defaults, keyword_defaults = function.__defaults__, function.__kwdefaults__
        self.functions[id(function)] = _new_state(
            FunctionState,
            (
                function,
                function.__code__,
                defaults,
                dict(keyword_defaults) if keyword_defaults else None,
                cells,
                dict(function.__dict__) or None,
            ),
        )
        if cells or defaults or keyword_defaults:
            for value in (*cells, *(defaults or ()), *(keyword_defaults or {}).values()):
                if callable(value):
                    self._record(value)

    # ---- Asking ---------------------------------------------------------------------------------

    def had(self, name: str) -> bool:
        """Whether a worker has, or can import, a module of this name."""
        return name in self._specs

    def lacks(self, state: ModuleState, name: str, value: object) -> bool:
        """Whether workers never had what a module of the program has under this name now."""
        return False

    def module_of(self, namespace: dict[str, Any]) -> ModuleState | None:
        """The module of the program whose namespace this is, if it is known."""
        name = self._module_of_namespace.get(id(namespace))
        return None if name is None else self.modules[name]

    def has_module(self, module: ModuleType) -> bool:
        """Whether an import of this module's name in a worker gives the same module.

        A module that was loaded since the snapshot, and that workers can import, is added to the
        snapshot as it is now.
        """
        name = module.__name__
        if sys.modules.get(name) is not module:
            return False
        spec = namespace_of(module).get("__spec__")
        if name not in self._specs:
            if self._unimportable.get(name, self) is spec:
                return False
            if not self._can_import(name, spec):
                self._unimportable[name] = spec
                return False
            self._record_module(name, module)
        state = self.modules.get(name)
        return self._specs[name] is spec if state is None else state.module is module

    def _can_import(self, name: str, spec: Any) -> bool:
        """Whether a worker, with `sys.path` as it was, finds a module where the host found it."""
        if spec is None or spec.loader is None and spec.submodule_search_locations is None:
            return False
        parent = name.rpartition(".")[0]
        path: list[str] | None = None
        if parent:
            package = sys.modules.get(parent)
            if package is None or not self.has_module(package):
                return False
            path = list(getattr(package, "__path__", []))
        for finder in self._finders:
            try:
                if finder is importlib.machinery.PathFinder and path is None:
                    found = importlib.machinery.PathFinder.find_spec(name, self._path)
                else:
                    found = finder.find_spec(name, path)
            except Exception:
                continue
            if found is not None:
                return bool(found.origin == spec.origin)
        return False


class ImportedSnapshot(Snapshot):
    """The same for workers that are no forks of this process: they have what they can import.

    Parameters
    ----------
    main : MainSource or None
        What they import as `__main__`.
    """

    def __init__(self, main: MainSource | None) -> None:
        super().__init__()
        self._main = main
        self._importable: dict[str, bool] = {"__main__": main is not None}
        self._finders = [
            finder for finder in self._finders if not _is_of_user(getattr(finder, "__module__", ""))
        ]

    def had(self, name: str) -> bool:
        """Whether a worker can import a module of this name."""
        return super().had(name) and self._can_have(name)

    def has_module(self, module: ModuleType) -> bool:
        """Whether an import of this module's name in a worker gives the same module."""
        return super().has_module(module) and self._can_have(module.__name__)

    def lacks(self, state: ModuleState, name: str, value: object) -> bool:
        """Whether workers never had what a module of the program has under this name now."""
        if self._main is None or state is not self.modules.get("__main__"):
            return False
        return self._main.lacks(name, value)

    def _can_have(self, name: str) -> bool:
        possible = self._importable.get(name)
        if possible is None:
            module = self.modules.get(name)
            spec = self._specs[name]
            if module is None:
                possible = True  # of the standard library or a package
            elif spec is None and "." in name:
                possible = self._can_have(name.rpartition(".")[0])  # its package makes it
            else:
                possible = self._can_import(name, spec)
            self._importable[name] = possible
        return possible


def _is_of_user(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and is_a(module, ModuleType) and is_user_module(name, module)


def is_user_module(name: str, module: ModuleType) -> bool:
    """Whether a module belongs to the program, not to the standard library or a package."""
    if name == "__main__":
        return True
    namespace = namespace_of(module)
    spec, file = namespace.get("__spec__"), namespace.get("__file__")
    known = _verdicts.get(name)
    if known is not None and known[0] is spec and known[1] is file:
        return known[2]
    top = name.partition(".")[0]
    of_user = False
    if top not in _NOT_USER and getattr(spec, "origin", None) not in ("built-in", "frozen"):
        if not isinstance(file, str):
            return _is_of_user_package(top, module)
        of_user = not (file.startswith(_PREFIXES) or any(part in file for part in _PACKAGES))
    _verdicts[name] = (spec, file, of_user)
    return of_user


def _is_of_user_package(top: str, module: ModuleType) -> bool:
    # Extension modules make submodules that have no file: they belong where their package does.
    package = sys.modules.get(top)
    if package is not None and package is not module:
        return is_user_module(top, package)
    return True


def is_user_class(cls: type) -> bool:
    """Whether a class belongs to a module of the user's program."""
    name = cls.__module__
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module is not None and is_a(module, ModuleType) and is_user_module(name, module)


_verdicts: dict[str, tuple[object, object, bool]] = {}
"""What `is_user_module` has found by a module's `__spec__` and `__file__`: each new pool asks."""

_NOT_USER = frozenset(sys.builtin_module_names) | {"libpool", "__mp_main__"}
_PACKAGES = ("/site-packages/", "/dist-packages/")


def _library_prefixes() -> tuple[str, ...]:
    paths = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    both = {path for path in paths if path} | {os.path.realpath(path) for path in paths if path}
    return tuple(path + os.sep for path in both)


_PREFIXES = _library_prefixes()


def cell_contents(cell: CellType) -> Any:
    """What a variable of a closure holds now; `EMPTY_CELL` where it has no value."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY_CELL


def cells_of(function: FunctionType) -> Iterator[tuple[str, CellType]]:
    """The variables of the function's closure."""
    return zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)


def closure_of(function: FunctionType) -> tuple[Any, ...]:
    """What the function's closure holds now."""
    return tuple(map(cell_contents, function.__closure__ or ()))


_METHODS = (
    FunctionType,
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    functools.partialmethod,
)


# What every class has, or what Python adds when somebody asks for it.
_NO_DATA = frozenset(
    [
        "__dict__",
        "__weakref__",
        "__annotations__",
        "__annotations_cache__",
        "__annotate_func__",
        "__slotnames__",  # copyreg, when an instance is pickled
    ]
)


def _is_member(value: object) -> bool:
    """Whether an entry of a class is of the kind that a class consists of, and not data."""
    return callable(value) or is_a(value, _METHODS)


_LRU_CACHE = type(functools.lru_cache(lambda: None))


def inside(value: object) -> Iterator[object]:
    """The callables that calling `value` leads to, where it is a wrapper of a usual kind."""
    kind = type(value)
    if issubclass(kind, (staticmethod, classmethod, MethodType)):
        yield value.__func__  # type: ignore[attr-defined]
    elif issubclass(kind, property):
        for function in (value.fget, value.fset, value.fdel):  # type: ignore[attr-defined]
            if function is not None:
                yield function
    elif issubclass(kind, (functools.partial, functools.partialmethod, functools.cached_property)):
        yield value.func  # type: ignore[attr-defined]
        for argument in getattr(value, "args", ()):
            if callable(argument):
                yield argument
    elif kind is _LRU_CACHE:
        yield value.__wrapped__  # type: ignore[attr-defined]


def _same_items(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    if not one or not other:
        return not one and not other
    return len(one) == len(other) and all(
        key in other and value is other[key] for key, value in one.items()
    )
