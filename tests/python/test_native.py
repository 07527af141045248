"""Native jobs: C functions called by workers without their interpreter."""

from __future__ import annotations

import array
import ctypes
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.ctypeslib import ndpointer
from support import Gate, cpu_seconds, program, run, until

import libpool
from libpool import Executor, InOut, Out, Pool, WorkerDied, native

SOURCE = Path(__file__).with_name("native_functions.c")
C = ctypes
double_p = C.POINTER(C.c_double)


def compile_library(folder: Path, name: str = "libnative_functions.so") -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path = folder / name
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", SOURCE, "-o", path],
        check=True,
        timeout=60,
    )
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def function(path: Path) -> Callable[..., libpool.NativeFunction]:
    def get(name: str, restype: Any, *argtypes: Any) -> libpool.NativeFunction:
        return native(path, name, argtypes=argtypes, restype=restype)

    return get


@pytest.fixture(scope="module")
def cos() -> libpool.NativeFunction:
    return native("libm.so.6", "cos", argtypes=[C.c_double], restype=C.c_double)


# ---- Scalars ------------------------------------------------------------------------------------

INTEGERS = {
    "int8": C.c_int8,
    "uint8": C.c_uint8,
    "int16": C.c_int16,
    "uint16": C.c_uint16,
    "int32": C.c_int32,
    "uint32": C.c_uint32,
    "int64": C.c_int64,
    "uint64": C.c_uint64,
}


