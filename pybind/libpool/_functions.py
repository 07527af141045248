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
import operator
import os
import pickle
import sys
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

from libpool import _pickling
from libpool._checks import MISSING, Capture, Check, Guarded
from libpool._names import Chain
from libpool._snapshot import (
    DRIFTED,
    SAME,
    ClassState,
    Snapshot,
    cell_contents,
    cells_of,
    closure_of,
    is_a,
    namespace_of,
)

__all__ = ["Guards", "Registry"]

Guards = tuple[tuple[Any, ...], ...]

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
        self._same: dict[int, _Known] = {}
        self._made: dict[int, _Made] = {}
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
        if kind is FunctionType:
            made = self._made.get(id(fn.__code__)) if self._made else None
            if made is not None and made.fits(fn, self.tolerated()):
                return made.payload, None
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
                self._keep_made(fn, payload, capture)
                return self._keep(fn, payload, capture)
        return payload, None

    def _keep(
        self, fn: Callable[..., Any], payload: bytes, found: Guarded
    ) -> tuple[bytes, Guards | None]:
        guards = tuple(found.found.values())
        if not found.classes:
            return payload, guards
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known[id(fn)] = _Known(fn, payload, guards, tuple(found.classes.values()))
        return payload, None

    def _keep_made(self, fn: Callable[..., Any], payload: bytes, found: Guarded) -> None:
        if type(fn) is not FunctionType or len(payload) > _MADE_LIMIT:
            return
        # Others may have annotations, of which 3.14 would have to ask what they are.
        if fn.__code__.co_name != "<lambda>" or not _has_nothing_of_its_own(fn):
            return
        if len(self._made) >= _KNOWN_LIMIT:
            self._made.clear()
        self._made[id(fn.__code__)] = _Made(fn, payload, found)

    def standing(self, obj: Any) -> int:
        """Tell what a worker has under the name of a function, class or module: see `SAME`."""
        known = self._same.get(id(obj))
        if known is not None and known.function is obj and known.holds(self.tolerated()):
            return SAME
        check = Check(self)
        check.reference(obj)
        if check.verdict == SAME and not is_a(obj, ModuleType):  # of which there are no guards
            if len(self._same) >= _KNOWN_LIMIT:
                self._same.clear()
            guards = tuple(check.found.values())
            self._same[id(obj)] = _Known(obj, b"", guards, tuple(check.classes.values()))
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
            value = namespace_of(module).get(name, MISSING)
            if value is MISSING:
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


def all_have(names: Iterable[tuple[str, str]]) -> bool:
    """Whether the workers of all pools have the same under these names.

    Parameters
    ----------
    names : iterable of (module, qualified name)
        From a pickle that this process has made.
    """
    registries = list(_pickling.registries)
    for module, name in names:
        value: Any = sys.modules.get(module)
        for part in name.split("."):
            value = getattr(value, part, None)
        if type(value) is FunctionType or is_a(value, type):
            if value.__module__ != module or value.__qualname__ != name:
                return False
            if any(registry.standing(value) != SAME for registry in registries):
                return False
        elif module == "__main__":
            return False
    return bool(registries)


_KNOWN_LIMIT = 1000

_MADE_LIMIT = 16384
"""Bytes of a payload that is kept although its function may be gone."""


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


class _Made:
    """What was sent for a lambda: good for others that the same expression makes.

    That is so for those that have nothing of their own: no defaults, and the same objects in the
    closure, of which it is known that they are constant.
    """

    def __init__(self, function: FunctionType, payload: bytes, found: Guarded) -> None:
        own = {("func", id(function)), *(("cell", id(cell)) for _, cell in cells_of(function))}
        guards = tuple(guard for key, guard in found.found.items() if key not in own)
        self.function: Any = function  # the last one that it was right for
        self.payload = payload
        self._others = _Known(function, payload, guards, tuple(found.classes.values()))

    def fits(self, fn: Callable[..., Any], tolerated: int) -> bool:
        """Whether the payload is right for another function of the same code.

        Once for each: what is sent again and again is worth guards of its own.
        """
        last = self.function
        fits = (
            type(fn) is FunctionType
            and fn is not last
            and fn.__code__ is last.__code__
            and fn.__globals__ is last.__globals__
            and _has_nothing_of_its_own(fn)
            and fn.__name__ == last.__name__
            and fn.__qualname__ == last.__qualname__
            and fn.__module__ == last.__module__
            and fn.__doc__ is last.__doc__
            and all(map(operator.is_, closure_of(fn), closure_of(last)))
            and self._others.holds(tolerated)
        )
        if fits:
            self.function = fn
        return fits


def _has_nothing_of_its_own(function: FunctionType) -> bool:
    return (
        function.__defaults__ is None
        and function.__kwdefaults__ is None
        and not function.__dict__
        and not function.__annotations__
    )
