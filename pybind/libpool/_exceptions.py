"""Exceptions of jobs: as faithfully as can be, with the worker's traceback."""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Iterator
from typing import Any

from libpool._errors import RemoteError, RemoteTraceback, short_repr
from libpool._pickling import PROTOCOL, dumps

__all__ = ["dumps_exception", "loads_exception", "memory_limit"]

memory_limit = 0
"""Bytes that this worker may allocate; 0: no limit."""


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