def limits(name: str) -> tuple[int, int]:
    bits = int(name.removeprefix("u").removeprefix("int"))
    return (0, (1 << bits) - 1) if name[0] == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_of_every_width_arrive_and_those_out_of_range_are_refused(
    workers: Pool | Executor, function: Any, name: str
) -> None:
    same = function(f"same_{name}", INTEGERS[name], INTEGERS[name])
    low, high = limits(name)
    values = [low, low + 1, 0, 1, high - 1, high, high // 3]
    assert [workers.submit(same, value).result() for value in values] == values
    assert list(workers.map(same, values)) == values
    for value in (low - 1, high + 1, 1 << 80, -(1 << 80)):
        with pytest.raises(OverflowError, match=rf"{value} does not fit in {name}$"):
            workers.submit(same, value).result()
    for wrong in (1.5, "1", None, b"1"):
        with pytest.raises(TypeError, match="argument 1 of same_.*must be an integer, not"):
            workers.submit(same, wrong).result()
    assert workers.submit(same, np.int8(1)).result() == 1
    assert workers.submit(same, C.c_int(1)).result() == 1


def test_floats_arrive_bit_by_bit(pool: Pool, function: Any) -> None:
    doubles = [0.0, -0.0, 1.5, 5e-324, sys.float_info.max, math.inf, -math.inf]
    same = function("same_double", C.c_double, C.c_double)
    assert [x.hex() for x in pool.map(same, doubles)] == [x.hex() for x in doubles]
    assert math.isnan(pool.apply(same, [math.nan]))
    singles = [0.0, -0.0, 1.5, 2.0**-149, 3.4028234663852886e38, math.inf, 1 / 3]
    same = function("same_float", C.c_float, C.c_float)
    assert pool.map(same, singles) == [C.c_float(x).value for x in singles]
    assert math.isnan(pool.apply(same, [math.nan]))
    assert pool.apply(same, [7]) == 7.0 and pool.apply(same, [np.float32(0.1)]) == np.float32(0.1)
    with pytest.raises(TypeError, match="must be a real number, not str"):
        pool.apply(same, ["1"])


def test_bools_and_chars_are_those_of_python(pool: Pool, function: Any) -> None:
    same = function("same_bool", C.c_bool, C.c_bool)
    assert pool.map(same, [True, False, 7, "", C.c_bool(True)]) == [True, False, True, False, True]
    same = function("same_char", C.c_char, C.c_char)
    assert pool.map(same, [b"a", 0, 255]) == [b"a", b"\0", b"\xff"]
    with pytest.raises(OverflowError, match="256 does not fit in char"):
        pool.apply(same, [256])
    for wrong in (b"ab", "a", b""):
        with pytest.raises(TypeError, match="bytes object of length 1"):
            pool.apply(same, [wrong])


def test_void_is_none_and_no_arguments_are_none(workers: Pool | Executor, function: Any) -> None:
    nothing = function("do_nothing", None)
    assert workers.submit(nothing).result() is None
    with pytest.raises(TypeError, match="do_nothing takes 0 arguments, and 1 was given"):
        workers.submit(nothing, 1).result()
    with pytest.raises(TypeError, match="no keyword arguments, such as 'x'"):
        workers.submit(nothing, x=1).result()


MIXED: tuple[Any, ...] = (
    C.c_int8,
    C.c_double,
    C.c_uint16,
    C.c_float,
    C.c_int64,
    C.c_float,
    C.c_uint8,
    C.c_double,
)
MIXED += (C.c_bool, C.c_int32)
MANY: tuple[Any, ...] = (C.c_int,) * 7 + (C.c_int8, C.c_int, C.c_int64) + (C.c_double,) * 4
MANY += (C.c_float, *(C.c_double,) * 3, C.c_float, C.c_double)


@pytest.mark.parametrize("name, types", [("mixed", MIXED), ("many", MANY)])
def test_arguments_of_all_kinds_mixed_go_where_they_belong(
    pool: Pool, function: Any, name: str, types: Any
) -> None:
    weighted = function(name, C.c_double, *types)
    chance = random.Random(1)
    for _ in range(50):
        values = [
            chance.randrange(2)
            if kind is C.c_bool
            else chance.randrange(-100, 100) / 4
            if kind in (C.c_float, C.c_double)
            else chance.randrange(100)
            for kind in types
        ]
        wanted = sum(place * value for place, value in enumerate(values, 1))
        assert pool.apply(weighted, values) == wanted == weighted(*values)
    assert pool.starmap(weighted, [values] * 3) == [wanted] * 3


# ---- Buffers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.array, lambda xs: array.array("d", xs), bytearray, bytes])
def test_a_buffer_of_any_kind_is_passed_as_a_pointer(pool: Pool, function: Any, make: Any) -> None:
    total = function("total", C.c_double, double_p, C.c_int64)
    for count in (0, 1, 7, 1000, 300_000):
        numbers = np.arange(float(count))
        data = make(numbers.tobytes() if make in (bytes, bytearray) else numbers)
        future = pool.submit(total, data, count)
        assert future.result() == total(data, count) == numbers.sum()


def test_buffers_are_aligned_for_vector_instructions(pool: Pool, function: Any) -> None:
    misalignment = function("misalignment", C.c_int64, C.c_void_p)
    for size in (64, 100, 5000, 1 << 20):
        data = memoryview(bytes(size + 1))[1:]
        assert pool.apply(misalignment, [data]) == 0
        assert pool.apply(misalignment, [Out(size)]) == 0
        assert pool.apply(misalignment, [InOut(bytearray(size))]) == 0
    assert pool.apply(misalignment, [Out(8)]) % 16 == 0


def test_what_a_function_writes_to_comes_back_in_the_callers_buffers(
    workers: Pool | Executor, function: Any
) -> None:
    both = function(
        "sums_and_differences",
        *(C.c_int, C.POINTER(C.c_int32), C.POINTER(C.c_int32), C.c_int64),
        *(C.POINTER(C.c_int32), C.POINTER(C.c_int64)),
    )
    for count in (1, 3, 1000, 100_000):
        a, b = np.arange(count, dtype=np.int32), np.full(count, 5, np.int32)
        sums, differences = array.array("i", [-1] * count), Out(8 * count)
        future = workers.submit(both, a, b, count, Out(sums), differences)
        assert future.result() == 0, "the function finds zeros there, no other job's data"
        assert sums.tolist() == (a + b).tolist()
        assert np.frombuffer(differences.buffer, np.int64).tolist() == (a - b).tolist()


def test_in_out_brings_the_contents_there_and_back(pool: Pool, function: Any) -> None:
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    numbers = np.arange(1000.0)
    assert pool.submit(scale, InOut(numbers), 1000, 3.0).result() is None
    assert numbers.tolist() == (np.arange(1000.0) * 3).tolist()
    square = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    pool.apply(scale, [InOut(square), 6, 2.0])
    assert square.tolist() == [[0, 2, 4], [6, 8, 10]]
    single = C.c_double(4)
    pool.apply(scale, [InOut(single), 1, 0.5])
    assert single.value == 2


def test_what_is_written_to_other_buffers_is_lost(pool: Pool, function: Any) -> None:
    overwrite = function("overwrite", None, C.c_char_p)
    data, text = bytearray(b"abc\0"), b"abc"
    pool.apply(overwrite, [data])
    pool.apply(overwrite, [text])
    overwrite(text)
    assert data == b"abc\0" and text == b"abc"


def test_bytes_end_with_a_zero_byte_as_strings_of_c_do(pool: Pool, function: Any) -> None:
    length = function("length", C.c_int64, C.c_char_p)
    assert pool.map(length, [b"", b"abc", b"x" * 63, b"x" * 5000]) == [0, 3, 63, 5000]
    with pytest.raises(TypeError, match="encode the text to bytes"):
        pool.apply(length, ["abc"])


def test_none_is_null(pool: Pool, function: Any) -> None:
    is_null = function("is_null", C.c_int, C.c_void_p)
    assert pool.map(is_null, [None, b"", bytearray(3), None]) == [1, 0, 0, 1]


def test_structures_of_ctypes_go_by_pointer(pool: Pool, function: Any) -> None:
    class Point(C.Structure):
        _fields_ = [("x", C.c_double), ("y", C.c_double)]

    squared = function("distance_squared", C.c_double, C.POINTER(Point), C.POINTER(Point))
    assert pool.apply(squared, [Point(1, 2), Point(4, 6)]) == 25


def test_buffers_go_along_with_map(pool: Pool, function: Any) -> None:
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    arrays = [np.arange(float(n)) for n in range(50)]
    pool.starmap(scale, [(InOut(a), len(a), 2.0) for a in arrays], chunksize=7)
    assert all((a == 2 * np.arange(float(n))).all() for n, a in enumerate(arrays))


def test_a_pointer_takes_items_of_its_type_only(pool: Pool, function: Any) -> None:
    total = function("total", C.c_double, double_p, C.c_int64)
    for wrong in (np.zeros(3, np.float32), np.zeros(3, np.int64), np.zeros(3, ">f8")):
        with pytest.raises(TypeError, match="argument 1 of total must be a buffer of double"):
            pool.apply(total, [wrong, 3])
        with pytest.raises(TypeError, match="argument 1 of total must be a buffer of double"):
            pool.apply(total, [InOut(wrong), 3])
    assert pool.apply(total, [np.array([1 + 2j]), 2]) == 3
    of_numpy = function("total", C.c_double, ndpointer(np.float64), C.c_int64)
    assert pool.apply(of_numpy, [np.ones(3), 3]) == 3
    with pytest.raises(TypeError, match="must be a buffer of double"):
        pool.apply(of_numpy, [np.ones(3, np.int64), 3])


def test_what_is_no_buffer_is_refused_with_advice(pool: Pool, function: Any) -> None:
    total = function("total", C.c_double, double_p, C.c_int64)
    number = C.c_double(1)
    for wrong, advice in [
        (C.addressof(number), "an address means nothing in another process"),
        (C.byref(number), r"InOut\(x\) in the place of byref\(x\)"),
        ([1.0], "a buffer, Out, InOut or None, not list"),
    ]:
        with pytest.raises(TypeError, match=advice):
            pool.apply(total, [wrong, 1])
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        pool.apply(total, [np.zeros(6)[::2], 3])
    with pytest.raises(TypeError, match="bytes can't be written to"):
        Out(b"abc")
    with pytest.raises(ValueError, match="not contiguous"):
        InOut(np.zeros(6)[::2])
    with pytest.raises(ValueError, match="-1 bytes"):
        Out(-1)


def test_a_buffer_that_a_result_goes_to_keeps_its_size_until_then(
    gate: Callable[[], Gate], function: Any
) -> None:
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    data = bytearray(80)
    with Pool(1) as pool:
        future = pool.submit(scale, InOut(data), 10, 2.0)
        with pytest.raises(BufferError):
            data.extend(b"more")
        future.result()
        data.extend(b"more")
        pool.submit(scale, InOut(data), 10, 2.0)  # a future that nobody keeps
        data.extend(b"more")


# ---- Where functions come from ------------------------------------------------------------------


def test_a_function_of_ctypes_brings_its_types(pool: Pool) -> None:
    library = C.CDLL("libm.so.6")
    library.pow.argtypes, library.pow.restype = [C.c_double, C.c_double], C.c_double
    assert pool.apply(native(library.pow), [2, 10]) == 1024
    assert pool.apply(native(library, "ldexp", argtypes=[C.c_double, C.c_int], restype=C.c_double),
                      [3, 4]) == 48  # fmt: skip
    prototype = C.CFUNCTYPE(C.c_double, C.c_double)
    assert pool.apply(native(prototype(("fabs", library))), [-2]) == 2
    assert repr(native(library.pow)).startswith("<native function pow of /")


def test_who_sends_a_function_of_ctypes_as_it_is_learns_of_native(pool: Pool, path: Path) -> None:
    error = pool.submit(C.CDLL(str(path)).total, b"", 0).exception()
    assert isinstance(error, ValueError)
    assert any("libpool.native()" in note for note in error.__notes__)


def test_a_function_pointer_of_cffi_brings_its_types(pool: Pool, path: Path) -> None:
    ffi = pytest.importorskip("cffi").FFI()
    ffi.cdef(
        """double total(const double *, int64_t); void scale(double *, long, double);
        unsigned char same_uint8(uint8_t); _Bool same_bool(_Bool); char same_char(char);
        double (*get(void))(double); double mixed(int8_t, double, unsigned short, float, long long,
        float, uint8_t, double, _Bool, int); int variadic(int, ...); struct s { int x; };
        void by_value(struct s); int64_t length(const char *);"""
    )
    library = ffi.dlopen(str(path))
    numbers = np.arange(10.0)
    assert pool.apply(native(library.total), [numbers, 10]) == 45
    assert pool.apply(native(ffi.addressof(library, "total")), [ffi.buffer(ffi.new("double[3]"))
                      , 3]) == 0  # fmt: skip
    pool.apply(native(library.scale), [InOut(numbers), 10, 2])
    assert numbers[9] == 18
    assert pool.apply(native(library.same_uint8), [200]) == 200
    assert pool.apply(native(library.same_bool), [True]) is True
    assert pool.apply(native(library.same_char), [b"z"]) == b"z"
    assert pool.apply(native(library.length, "strlen"), [b"four"]) == 4
    assert pool.apply(native(library.mixed), [1] * 10) == 55
    pointer = ffi.cast("double (*)(const double *, int64_t)", library.total)
    assert pool.apply(native(pointer), [numbers, 0]) == 0
    with pytest.raises(TypeError, match="has its types already"):
        native(library.total, argtypes=[])
    notes = pool.submit(library.total, numbers, 10).exception().__notes__
    assert any("libpool.native()" in note for note in notes)
    with pytest.raises(ValueError, match="lies in no library"):
        native(ffi.callback("int(int)", lambda x: x))
    assert pytest.raises(TypeError, native, ffi.cast("int", 3)).match("is no function")
    with pytest.raises(TypeError, match=r"only C scalars can be returned"):
        native(ffi.cast("char *(*)(void)", library.total))
    with pytest.raises(TypeError, match=r"argument 1 of .*struct s can't be passed"):
        native(ffi.cast("void (*)(struct s)", library.total))
    with pytest.raises(TypeError, match="variable number"):
        native(ffi.cast("int (*)(int, ...)", library.total))


def test_code_that_lies_in_no_library_is_refused() -> None:
    callback = C.CFUNCTYPE(C.c_int, C.c_int)(lambda x: x)
    with pytest.raises(ValueError, match="lies in no library: a callback, or code that was made"):
        native(callback)
    with pytest.raises(ValueError, match="lies in no library"):
        native(C.CFUNCTYPE(None)(0x1000))
    data = C.c_char.in_dll(C.pythonapi, "Py_FileSystemDefaultEncoding")
    inside = C.CFUNCTYPE(None)(C.addressof(data))
    with Pool(1) as pool, pytest.raises(ValueError, match="is no code of a library"):
        pool.submit(native(inside)).result()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda lib: native(len), TypeError, "is no C function that is known by its types"),
        (lambda lib: native(1234), TypeError, "takes no addresses"),
        (lambda lib: native("libm.so.6"), TypeError, "needs the name of the function"),
        (lambda lib: native(lib), TypeError, "needs the name of the function"),
        (lambda lib: native(lib, "cos"), TypeError, "needs the argtypes and the restype of cos"),
        (lambda lib: native(lib.sin), TypeError, "sin has no argtypes"),
        (lambda lib: native("libm.so.6", "no_such", argtypes=[], restype=None), AttributeError,
         "no_such"),
        (lambda lib: native("./no_such.so", "f", argtypes=[], restype=None), OSError, "no_such.so"),
        (lambda lib: native(lib.sin, argtypes=[C.c_longdouble], restype=None), TypeError,
         "argument 1 of sin.*not c_longdouble"),
        (lambda lib: native(lib.sin, argtypes=[C.py_object], restype=None), TypeError, "py_object"),
        (lambda lib: native(lib.sin, argtypes=[C.c_wchar_p], restype=None), TypeError, "c_wchar_p"),
        (lambda lib: native(lib.sin, argtypes=[C.c_int.__ctype_be__], restype=None), TypeError,
         "scalars and pointers"),
        (lambda lib: native(lib.sin, argtypes=[C.CFUNCTYPE(None)], restype=None), TypeError,
         "scalars and pointers"),
        (lambda lib: native(lib.sin, argtypes=[], restype=C.c_void_p), TypeError,
         "returns c_void_p: only C scalars"),
        (lambda lib: native(lib.sin, argtypes=[], restype=double_p), TypeError, "only C scalars"),
        (lambda lib: native(lib.sin, argtypes=[C.c_int] * 23, restype=None), ValueError,
         "too many arguments"),
        (lambda lib: native(lib.sin, argtypes=[C.c_int] * 33, restype=None), ValueError,
         "more than 32 arguments"),
        (lambda lib: native(C.pythonapi.Py_GetVersion, argtypes=[], restype=None), TypeError,
         "needs the interpreter"),
    ],
)  # fmt: skip
def test_what_is_no_native_function_is_refused(
    call: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    if message == "too many arguments" and os.uname().machine != "x86_64":
        pytest.skip("other machines have more registers")
    with pytest.raises(error, match=message):
        call(C.CDLL("libm.so.6"))


def test_a_function_with_errcheck_is_refused() -> None:
    library = C.CDLL("libm.so.6")
    library.cos.argtypes, library.cos.restype = [C.c_double], C.c_double
    library.cos.errcheck = lambda result, function, arguments: result  # type: ignore[assignment, return-value]
    with pytest.raises(TypeError, match="errcheck"):
        native(library.cos)


def test_a_library_may_be_loaded_after_the_pool_was_made(tmp_path: Path) -> None:
    with Pool(2) as pool:
        pool.map(abs, range(10))
        late = native(compile_library(tmp_path), "process", argtypes=[], restype=C.c_int)
        assert pool.submit(late).result() in pool.worker_pids()


def test_a_library_that_a_worker_cannot_load_is_an_error_of_the_job(tmp_path: Path) -> None:
    with Pool(1) as pool:
        pool.apply(abs, [1])
        path = compile_library(tmp_path)
        gone = native(path, "process", argtypes=[], restype=C.c_int)
        path.unlink()
        with pytest.raises(RuntimeError, match="can't load the library.*native_functions.so"):
            pool.submit(gone).result()
        assert pool.apply(abs, [-1]) == 1


def test_a_relative_path_holds_wherever_the_worker_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_library(tmp_path, "librelative.so")
    with Pool(1) as pool:
        monkeypatch.chdir(tmp_path)
        relative = native("./librelative.so", "process", argtypes=[], restype=C.c_int)
        assert pool.submit(relative).result() != os.getpid()


# ---- As a job among others ----------------------------------------------------------------------


def test_every_method_takes_native_functions(cos: libpool.NativeFunction) -> None:
    wanted = [math.cos(x) for x in range(20)]
    with Pool(2) as pool:
        assert pool.apply(cos, (1,)) == math.cos(1)
        assert pool.map(cos, range(20)) == wanted
        assert pool.map(cos, tuple(range(20)), 3) == wanted
        assert pool.map(cos, np.arange(20.0)) == wanted
        assert pool.starmap(cos, [(x,) for x in range(20)]) == wanted
        assert pool.options(retries=2, timeout=10).map(cos, range(20)) == wanted
    with Executor(2) as executor:
        assert executor.submit(cos, 1).result() == math.cos(1)
        assert list(executor.map(cos, range(20))) == wanted
        assert list(executor.map(cos, range(20), chunksize=6)) == wanted
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(cos, range(20))) == wanted


