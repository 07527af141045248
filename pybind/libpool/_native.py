"""Functions of shared libraries, called by workers without their interpreter.

import ctypes, libpool

cos = libpool.native("libm.so.6", "cos", argtypes=[ctypes.c_double], restype=ctypes.c_double)
with libpool.Pool() as pool:
    pool.submit(cos, 1.0).result()
    pool.map(cos, [0.0, 1.0, 2.0])
    cos.map(pool, numpy.linspace(0, 1, 1_000_000))  # from array to array
"""

from __future__ import annotations

import array
import ctypes
import os
import sys
from _ctypes import CFuncPtr
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from libpool import _core
from libpool._errors import note_lost_items

__all__ = ["InOut", "NativeFunction", "Out", "native"]

_CHUNKS_PER_WORKER = 4
"""Into how many chunks `NativeFunction.map` divides its items for each worker, as `Pool.map`."""


class _Same:
    """Stands for an argument that was not given."""


_SAME = _Same()


@runtime_checkable
class _Sized(Protocol):
    def __len__(self) -> int: ...


class Out:
    """A buffer that a native function writes to.

    Workers don't see the caller's memory. The function gets zeroed memory of the same size, and
    what it has written there is copied to the buffer when the future's result, or exception, is
    asked for.

    Parameters
    ----------
    target : int or buffer
        A writable, contiguous buffer (a `bytearray`, an array of NumPy, an object of ctypes), or
        how many bytes a new `bytearray` is to have.

    Attributes
    ----------
    buffer
        Where the result is.
    """

    __slots__ = ("buffer",)

    buffer: Any

    def __init__(self, target: Any) -> None:
        if isinstance(target, int):
            if target < 0:
                raise ValueError(f"a buffer can't have {target} bytes")
            self.buffer = bytearray(target)
            return
        with memoryview(target) as view:
            if view.readonly:
                raise TypeError(f"{type(target).__name__} can't be written to")
            if not view.contiguous:
                raise ValueError("the buffer is not contiguous")
        self.buffer = target

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.buffer!r})"


class InOut(Out):
    """A buffer that a native function reads and writes; see `Out`.

    The function finds there what the buffer contained when the job was submitted.
    """

    __slots__ = ()


class NativeFunction(_core.NativeFunction):
    """A C function that workers call without their interpreter. Made by `native`.

    It can be given to every method of `Pool` and `Executor` that takes a function, also in a job,
    and to those of other executors. Called directly, it runs in this process.

    Attributes
    ----------
    library : str
        The library that it lies in, as the loader knows it; empty for the executable.
    """

    __slots__ = ()

    def map(
        self, pool: _core.Workers, *columns: Any, out: Any = None, chunksize: int | None = None
    ) -> Any:
        """Call the function for each item of buffers, in parallel, from array to array.

        No Python object is made for an item. It blocks until all calls have ended.

        Parameters
        ----------
        pool : Pool or Executor
        *columns
            One for each parameter: a one-dimensional contiguous buffer with items of exactly the
            parameter's type, or a number, which goes to all calls. All buffers have one length.
        out : buffer, optional
            Where the results go: as many items, of exactly the type that is returned. By default
            a new array, of NumPy if one of the columns is, else an `array.array`.
        chunksize : int, optional
            How many calls are one job. By default there are four jobs for each worker.

        Returns
        -------
        buffer
            `out`, or the new array; None if the function returns nothing.

        Raises
        ------
        TypeError, ValueError
            A buffer has items of another type, or another length; `chunksize` is below 1.
        WorkerDied, TimeoutError
            Of the first job, in order, that failed; it is raised when all have ended.
        """
        parameters = len(self._arguments)
        if len(columns) != parameters:
            raise TypeError(f"{self.__name__} takes {parameters} columns, and got {len(columns)}")
        count = _length(columns)
        if chunksize is None:
            chunksize = -(-count // (pool.workers * _CHUNKS_PER_WORKER)) or 1
        elif chunksize < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}")
        if out is None:
            out = self._new_array(columns, count)
        elif self._result == "v":
            raise TypeError(f"{self.__name__} returns nothing, so there is nothing for `out`")
        elif len(out) != count:
            raise ValueError(f"out has {len(out)} items, and there are {count} calls")
        futures = [
            (start, self._submit_columns(pool, columns, start, min(start + chunksize, count), out))
            for start in range(0, count, chunksize)
        ]
        failure: BaseException | None = None
        for start, future in futures:
            error = future.exception()
            if error is not None and failure is None:
                failure = error
                note_lost_items(error, start, min(chunksize, count - start))
        if failure is None:
            return out
        try:
            raise failure
        finally:
            del failure, error, future, futures  # breaks a cycle with this frame

    def _new_array(self, columns: Iterable[Any], count: int) -> Any:
        if self._result == "v":
            return None
        numpy = sys.modules.get("numpy")
        if numpy is not None and any(isinstance(column, numpy.ndarray) for column in columns):
            return numpy.empty(count, "S1" if self._result == "c" else self._result)
        if self._result == "?":
            return memoryview(bytearray(count)).cast("?")
        if self._result == "c":
            return bytearray(count)
        return array.array(self._result, bytes(count * array.array(self._result).itemsize))

    def __repr__(self) -> str:
        return f"<native function {self.__name__} of {self.library or 'the executable'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        place = (self.library, self._offset)
        return _restore, (*place, self.__name__, self._result, self._arguments)


