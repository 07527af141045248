"""Which names from outside a code object uses."""

from __future__ import annotations

import dis
from types import CodeType
from typing import NamedTuple

__all__ = ["Chain", "Names", "names_of"]

Chain = tuple[str, ...]
"""A name and the attributes that are read from it on the spot: ``a.b.c(x).d`` is
``("a", "b", "c")``."""

_GLOBAL = frozenset(
    ["LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "STORE_GLOBAL", "DELETE_GLOBAL"]
)
_FREE = frozenset(["LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"])
_ATTRIBUTE = frozenset(["LOAD_ATTR", "LOAD_METHOD"])
_BETWEEN = frozenset(["CACHE", "EXTENDED_ARG"])


class Names(NamedTuple):
    """What a code object, and the code nested in it, uses from outside."""

    globals: frozenset[Chain]
    free: frozenset[Chain]

    def tails_of(self, variable: str) -> list[Chain]:
        """The attributes that are read from a free variable."""
        return [chain[1:] for chain in self.free if chain[0] == variable and len(chain) > 1]


# Keyed by identity, since the hash of a code object is computed from its whole content each time.
_cache: dict[int, tuple[CodeType, Names]] = {}
_CACHE_LIMIT = 10_000


def names_of(code: CodeType) -> Names:
    """Find the names from outside that a code object uses."""
    found = _cache.get(id(code))
    if found is not None and found[0] is code:
        return found[1]
    names = _find(code)
    if len(_cache) >= _CACHE_LIMIT:
        _cache.clear()
    _cache[id(code)] = (code, names)
    return names


def _find(code: CodeType) -> Names:
    found: dict[bool, set[Chain]] = {True: set(), False: set()}
    chain: Chain = ()
    is_global = True
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if chain and operation in _ATTRIBUTE:
            chain += (instruction.argval,)
        elif operation not in _BETWEEN:
            if chain:
                found[is_global].add(chain)
            is_global = operation in _GLOBAL
            chain = (instruction.argval,) if is_global or operation in _FREE else ()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            nested = names_of(constant)
            found[True] |= nested.globals
            found[False] |= nested.free
    free = {chain for chain in found[False] if chain[0] in code.co_freevars}
    return Names(frozenset(found[True]), frozenset(free))