def test_a_native_job_runs_in_a_worker(pool: Pool, function: Any) -> None:
    process = function("process", C.c_int)
    pids = {pool.submit(process).result() for _ in range(200)}
    assert pids <= set(pool.worker_pids()) and os.getpid() not in pids
    assert process() == os.getpid()


def test_no_python_code_runs_in_the_worker_for_a_native_job(tmp_path: Path) -> None:
    """A profile function sees each call of Python and of C functions by Python."""
    code = """
        import ctypes, os, sys, libpool
        def profile(frame, event, argument):
            os.write(1, b"interpreter\\n")
        def watch(on):
            sys.setprofile(profile if on else None)
        abs_ = libpool.native("libc.so.6", "abs", argtypes=[ctypes.c_int], restype=ctypes.c_int)
        with libpool.Pool(1) as pool:
            pool.submit(abs_, -1).result()
            pool.submit(watch, True).result()
            os.write(1, b"watched\\n")
            assert pool.submit(abs_, -5).result() == 5
            assert pool.map(abs_, range(-100, 0)) == list(range(100, 0, -1))
            os.write(1, b"done\\n")
            pool.submit(int, 3).result()
            pool.submit(max, 3, 4).result()
            pool.submit(watch, False).result()
    """
    output = run(program(tmp_path / "profile.py", code))
    during = output.partition("watched\n")[2].partition("done\n")
    assert during[0] == "" and "interpreter" in during[2]