def _length(columns: Iterable[Any]) -> int:
    lengths = {len(c) for c in columns if isinstance(c, _Sized) and _is_column(c)}
    if len(lengths) != 1:
        what = "different lengths" if lengths else "no length: one of them has to be a buffer"
        raise ValueError(f"the columns have {what}")
    return lengths.pop()


def _is_column(column: Any) -> bool:
    return not (isinstance(column, bytes) and len(column) == 1)


def _restore(
    library: str, offset: int, name: str, result: str, arguments: tuple[str, ...]
) -> NativeFunction:
    """Make the function again in another process: load its library."""
    owner = ctypes.CDLL(library or None)
    address = _core.NativeFunction._load_address(owner._handle) + offset
    return NativeFunction(address, name, result, "".join(arguments), owner)


# ---- From ctypes and cffi -----------------------------------------------------------------------

_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_PYTHON_API = 4  # FUNCFLAG_PYTHONAPI: what ctypes.PyDLL and ctypes.PYFUNCTYPE make


def _integer(size: int, signed: bool) -> str:
    return _SIGNED[size] if signed else _SIGNED[size].upper()


def _scalar(kind: Any) -> str | None:
    """The letter of a simple type of ctypes, or None if it is none that can be passed."""
    if not (isinstance(kind, type) and issubclass(kind, ctypes._SimpleCData)):
        return None
    letter: str = kind._type_  # type: ignore[attr-defined]
    if getattr(kind, "__ctype_le__", kind) is not kind:
        return None  # of the other byte order
    if letter in "?cfd":
        return letter
    if letter in "bhilqBHILQ":
        return _integer(ctypes.sizeof(kind), letter.islower())
    return None


def _parameter(kind: Any, where: str) -> str:
    """What the C code takes for a parameter's type in ctypes."""
    letter = _scalar(kind)
    if letter is not None:
        return letter
    if isinstance(kind, type):
        if issubclass(kind, ctypes.c_void_p):
            dtype = getattr(kind, "_dtype_", None)  # numpy.ctypeslib.ndpointer
            return "P" + (_element(dtype) if dtype is not None else "v")
        if issubclass(kind, ctypes.c_char_p):
            return "Pc"
        if issubclass(kind, ctypes._Pointer | ctypes.Array):
            return "P" + (_scalar(kind._type_) or "v")
    raise TypeError(
        f"{where}: workers can be given C scalars and pointers to buffers, not {_name_of(kind)}"
    )


def _element(dtype: Any) -> str:
    if dtype.kind in "iu":
        return _integer(dtype.itemsize, dtype.kind == "i")
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        return "f" if dtype.itemsize == 4 else "d"
    return "?" if dtype.kind == "b" else "v"


def _returned(kind: Any, name: str) -> str:
    if kind is None:
        return "v"
    letter = _scalar(kind)
    if letter is None:
        raise TypeError(
            f"{name} returns {_name_of(kind)}: only C scalars can be returned by a worker; an "
            "address means nothing in another process, and for memory there is libpool.Out"
        )
    return letter


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else repr(kind)


def _from_ctypes(
    function: Any, name: str, argtypes: Any, restype: Any, owner: object
) -> NativeFunction:
    if function._flags_ & _PYTHON_API:
        raise TypeError(f"{name} is a function of Python's own interface: it needs the interpreter")
    if argtypes is _SAME:
        argtypes = function.argtypes
        if argtypes is None:
            raise TypeError(f"{name} has no argtypes: set them, and restype, or pass them here")
    if restype is _SAME:
        restype = function.restype
        if getattr(function, "errcheck", None) is not None:
            raise TypeError(f"{name} has an errcheck function, which would need the interpreter")
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    arguments = [_parameter(kind, f"argument {i} of {name}") for i, kind in enumerate(argtypes, 1)]
    return NativeFunction(address, name, _returned(restype, name), "".join(arguments), owner)


