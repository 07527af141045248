"""Damaged results: a job writes over the result of another, and then the host reads that.

It must get a value or an exception, and must not crash, hang or take a lot of memory. The seed says
what is damaged and how:

    python tests/fuzz/fuzz_codec.py --runs 2000 --seed 1
"""

from __future__ import annotations

import argparse
import array
import ctypes
import os
import pickle
import random
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import libpool

MOST_BYTES = 1 << 30
"""Of private memory: a damaged length that is believed ends as MemoryError here."""
SLOT_WORDS = 32
"""Bytes in front of what lies inside a job slot: its words, which say how long the result is."""


class Point:
    """Has to be pickled."""

    def __init__(self, name: str) -> None:
        self.name = name


class Box:
    """Its content is a buffer, which travels beside the pickle."""

    def __init__(self, name: str, content: Any) -> None:
        self.name = name
        self.content = content

    def __reduce__(self) -> Any:
        return Box, (self.name, pickle.PickleBuffer(self.content))


# ---- In the worker ------------------------------------------------------------------------------


def give(kind: str, mark: str) -> Any:
    """A result in which the mark can be found."""
    if kind == "raise":
        raise ValueError(mark, {1: 2.5})
    return {
        "str": mark,
        "bytes": mark.encode() * 20,
        "tuple": (1, mark, [None, True, -(1 << 40), {"k": 2.5, mark: b"v"}], "x" * 300),
        "numbers": [mark, list(range(20)), [2.5] * 9, [1 << 40] * 9],
        "object": [Point(mark), {1, 2}, 1 << 100],
        "pickle": {mark, "b", 3, frozenset([1])},
        "flat": [bytearray(mark.encode()), array.array("B", mark.encode()), array.array("d", [2])],
        "buffers": [Box(mark, mark.encode() * 1000), Box(mark, bytearray(mark.encode() * 1000))],
    }[kind]


def _segment() -> int:
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:libpool" in os.readlink(f"/proc/self/fd/{name}"):
                return int(name)
        except OSError:
            continue  # the folder's own descriptor
    raise LookupError("no segment")


def _places(descriptor: int, mark: bytes) -> list[int]:
    """Where in the segment's memory the mark lies."""
    found = []
    size = os.fstat(descriptor).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:
            break  # only holes are left
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        data = os.pread(descriptor, end - start, start)
        place = data.find(mark)
        while place >= 0:
            found.append(start + place)
            place = data.find(mark, place + 1)
    return found


def damage(mark_parts: tuple[str, str], seed: int) -> int:
    """Write over the result around the mark; in how many places.

    The mark comes in two parts, so that it is not found in this job's own argument.
    """
    chance = random.Random(seed)
    descriptor = _segment()
    places = _places(descriptor, "".join(mark_parts).encode())
    for place in places:
        before = chance.choice((2, 6, 16, 16 + SLOT_WORDS))
        for _ in range(chance.choice((1, 1, 2, 4, 30))):
            offset = max(0, place - before + chance.randrange(before + 48))
            old = os.pread(descriptor, 1, offset)[0]
            new = chance.choice(
                (chance.randrange(256), old ^ 1 << chance.randrange(8), old + 1 & 255, 0, 255)
            )
            os.pwrite(descriptor, bytes([new]), offset)
    return len(places)


# ---- In the host --------------------------------------------------------------------------------


KINDS = (
    *("str", "bytes", "tuple", "numbers", "object", "pickle", "flat", "buffers", "raise"),
    *("native", "natives"),
)
memccpy = libpool.native(
    "libc.so.6",
    "memccpy",
    argtypes=[ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t],
    restype=ctypes.c_int16,
)


def start(pool: libpool.Executor, kind: str, mark: str) -> libpool.Future[Any]:
    if not kind.startswith("native"):
        return pool.submit(give, kind, mark)
    text = mark.encode() * 3
    calls = [(libpool.Out(len(text)), text, -1, len(text)) for _ in range(4)]
    if kind == "native":
        return pool.submit(memccpy, *calls[0])
    return pool.submit_chunk(memccpy, calls, True)


def touch(value: Any) -> None:
    """Read all memory that a result refers to."""
    for box in value if isinstance(value, list | tuple) else ():
        if isinstance(box, Box) and isinstance(box.content, memoryview):
            bytes(box.content)


def once(pool: libpool.Executor, number: int, chance: random.Random, seen: Counter[str]) -> None:
    kind = chance.choice(KINDS)
    parts = (f"mark-{number}", f"-{chance.randrange(1 << 32):08x}")
    future: libpool.Future[Any]
    if not kind.startswith("native") and chance.random() < 0.3:
        items = [("str", "".join(parts)), (kind, "".join(parts))]
        future = pool.submit_chunk(give, items, True, True)
    else:
        future = start(pool, kind, "".join(parts))
    while not future.done():
        pool.submit(abs, 0).result(30)  # done() leaves the result where it is
    try:
        places = pool.submit(damage, parts, chance.randrange(1 << 32)).result(30)
    except Exception as error:
        places = 0
        seen[f"damage(): {type(error).__name__}"] += 1
    try:
        touch(future.result(10))
        seen["value" if places else "value, not found"] += 1
    except Exception as error:
        seen[type(error).__name__] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    options = parser.parse_args()

    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    chance = random.Random(options.seed)
    seen: Counter[str] = Counter()
    pool = None
    for number in range(options.runs):
        if number % 200 == 0:  # what is damaged beyond the result should not add up
            if pool:
                pool.terminate()
            pool = libpool.Executor(1, shared_limit=64 << 20)
        once(pool, number, chance, seen)
    if pool:
        pool.terminate()
    left = list(Path("/dev/shm").glob("libpool*"))
    print(f"seed {options.seed}:", ", ".join(f"{name} {seen[name]}" for name in sorted(seen)))
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