def _spin_and_count(count: list[int], stop: threading.Event) -> None:
    while not stop.is_set():
        count[0] += 1


_count = [0]
_stop = threading.Event()


def _start_thread() -> None:
    threading.Thread(target=_spin_and_count, args=[_count, _stop], daemon=True).start()


def _counted() -> int:
    return _count[0]


def _end_thread() -> None:
    _stop.set()


def test_threads_in_the_worker_go_on_while_a_native_job_runs(
    gate: Callable[[], Gate], function: Any
) -> None:
    started, held = gate(), gate()
    wait = function("pass_gates", C.c_int, C.c_int, C.c_int)
    with Pool(1, initializer=_start_thread) as pool:
        future = pool.submit(wait, started.write_end, held.read_end)
        started.wait_for()
        pid = pool.worker_pids()[0]
        before = cpu_seconds(pid)
        until(lambda: cpu_seconds(pid) > before + 0.05)
        held.open()
        assert future.result() == 1
        pool.submit(_end_thread).result()


def test_a_crash_is_the_end_of_its_job_alone(pool: Pool, function: Any) -> None:
    crash = function("crash_if", C.c_int, C.c_int)
    futures = [pool.submit(crash, int(i == 7)) for i in range(20)]
    for number, future in enumerate(futures):
        if number != 7:
            assert future.result() == 0
            continue
        with pytest.raises(WorkerDied, match="SIGSEGV.*while it ran <native function crash_if of"):
            future.result()
        assert isinstance(future.exception(), WorkerDied)
        assert future.exception().signal == signal.SIGSEGV  # type: ignore[union-attr]


