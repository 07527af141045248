"""What becomes of large buffers when things end early, come twice, or are of odd kinds."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import until

from libpool import Executor, Pool, shared

numpy = pytest.importorskip("numpy")

LARGE = 1 << 20


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def same(value: Any) -> Any:
    return value


def negative(a: Any) -> Any:
    return -a


def nothing() -> None:
    pass


def mapped() -> int:
    """How many pools this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:")


# ---- Memory that goes back ----------------------------------------------------------------------


def test_a_thousand_arrays_go_through_little_memory() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for i in range(1000):
            a = numpy.full(20_000, float(i))
            assert (pool.apply(negative, [a]) == -a).all()


def filled(a: Any) -> Any:
    return numpy.full(LARGE, a[0], "uint8")


def test_jobs_with_shared_arrays_and_without_futures_leave_nothing(pool: Pool) -> None:
    a = shared.zeros(10, pool=pool)
    for _ in range(100):
        pool.submit(filled, a)
        pool.apply(nothing)
    assert pool.stats()["memory"] < 60 * LARGE


def wait_and_look(a: Any, path: str) -> float:
    with open(path, "rb") as fifo:
        fifo.read()
    return float(a.sum())


def test_a_pool_ends_whose_last_future_was_dropped_before_its_job_ended(tmp_path: Path) -> None:
    gc.collect()
    before = mapped()
    path = tmp_path / "fifo"
    os.mkfifo(path)
    executor = Executor(1)
    future = executor.submit(wait_and_look, shared.zeros(LARGE, pool=executor), str(path))
    executor.shutdown(wait=False)
    del executor
    gc.collect()
    assert mapped() > before
    del future
    path.write_bytes(b"")
    until(lambda: mapped() <= before)


def test_a_view_keeps_a_pool_and_its_end_lets_it_go() -> None:
    gc.collect()
    before = mapped()
    with Pool(1) as pool:
        result = pool.apply(negative, [numpy.ones(LARGE)])
    del pool
    gc.collect()
    assert mapped() > before
    assert (result == -1).all()
    del result
    until(lambda: mapped() <= before)


@pytest.mark.parametrize("end", ["terminate", "close", "break"])
def test_views_outlive_each_end_of_a_pool(end: str) -> None:
    pool = Pool(1)
    a = shared.full(LARGE, 3.0, pool=pool)
    result = pool.apply(negative, [a])
    if end == "break":
        os.kill(pool.supervisor_pid, signal.SIGKILL)
    else:
        getattr(pool, end)()
        pool.join()
    assert (result == -3).all()
    assert (a == 3).all()
    pool.terminate()


def test_a_forked_child_takes_no_memory_along(pool: Pool) -> None:
    result = pool.apply(negative, [numpy.ones(LARGE)])
    a = shared.full(LARGE, 3.0, pool=pool)
    child = os.fork()
    if child == 0:
        good = bool((result == -1).all() and (a == 3).all())
        del result, a
        gc.collect()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    noise = [pool.apply(negative, [numpy.full(LARGE, 7.0)]) for _ in range(3)]
    assert (result == -1).all() and (a == 3).all() and len(noise) == 3


# ---- While it is pickled and unpickled ----------------------------------------------------------


class Lends:
    def __init__(self, buffer: pickle.PickleBuffer) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (self.buffer,)


class Releases(Lends):
    def __reduce_ex__(self, protocol: Any) -> Any:
        self.buffer.release()
        return bytes, ()


def test_a_buffer_may_be_released_while_the_rest_is_pickled(pool: Pool) -> None:
    buffer = pickle.PickleBuffer(bytearray(b"x" * LARGE))
    assert pool.apply(same, [(Lends(buffer), Releases(buffer))]) == (b"x" * LARGE, b"")


def test_pickle_buffers_themselves_are_arguments(pool: Pool) -> None:
    for buffer in (b"abc" * LARGE, bytearray(b"abc" * LARGE), memoryview(b"abcd")[1:]):
        assert pool.apply(bytes, [pickle.PickleBuffer(buffer)]) == bytes(buffer)
    with pytest.raises(Exception, match="contiguous"):
        pool.apply(bytes, [pickle.PickleBuffer(memoryview(bytes(LARGE))[::2])])


interrupted = False


class Interrupts(Exception):
    def __reduce__(self) -> Any:
        return _interrupt_host, (os.getpid(),)


def _interrupt_host(sender: int) -> Exception:
    global interrupted
    if sender != os.getpid() and not interrupted:
        interrupted = True
        raise KeyboardInterrupt
    return Interrupts()


def array_or_error(i: int) -> Any:
    if i == 1:
        raise Interrupts
    return numpy.full(LARGE, float(i))


def test_a_result_that_was_read_in_part_is_read_again(pool: Pool) -> None:
    global interrupted
    interrupted = False
    future = pool.submit_chunk(array_or_error, [0, 1, 2], False, True)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    results = future.result()
    pool.map(negative, [numpy.full(LARGE, 9.0)] * 4)
    assert (results[0] == 0).all() and (results[2] == 2).all()


class Refuses:
    """What has been made of its buffer can't be."""

    def __reduce__(self) -> Any:
        return _refuse, (pickle.PickleBuffer(bytearray(LARGE)),)


def _refuse(content: Any) -> None:
    raise ValueError("refused")


def refusing() -> Any:
    return Refuses()


def test_a_result_that_cannot_be_made_leaves_nothing() -> None:
    with Pool(1, shared_limit=8 * LARGE) as pool:
        for _ in range(40):
            with pytest.raises(ValueError, match="refused"):
                pool.apply(refusing)


