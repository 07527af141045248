"""Functions of shared libraries as jobs: the workers call them without their interpreter.

From the C library and zlib, which every system has: a scalar in and out; buffers in; a buffer out;
and from an array to an array.
"""

from __future__ import annotations

import array
import ctypes
import math
import sys
import time
import zlib
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_double, c_int, c_uint, c_ulong, c_void_p

import libpool


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def scalars(pool: libpool.Pool) -> None:
    """Have single calls of a function made, and one for each item of a list."""
    gamma = libpool.native("libm.so.6", "lgamma", argtypes=[c_double], restype=c_double)
    print("lgamma(10) is", round(pool.submit(gamma, 10.0).result(), 3))
    print("log((n - 1)!) is", [round(value, 2) for value in pool.map(gamma, range(1, 6))])


def arrays(pool: libpool.Pool) -> None:
    """Call a function for each of a million numbers, of which none becomes a Python object."""
    gamma = libpool.native("libm.so.6", "lgamma", argtypes=[c_double], restype=c_double)
    numbers = array.array("d", [1 + i / 1000 for i in range(1_000_000)])
    results = gamma.map(pool, numbers)
    assert math.isclose(results[9000], math.lgamma(numbers[9000]))
    native = seconds(lambda: gamma.map(pool, numbers))
    python = seconds(lambda: array.array("d", map(math.lgamma, numbers)))
    print(f"lgamma of a million numbers: {native * 1e3:.0f} ms, by Python {python * 1e3:.0f} ms")


def buffers(pool: libpool.Pool) -> None:
    """Compress and decompress, with a function that writes to a buffer and to a length."""
    library = ctypes.CDLL("libz.so.1")
    library.compress2.argtypes = [c_void_p, POINTER(c_ulong), c_char_p, c_ulong, c_int]
    library.compress2.restype = c_int
    library.adler32.argtypes = [c_ulong, c_char_p, c_uint]
    library.adler32.restype = c_ulong
    compress, checksum = libpool.native(library.compress2), libpool.native(library.adler32)

    texts = [str(n).encode() * 100_000 for n in range(8)]
    jobs = []
    for text in texts:
        packed, size = libpool.Out(len(text)), ctypes.c_ulong(len(text))
        future = pool.submit(compress, packed, libpool.InOut(size), text, len(text), 6)
        jobs.append((future, packed, size))
    for text, (future, packed, size) in zip(texts, jobs):
        assert future.result() == 0
        assert zlib.decompress(packed.buffer[: size.value]) == text
    print("compressed", [size.value for _, _, size in jobs], "bytes")

    sums = pool.starmap(checksum, [(1, text, len(text)) for text in texts])
    assert sums == [zlib.adler32(text) for text in texts]
    print("checksums", [f"{value:08x}" for value in sums[:3]], "...")


def crash(pool: libpool.Pool) -> None:
    """Show that a function that crashes ends its own job only."""
    abort = libpool.native("libc.so.6", "abort", argtypes=[], restype=None)
    try:
        pool.submit(abort).result()
    except libpool.WorkerDied as error:
        print("abort():", str(error).partition(" of ")[0])


def main() -> int:
    """Run the example. Returns the exit code."""
    with libpool.Pool() as pool:
        scalars(pool)
        arrays(pool)
        buffers(pool)
        crash(pool)
    return 0


if __name__ == "__main__":
    sys.exit(main())