def test_a_crash_with_buffers_names_the_function_and_leaves_them_as_they_were(
    pool: Pool, function: Any
) -> None:
    crash = function("write_and_crash", None, double_p)
    numbers = np.arange(10.0)
    with pytest.raises(WorkerDied, match="<native function write_and_crash"):
        pool.submit(crash, InOut(numbers)).result()
    assert numbers.tolist() == list(range(10))


def test_a_crash_in_a_map_loses_its_chunk(pool: Pool, function: Any) -> None:
    crash = function("crash_if", C.c_int, C.c_int)
    with pytest.raises(WorkerDied) as caught:
        pool.map(crash, [0, 0, 0, 0, 1, 0], chunksize=2)
    assert caught.value.__notes__ == [
        "it ran a chunk of a map: the results of items 4 to 5 are lost"
    ]


def test_a_native_job_can_be_killed(gate: Callable[[], Gate], function: Any) -> None:
    started, held = gate(), gate()
    wait = function("pass_gates", C.c_int, C.c_int, C.c_int)
    with Executor(1) as executor:
        future = executor.submit(wait, started.write_end, held.read_end)
        started.wait_for()
        assert future.kill()
        with pytest.raises(CancelledError):
            future.result()
        held.open()
        assert executor.submit(wait, started.write_end, held.read_end).result() == 1