class Tracked(bytearray):
    pass


def test_what_was_sent_is_referred_to_no_more(pool: Pool) -> None:
    content = Tracked(LARGE)
    gone = weakref.ref(content)
    pool.apply(len, [[pickle.PickleBuffer(content)]])
    del content
    assert gone() is None


# ---- Kinds of arrays ----------------------------------------------------------------------------


def read_only(a: Any) -> Any:
    a.flags.writeable = False
    return a


N = 40_000
ARRAYS = {
    "structured": numpy.zeros(N, [("a", "i4"), ("b", "f8")]),
    "datetime": numpy.arange(N).astype("datetime64[s]"),
    "timedelta": numpy.arange(N).astype("timedelta64[ms]"),
    "bytes": numpy.array([b"abc", b"x"] * N),
    "text": numpy.array(["abc", "ü"] * N),
    "half": numpy.ones(N, "float16"),
    "big-endian": numpy.arange(N, dtype=">i4"),
    "columns first": numpy.arange(N).reshape(200, 200, order="F"),
    "three axes": numpy.arange(N).reshape(20, 20, 100).transpose(2, 0, 1),
    "backwards": numpy.arange(N)[::-1],
    "read-only": read_only(numpy.arange(N)),
    "broadcast": numpy.broadcast_to(numpy.arange(100), (400, 100)),
    "empty": numpy.zeros((0, N)),
    "objects": numpy.array([None, 1, "x"] * 10, object),
    "records": numpy.rec.fromarrays([numpy.arange(N), numpy.ones(N)], names="a,b"),
    "masked": numpy.ma.masked_less(numpy.arange(N), 7),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_arrive_and_come_back_as_pickle_makes_them(pool: Pool, kind: str) -> None:
    a = ARRAYS[kind]
    model = pickle.loads(pickle.dumps(a, 5))
    for b in (pool.apply(same, [a]), *pool.map(same, [a, a], chunksize=2)):
        assert type(b) is type(model)
        assert (b.dtype, b.shape, b.strides) == (model.dtype, model.shape, model.strides)
        assert b.flags.writeable == model.flags.writeable
        assert (b == model).all()


def is_one(a: Any, b: Any) -> tuple[bool, Any, Any]:
    return a is b, a, b


def test_an_array_that_comes_twice_stays_one(pool: Pool) -> None:
    a = numpy.ones(N)
    one, b, c = pool.apply(is_one, [a, a])
    assert one and b is c


def test_shapes_and_values_are_as_numpy_takes_them(pool: Pool) -> None:
    assert shared.zeros(numpy.int64(3), pool=pool).shape == (3,)
    assert shared.empty([numpy.int32(2), 3], pool=pool).shape == (2, 3)
    assert shared.full((2, 2), [1, 2], pool=pool).tolist() == [[1, 2], [1, 2]]
    with pytest.raises(TypeError):
        shared.zeros(2.5, pool=pool)  # type: ignore[arg-type]


# ---- Who may write to what ----------------------------------------------------------------------


def wait_and_sum(path: str, a: Any) -> float:
    with open(path, "rb") as fifo:
        fifo.read()
    return float(a.sum())


def test_a_job_has_an_array_as_it_was_when_it_was_submitted(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    a, b = numpy.ones(LARGE), shared.full(LARGE, 1.0, pool=pool)
    handle = pool.share(a)
    running = [pool.submit(wait_and_sum, str(path), a)]
    waiting = [pool.submit(numpy.sum, value) for value in (a, handle, b)]
    a[:] = 5
    b[:] = 6
    path.write_bytes(b"")
    sums = [float(future.result()) for future in running + waiting]
    assert sums == [LARGE, LARGE, LARGE, 6 * LARGE]


def overwrite(a: Any) -> float:
    before = float(a.sum())
    a[:] = 7
    return before


def test_what_a_job_writes_to_its_argument_nobody_else_sees(pool: Pool) -> None:
    a = numpy.ones(LARGE)
    assert [pool.submit(overwrite, a).result() for _ in range(3)] == [LARGE] * 3
    assert pool.map(overwrite, [a, a, a], chunksize=1) == [LARGE] * 3
    assert (a == 1).all()


def test_of_a_shared_object_a_job_can_write_to_nothing(pool: Pool) -> None:
    handle = pool.share(numpy.ones(LARGE))
    with pytest.raises(ValueError, match="read-only"):
        pool.apply(overwrite, [handle])
    assert pool.apply(numpy.sum, [handle]) == LARGE


last: Any = None


def give_what_is_kept() -> Any:
    global last
    if last is None:
        last = numpy.ones(LARGE)
    return last


def test_what_the_host_writes_to_a_result_the_worker_does_not_see(pool: Pool) -> None:
    for _ in range(4):
        result = pool.apply(give_what_is_kept)
        assert (result == 1).all()
        result[:] = 9
    assert pool.apply(overwrite_kept) == LARGE
    assert (result == 9).all()


def overwrite_kept() -> float:
    return overwrite(last)


def returned(a: Any) -> Any:
    global last
    last = a
    return a


def test_an_argument_that_is_kept_and_returned_is_three_arrays(pool: Pool) -> None:
    a = numpy.ones(LARGE)
    result = pool.apply(returned, [a])
    pool.apply(overwrite_kept)
    result[0] = 5
    assert (a == 1).all() and result[0] == 5 and (result[1:] == 1).all()
