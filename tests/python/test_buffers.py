"""Large buffers travel beside the pickle, and are not copied where they arrive."""

from __future__ import annotations

import array
import gc
import hashlib
import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from libpool import Executor, Pool, WorkerDied

LARGE = 1 << 20


class Box:
    """What pickles as NumPy's arrays do: its content is a buffer."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Box, (pickle.PickleBuffer(self.content),)


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def memory(pool: Pool) -> int:
    return int(pool.stats()["memory"])


def describe(box: Box) -> tuple[str, bool, bytes]:
    return type(box.content).__name__, box.content.readonly, bytes(box.content[:3])


def test_a_buffer_arrives_as_a_view_of_shared_memory(pool: Pool) -> None:
    assert pool.apply(describe, [Box(bytearray(b"abc" + bytes(LARGE)))]) == (
        "memoryview",
        False,
        b"abc",
    )


def test_a_read_only_buffer_arrives_as_one(pool: Pool) -> None:
    assert pool.apply(describe, [Box(b"abc" + bytes(LARGE))]) == ("memoryview", True, b"abc")


def double(box: Box) -> Box:
    return Box(bytearray(bytes(box.content) * 2))


def test_a_result_is_a_view_that_may_be_written_to(pool: Pool) -> None:
    result = pool.apply(double, [Box(bytearray(b"x" * LARGE))])
    assert isinstance(result.content, memoryview)
    assert result.content == b"x" * (2 * LARGE)
    result.content[0] = 1
    assert result.content[0] == 1


def several(*boxes: Box, last: Box) -> list[bytes]:
    return [bytes(box.content[-2:]) for box in [*boxes, last]]


def test_several_buffers_and_keywords_in_one_call(pool: Pool) -> None:
    boxes = [Box(bytes(LARGE + i) + bytes([i, i])) for i in range(1, 6)]
    assert pool.submit(several, *boxes, last=boxes[0]).result() == [
        bytes([i, i]) for i in (1, 2, 3, 4, 5, 1)
    ]


def test_items_of_a_map(pool: Pool) -> None:
    boxes = [Box(bytes([i]) * LARGE) for i in range(7)]
    results = pool.map(double, boxes, chunksize=3)
    assert [bytes(box.content[-1:]) for box in results] == [bytes([i]) for i in range(7)]


def test_a_function_sent_by_value_gets_buffers(pool: Pool) -> None:
    box = Box(bytes(LARGE))
    assert pool.submit(lambda box: len(box.content), box).result() == LARGE


def test_what_cannot_be_pickled_plainly_has_its_buffers_once(pool: Pool) -> None:
    box = Box(bytes(LARGE))
    before = memory(pool)
    # A lambda beside it: plain pickle gives up after it has met the buffer.
    assert pool.submit(lambda pair: pair[1](len(pair[0].content)), (box, lambda n: n + 1)).result()
    assert memory(pool) - before < 2 * LARGE


kept: list[Any] = []


def keep(box: Box) -> int:
    kept.append(box)
    return len(kept)


def look() -> list[int]:
    return [box.content[0] for box in kept if set(bytes(box.content)) == {box.content[0]}]


def test_a_job_may_keep_its_argument(pool: Pool) -> None:
    for i in range(5):
        pool.apply(keep, [Box(bytes([i]) * LARGE)])
    for _ in range(20):
        pool.apply(double, [Box(bytes([99]) * LARGE)])
    assert pool.apply(look) == [0, 1, 2, 3, 4]


def forget() -> None:
    kept.clear()
    gc.collect()


def test_what_a_job_kept_is_free_when_it_lets_go(pool: Pool) -> None:
    for _ in range(3):
        for _ in range(8):
            pool.apply(keep, [Box(bytes(LARGE))])
        pool.apply(forget)
    assert memory(pool) < 24 * LARGE


def keep_and_die(box: Box) -> None:
    kept.append(box)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_worker_kept_is_free_when_it_dies() -> None:
    with Pool(1, shared_limit=16 * LARGE) as pool:
        for _ in range(40):
            pool.apply(keep, [Box(bytes(LARGE))])
            with pytest.raises(WorkerDied):
                pool.apply(keep_and_die, [Box(bytes(LARGE))])


def test_results_give_their_memory_back_when_they_are_dropped() -> None:
    with Pool(1, shared_limit=16 * LARGE) as pool:
        for _ in range(40):
            result = pool.apply(double, [Box(bytes(LARGE))])
        assert len(result.content) == 2 * LARGE


def test_a_result_outlives_future_and_pool() -> None:
    with Executor(1) as executor:
        content = executor.submit(double, Box(b"y" * LARGE)).result().content[1:]
    del executor
    gc.collect()
    assert content == b"y" * (2 * LARGE - 1)


def overwrite(box: Box) -> int:
    box.content[:3] = b"zzz"
    return sum(box.content[:3])


def test_writing_to_an_argument_does_not_reach_the_host(pool: Pool) -> None:
    box = Box(bytearray(LARGE))
    assert pool.apply(overwrite, [box]) == 3 * ord("z")
    assert box.content == bytes(LARGE)


def overwrite_and_die(box: Box, path: str) -> bytes:
    seen = bytes(box.content[:3])
    box.content[:3] = b"zzz"
    if not os.path.exists(path):
        open(path, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return seen


def test_a_job_that_is_run_again_gets_its_argument_as_it_was(pool: Pool, tmp_path: Any) -> None:
    box = Box(bytearray(b"abc" + bytes(LARGE)))
    future = pool.options(retries=1).submit(overwrite_and_die, box, str(tmp_path / "ran"))
    assert future.result() == b"abc"


def nested(box: Box) -> int:
    import libpool

    workers = libpool.current()
    assert workers is not None
    result = workers.submit(double, box).result()
    return len(result.content)


def test_a_job_passes_its_argument_on_and_gets_a_buffer_back(pool: Pool) -> None:
    assert pool.apply(nested, [Box(bytes(LARGE))]) == 2 * LARGE


def test_an_argument_that_is_too_large_is_a_memory_error() -> None:
    with (
        Pool(1, shared_limit=4 * LARGE) as pool,
        pytest.raises(MemoryError),
    ):
        pool.apply(len, [Box(bytes(8 * LARGE))])


def test_a_result_that_is_too_large_is_a_memory_error() -> None:
    with Pool(1, shared_limit=4 * LARGE) as pool:
        with pytest.raises(MemoryError):
            pool.apply(double, [Box(bytes(3 * LARGE))])
        assert len(pool.apply(double, [Box(bytes(LARGE // 2))]).content) == LARGE


def test_numpy_arrays_are_views_aligned_and_equal(pool: Pool) -> None:
    numpy = pytest.importorskip("numpy")
    for dtype in ("float64", "int8", "complex128"):
        for order in ("C", "F"):
            a = numpy.arange(40000).reshape(200, 200).astype(dtype, order=order)
            b = pool.apply(numpy.negative, [a])
            assert (b == -a).all()
            assert b.flags.writeable
            assert b.ctypes.data % 64 == 0
            assert not b.flags.owndata


def test_numpy_arrays_that_are_not_contiguous(pool: Pool) -> None:
    numpy = pytest.importorskip("numpy")
    a = numpy.arange(1_000_000).reshape(1000, 1000)[::2, ::3]
    assert (pool.apply(numpy.negative, [a]) == -a).all()


def test_other_types_with_much_content(pool: Pool) -> None:
    for value in (
        b"q" * LARGE,
        bytearray(b"q" * LARGE),
        array.array("d", range(LARGE // 8)),
        "ü" * LARGE,
    ):
        assert pool.apply(same, [value]) == value


def same(value: Any) -> Any:
    return value


MEMORIES = {
    "bytes": memoryview(b"abc" * LARGE),
    "bytearray": memoryview(bytearray(b"abc" * LARGE)),
    "short": memoryview(b"abc"),
    "a part": memoryview(bytes(range(256)) * 1000)[5:-7],
    "every third": memoryview(bytes(range(256)) * 1000)[::3],
    "every third, writable": memoryview(bytearray(range(256)) * 1000)[::-3],
    "numbers": memoryview(array.array("d", range(10_000))),
    "two axes": memoryview(bytearray(range(240)) * 100).cast("B", (200, 120)),
    "two axes of numbers": memoryview(bytearray(range(240)) * 100).cast("i", (60, 100)),
    "empty": memoryview(b""),
    "no numbers": memoryview(array.array("i")),
}


def tell_memory(view: memoryview) -> tuple[Any, ...]:
    return type(view), view.format, view.shape, view.readonly, view.tobytes(), view.c_contiguous


@pytest.mark.parametrize("kind", MEMORIES)
def test_memoryviews_arrive_as_such(pool: Pool, kind: str) -> None:
    view = MEMORIES[kind]
    model = (memoryview, view.format, view.shape, view.readonly, view.tobytes(), True)
    assert pool.apply(tell_memory, [view]) == model
    assert tell_memory(pool.apply(same, [view])) == model
    assert tell_memory(pool.apply(same, [{"nested": [view]}])["nested"][0]) == model


FLAT: list[Any] = [
    bytearray(b"q" * LARGE),
    bytearray(b"abc"),
    bytearray(),
    *(array.array(code, range(100)) for code in "bBhHiIlLqQfd"),
    array.array("d", range(LARGE // 8)),
    array.array("u", "aü€"),
    array.array("i"),
]


@pytest.mark.parametrize("nested", [False, True])
def test_bytearrays_and_arrays_arrive_as_such(pool: Pool, nested: bool) -> None:
    for value in FLAT:
        sent = {"a": [1, (value,)]} if nested else value
        result = pool.apply(same, [sent])
        got = result["a"][1][0] if nested else result
        assert type(got) is type(value)
        assert got == value
        assert not isinstance(value, array.array) or got.typecode == value.typecode
        got.append(ord("x")) if isinstance(got, bytearray) else got.extend(got)


def is_one(a: Any, b: Any) -> tuple[bool, Any]:
    return a is b, [a, b]


def test_what_comes_twice_stays_one(pool: Pool) -> None:
    long = array.array("d", range(LARGE // 8))
    for value in (bytearray(LARGE), long, bytearray(3)):
        one, (a, b) = pool.apply(is_one, [value, value])
        assert one and a is b
    text = "x" * 5000
    for content in (bytes(LARGE), text):
        a, b = pool.apply(same, [[content, content]])
        assert a is b and a == content


def test_a_job_has_its_own_bytearray(pool: Pool) -> None:
    value = bytearray(LARGE)
    result = pool.apply(lengthen, [value])
    assert len(result) == LARGE + 1
    assert len(value) == LARGE


def lengthen(value: bytearray) -> bytearray:
    value.append(1)
    return value


class Named(bytearray):
    name = ""


class Numbers(array.array):  # type: ignore[type-arg]
    pass


def test_subclasses_keep_what_they_have(pool: Pool) -> None:
    value = Named(LARGE)
    value.name = "x"
    result = pool.apply(same, [value])
    assert (type(result), result.name, len(result)) == (Named, "x", LARGE)
    assert type(pool.apply(same, [Numbers("d", [1.0])])) is Numbers


def test_many_in_one_list(pool: Pool) -> None:
    values = [bytearray([i]) * 20_000 for i in range(30)]
    assert pool.apply(same, [values]) == values
    assert pool.map(same, values, chunksize=10) == values


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (63, 1), (64, 63)])
def test_what_is_larger_than_the_caches_arrives_intact(pool: Pool, before: int, after: int) -> None:
    # It is copied in another way, by lines of the cache, and its ends in the usual one.
    content = os.urandom(1 << 20) * 33
    part = memoryview(content)[before : len(content) - after]
    assert pool.apply(digest, [Box(part)]) == hashlib.sha1(part).digest()
    returned = pool.apply(bytes_of, [content, before, after])
    assert returned.content.obj is not content and returned.content == part


def digest(box: Box) -> bytes:
    return hashlib.sha1(box.content).digest()


def bytes_of(content: bytes, before: int, after: int) -> Box:
    return Box(memoryview(content)[before : len(content) - after])