def test_a_native_job_has_a_time_limit(gate: Callable[[], Gate], function: Any) -> None:
    started, held = gate(), gate()
    wait = function("pass_gates", C.c_int, C.c_int, C.c_int)
    with Pool(1) as pool:
        limited = pool.options(timeout=0.1)
        with pytest.raises(TimeoutError, match="<native function pass_gates.*longer than its time"):
            limited.submit(wait, started.write_end, held.read_end).result()
        with pytest.raises(TimeoutError) as caught:
            limited.starmap(wait, [(started.write_end, held.read_end)] * 3, chunksize=3)
        assert caught.value.__notes__ == [
            "it ran item 0 of a map: the results of items 0 to 2 are lost"
        ]


def test_a_native_job_that_is_run_again_finds_its_argument_intact(
    gate: Callable[[], Gate], function: Any
) -> None:
    dies, runs = gate(), gate()
    die_once = function("die_once", C.c_int, C.c_int, C.c_int, double_p)
    numbers = np.array([1.0])
    os.set_blocking(dies.read_end, False)
    dies.open()
    with Pool(1, retries=1) as pool:
        assert pool.submit(die_once, dies.read_end, runs.write_end, InOut(numbers)).result() == 1
    assert numbers[0] == 2


def test_a_done_callback_finds_the_buffers_filled(pool: Pool, function: Any) -> None:
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    numbers, seen, called = np.ones(5), [], threading.Event()

    def callback(future: Any) -> None:
        seen.append((future.result(), numbers.tolist()))
        called.set()

    pool.submit(scale, InOut(numbers), 5, 7.0).add_done_callback(callback)
    assert called.wait(20)
    assert seen == [(None, [7.0] * 5)]