def _from_cffi(function: Any, name: str | None) -> NativeFunction:
    backend = sys.modules["_cffi_backend"]
    ffi = backend.FFI()
    kind = ffi.typeof(function)
    if kind.kind == "pointer" and kind.item.kind == "function":
        kind = kind.item
    if kind.kind != "function":
        raise TypeError(f"{function!r} is no function")
    name = name or repr(function).removeprefix("<cdata ").removesuffix(">")
    if kind.ellipsis:
        raise TypeError(f"{name} has a variable number of arguments")
    result = "v" if kind.result.kind == "void" else _cffi_scalar(ffi, kind.result)
    if result is None:
        raise TypeError(f"{name} returns {kind.result.cname}: only C scalars can be returned")
    arguments = []
    for number, parameter in enumerate(kind.args, 1):
        letter = _cffi_scalar(ffi, parameter)
        if letter is None and parameter.kind == "pointer" and parameter.item.kind != "function":
            letter = "P" + (_cffi_scalar(ffi, parameter.item) or "v")
        if letter is None:
            raise TypeError(f"argument {number} of {name}: {parameter.cname} can't be passed")
        arguments.append(letter)
    address = int(ffi.cast("uintptr_t", function))
    return NativeFunction(address, name, result, "".join(arguments), function)


def _cffi_scalar(ffi: Any, kind: Any) -> str | None:
    if kind.kind not in ("primitive", "enum"):
        return None
    if kind.cname in ("float", "double"):
        return str(kind.cname[0])
    if kind.cname == "_Bool":
        return "?"
    if kind.cname == "char":
        return "c"
    if kind.cname in ("long double", "wchar_t", "char16_t", "char32_t") or "omplex" in kind.cname:
        return None
    return _integer(ffi.sizeof(kind), int(ffi.cast(kind, -1)) < 0)


def native(
    function: Any, name: str | None = None, *, argtypes: Any = _SAME, restype: Any = _SAME
) -> NativeFunction:
    """Make a C function known as one that workers can call without their interpreter.

    Parameters
    ----------
    function
        One of these:

        - a function of ctypes, with its `argtypes` and `restype` set;
        - a function pointer of cffi (a ``cdata``; of a compiled module,
          ``ffi.addressof(lib, "name")``);
        - the path or name of a shared library, or a `ctypes.CDLL`, with `name`.
    name : str, optional
        The function's name in the library; otherwise, what to call it in messages.
    argtypes : sequence of ctypes types, optional
        What it takes: integers of any width, `c_float`, `c_double`, `c_bool`, `c_char`, and
        pointers (`c_void_p`, `c_char_p`, ``POINTER(c_double)``, `numpy.ctypeslib.ndpointer`). To a
        pointer any contiguous buffer can be passed, which the function gets a copy of; `Out` and
        `InOut` for what it writes to; and None for NULL. A pointer to a type takes buffers with
        items of this type, or bytes. Default: what the function of ctypes has.
    restype : ctypes type or None, optional
        What it returns: a scalar, or None for void. Default: what the function of ctypes has.

    Returns
    -------
    NativeFunction
        To be passed to `Pool.submit`, `Pool.map`, `Executor.submit` and so on.

    Raises
    ------
    TypeError
        The types are not known, or are not of the kind that can be passed.
    ValueError
        The function lies in no library, as do callbacks (``CFUNCTYPE`` of a Python function) and
        code made at run time; or it takes more arguments than can be passed.
    AttributeError, OSError
        There is no such function, or library.
    NotImplementedError
        This is neither an x86-64 nor a 64-bit ARM machine.

    Notes
    -----
    The function runs in a worker's process, so static data of its library are that worker's own. It
    must not call Python. A variadic function can't be called. Where the library was loaded after
    the pool was made, workers load it themselves, under the path by which it was loaded here.

    The buffers lie in the pool's shared memory: a function that writes past the end of one may
    spoil other jobs' data. It can't crash this process.
    """
    backend = sys.modules.get("_cffi_backend")
    if backend is not None and isinstance(function, backend._CDataBase):
        if argtypes is not _SAME or restype is not _SAME:
            raise TypeError("a function of cffi has its types already")
        return _from_cffi(function, name)
    if isinstance(function, str | os.PathLike):
        path = os.fspath(function)
        function = ctypes.CDLL(os.path.abspath(path) if os.sep in path else path)
        if name is None:
            raise TypeError("native() needs the name of the function in the library")
    if isinstance(function, ctypes.CDLL):
        if name is None:
            raise TypeError("native() needs the name of the function in the library")
        if isinstance(argtypes, _Same) or isinstance(restype, _Same):
            raise TypeError(f"native() needs the argtypes and the restype of {name}")
        function = function[name]
    if isinstance(function, CFuncPtr):
        name = name or getattr(function, "__name__", None) or "function"
        return _from_ctypes(function, name, argtypes, restype, function)
    if isinstance(function, int):
        raise TypeError("native() takes no addresses: make a function of ctypes or cffi of it")
    raise TypeError(
        f"{function!r} is no C function that is known by its types: native() takes functions of "
        "ctypes, function pointers of cffi (ffi.addressof(lib, name)), and names of libraries"
    )