def _submit_inside(cos: libpool.NativeFunction, x: float) -> tuple[float, float]:
    pool = libpool.current()
    assert pool is not None
    return pool.submit(cos, x).result(), cos(x)


def test_a_job_may_be_given_a_native_function_and_submit_it(
    pool: Pool, cos: libpool.NativeFunction
) -> None:
    assert pool.apply(_submit_inside, (cos, 2.0)) == (math.cos(2), math.cos(2))
    again = pickle.loads(pickle.dumps(cos))
    assert again(0.5) == math.cos(0.5) and again.library == cos.library


def test_a_closed_pool_takes_no_native_job(cos: libpool.NativeFunction) -> None:
    pool, executor = Pool(1), Executor(1)
    pool.close()
    executor.shutdown()
    for arguments in ((1.0,), ("wrong",), ()):
        with pytest.raises(ValueError, match="Pool not running"):
            pool.submit(cos, *arguments)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(cos, *arguments)
    pool.join()


def test_more_than_the_pool_may_have_is_a_memory_error(function: Any) -> None:
    total = function("total", C.c_double, double_p, C.c_int64)
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    with Pool(1, shared_limit=8 << 20) as pool:
        with pytest.raises(MemoryError, match="more than the pool's shared_limit"):
            pool.submit(total, bytes(9 << 20), 0)
        with pytest.raises(MemoryError, match="for the result"):
            pool.submit(scale, Out(64 << 20), 0, 1.0).result()
        assert pool.submit(total, bytes(1 << 20), 1 << 17).result() == 0


def test_many_native_jobs_leave_memory_flat(pool: Pool, function: Any) -> None:
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    numbers = np.ones(1000)
    for count in (200, 2000):
        for _ in range(count):
            pool.submit(scale, InOut(numbers), 1000, 1.0).result()
        if count == 200:
            before = pool.stats()["memory"]
    assert pool.stats()["memory"] <= before + (1 << 18)
    assert (numbers == 1).all()


# ---- From array to array ------------------------------------------------------------------------

LETTERS = "bBhHiIqQfd?"


@pytest.mark.parametrize("letter", LETTERS)
def test_map_goes_from_array_to_array_for_every_type(
    pool: Pool, function: Any, letter: str
) -> None:
    dtype = np.dtype(letter)
    kinds = {**{np.dtype(n).char: n for n in INTEGERS}, "f": "float", "d": "double", "?": "bool"}
    name = kinds.get(letter) or f"{'u' if letter.isupper() else ''}int{dtype.itemsize * 8}"
    kind = np.ctypeslib.as_ctypes_type(dtype)
    same = function(f"same_{name}", kind, kind)
    values = np.frombuffer(random.Random(2).randbytes(1000 * dtype.itemsize), dtype)
    if letter == "?":
        values = np.arange(1000) % 3 == 0
    result = same.map(pool, values)
    assert result.dtype == dtype and result.tobytes() == values.tobytes()
    if letter != "?":
        plain = same.map(pool, array.array(letter, values.tobytes()))
        assert type(plain) is array.array and plain.tobytes() == values.tobytes()


def test_map_takes_several_columns_and_numbers(workers: Pool | Executor) -> None:
    power = native("libm.so.6", "pow", argtypes=[C.c_double] * 2, restype=C.c_double)
    x, y = np.random.default_rng(3).random((2, 10_001))
    assert (power.map(workers, x, y) == [math.pow(a, b) for a, b in zip(x, y)]).all()
    out = np.zeros(10_001)
    assert power.map(workers, x, 2, out=out, chunksize=77) is out
    assert (out == [math.pow(a, 2) for a in x]).all()
    assert power.map(workers, np.float64(2), x[:3])[0] == 2 ** x[0]
    assert len(power.map(workers, x[:0], 2)) == 0


def test_map_of_a_function_that_returns_nothing_is_none(pool: Pool, function: Any) -> None:
    nothing = native("libc.so.6", "srand", argtypes=[C.c_uint], restype=None)
    assert nothing.map(pool, np.arange(100, dtype=np.uint32)) is None


def test_map_refuses_what_does_not_fit(
    pool: Pool, cos: libpool.NativeFunction, function: Any
) -> None:
    power = native("libm.so.6", "pow", argtypes=[C.c_double] * 2, restype=C.c_double)
    total = function("total", C.c_double, double_p, C.c_int64)
    x = np.zeros(10)
    for call, error, message in [
        (lambda: cos.map(pool, x.astype("f4")), TypeError, "must be a buffer of double"),
        (lambda: cos.map(pool, x[::2]), (ValueError, BufferError), "contiguous"),
        (lambda: cos.map(pool, x.reshape(2, 5)), TypeError, "must be a buffer of double"),
        (lambda: cos.map(pool, x, x), TypeError, "takes 1 columns, and got 2"),
        (lambda: cos.map(pool, 1.0), ValueError, "no length"),
        (lambda: power.map(pool, x, x[:5]), ValueError, "different lengths"),
        (lambda: cos.map(pool, x, chunksize=0), ValueError, "chunksize must be 1 or more"),
        (lambda: cos.map(pool, x, out=np.zeros(9)), ValueError, "out has 9 items"),
        (lambda: cos.map(pool, x, out=np.zeros(10, "f4")), TypeError, "out must be a buffer"),
        (lambda: cos.map(pool, x, out=bytes(80)), ValueError, "out has 80 items"),
        (lambda: total.map(pool, x, 3), TypeError, "is a pointer; map.. takes scalars only"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_map_tells_which_items_a_crash_has_lost(pool: Pool, function: Any) -> None:
    crash = function("crash_if", C.c_int, C.c_int)
    values = np.zeros(100, np.int32)
    values[42] = 1
    with pytest.raises(WorkerDied) as caught:
        crash.map(pool, values, chunksize=10)
    assert caught.value.__notes__ == [
        "it ran a chunk of a map: the results of items 40 to 49 are lost"
    ]


# ---- The same without a pool --------------------------------------------------------------------


def test_a_native_function_may_be_called_here(function: Any, cos: libpool.NativeFunction) -> None:
    assert cos(1) == math.cos(1)
    scale = function("scale", None, double_p, C.c_int64, C.c_double)
    numbers = np.ones(100)
    assert scale(InOut(numbers), 100, 3.0) is None
    assert (numbers == 3).all()
    with pytest.raises(TypeError, match="takes 1 argument, and 2 were given"):
        cos(1, 2)
    with pytest.raises(TypeError, match="no keyword arguments"):
        cos(x=1)  # type: ignore[call-arg]


@pytest.fixture(autouse=True)
def no_libraries_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    yield
