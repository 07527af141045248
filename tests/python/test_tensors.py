"""Tensors of PyTorch, and Arrow's buffers, arrays and tables: one copy, none of what is shared.

PyTorch is not among what the tests install: run them where it is.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from libpool import Pool, shared

LARGE = 1 << 20


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1) as pool:
        yield pool


def same(value: Any) -> Any:
    return value


def bytes_in(pool: Pool) -> int:
    return int(pool.stats()["bytes_in"])


def bytes_out(pool: Pool) -> int:
    return int(pool.stats()["bytes_out"])


# ---- PyTorch ------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # its threads would be missing in a worker, which waits for them
    return torch


def tensors(torch: Any) -> dict[str, Any]:
    base = torch.arange(240_000)
    matrix = base.reshape(400, 600)
    return {
        **{
            str(dtype): base.to(dtype)
            for dtype in (
                torch.float64,
                torch.float32,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.int32,
                torch.int16,
                torch.int8,
                torch.uint8,
                torch.bool,
                torch.complex64,
                torch.complex128,
            )
        },
        "small": torch.tensor([1.0, 2.0]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "a row": matrix[3],
        "rows": matrix[5:300],
        "columns": matrix[:, 5:300],
        "every third": base[::3],
        "transposed": matrix.T,
        "channels last": torch.arange(48_000.0)
        .reshape(4, 3, 40, 100)
        .contiguous(memory_format=torch.channels_last),
        "expanded": torch.arange(600.0).expand(400, 600),
        "conjugate": torch.arange(6_000).to(torch.complex64).conj(),
        "sparse": torch.eye(300).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.arange(6_000.0), 0.5, 0, torch.qint32),
    }


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_tensors_arrive_and_come_back_as_pickle_makes_them(
    torch: Any, pool: Pool, nested: bool
) -> None:
    for name, tensor in tensors(torch).items():
        model = pickle.loads(pickle.dumps(tensor))
        sent = {"a": [1, (tensor,)]} if nested else tensor
        back = pool.apply(same, [sent])
        result = back["a"][1][0] if nested else back
        assert type(result) is type(model), name
        assert (result.dtype, result.shape) == (model.dtype, model.shape), name
        assert result.layout == model.layout, name
        if result.layout is torch.strided:
            assert result.stride() == model.stride(), name
        assert torch.equal(result.to_dense(), model.to_dense()), name


def test_a_tensor_is_copied_once_each_way(torch: Any, pool: Pool) -> None:
    tensor = torch.arange(LARGE, dtype=torch.float64)
    before = bytes_in(pool), bytes_out(pool)
    result = pool.apply(torch.neg, [tensor])
    assert 8 * LARGE <= bytes_in(pool) - before[0] < 8 * LARGE + 1000
    assert 8 * LARGE <= bytes_out(pool) - before[1] < 8 * LARGE + 1000
    assert torch.equal(result, -tensor)
    result[0] = 5  # is the host's own
    assert pool.apply(torch.neg, [tensor])[0] == 0


def test_a_part_of_a_large_tensor_is_sent_alone(torch: Any, pool: Pool) -> None:
    before = bytes_in(pool)
    pool.apply(same, [torch.zeros(100, LARGE)[7]])
    assert bytes_in(pool) - before < 5 * LARGE


def test_what_cannot_be_pickled_plainly_has_its_tensors_once(torch: Any, pool: Pool) -> None:
    before = bytes_in(pool)
    tensor = torch.arange(LARGE, dtype=torch.float64)
    pair = tensor, lambda tensor: float(tensor.sum())
    assert pool.submit(lambda pair: pair[1](pair[0]), pair).result() == float(tensor.sum())
    assert bytes_in(pool) - before < 9 * LARGE


def test_a_tensor_that_comes_twice_stays_one(torch: Any, pool: Pool) -> None:
    tensor = torch.arange(10_000)
    first, second = pool.apply(same, [[tensor, tensor]])
    assert first is second


def write(a: Any, value: float) -> None:
    a[:] = value


def test_a_job_writes_to_its_own_copy(torch: Any, pool: Pool) -> None:
    tensor = torch.zeros(LARGE)
    pool.apply(write, [tensor, 5.0])
    assert not tensor.any()


def test_a_tensor_in_shared_memory_is_not_copied(torch: Any, pool: Pool) -> None:
    array = shared.zeros(LARGE, pool=pool)
    tensor = torch.from_numpy(array)
    before = bytes_in(pool)
    pool.apply(write, [tensor, 5.0])
    pool.apply(write, [tensor.reshape(16, -1)[3], 6.0])
    assert bytes_in(pool) - before < 2000
    assert set(tensor.tolist()) == {5.0, 6.0} and set(array[:100].tolist()) == {5.0}


def made(torch_name: str, value: float) -> Any:
    torch = __import__(torch_name)
    return torch.from_numpy(shared.full(LARGE, value))


def test_a_result_in_shared_memory_is_not_copied(torch: Any, pool: Pool) -> None:
    tensor = pool.apply(made, ["torch", 3.0])
    assert set(tensor.tolist()) == {3.0}
    pool.apply(write, [tensor, 4.0])
    assert set(tensor.tolist()) == {4.0}


def test_a_tensor_of_a_shared_object_is_each_jobs_own(torch: Any, pool: Pool) -> None:
    handle = pool.share({"weights": torch.zeros(LARGE)})
    for _ in range(2):
        assert pool.submit(overwrite_weights, handle).result() == 0


def overwrite_weights(model: Any) -> float:
    before = float(model["weights"].sum())
    model["weights"][:] = 5
    return before


def test_tensors_with_more_to_them_go_as_pytorch_pickles_them(torch: Any, pool: Pool) -> None:
    leaf = torch.ones(10_000, requires_grad=True)
    result = pool.apply(same, [leaf])
    assert result.requires_grad and torch.equal(result, leaf)
    parameter = pool.apply(same, [torch.nn.Parameter(torch.ones(10_000))])
    assert type(parameter) is torch.nn.Parameter
    tagged = torch.ones(10_000)
    tagged.tag = "x"
    assert pool.apply(same, [tagged]).tag == "x"
    meta = pool.apply(same, [torch.ones(10_000, device="meta")])
    assert meta.device.type == "meta"


def test_a_models_state(torch: Any, pool: Pool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(200, 300), torch.nn.BatchNorm1d(300))
    state = pool.apply(same, [model.state_dict()])
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    model.eval()
    batch = torch.ones(4, 200)
    with torch.no_grad():
        assert torch.allclose(pool.apply(evaluate, [model, batch]), model(batch))


def evaluate(model: Any, batch: Any) -> Any:
    return model(batch).detach()


def test_results_give_their_memory_back(torch: Any) -> None:
    with Pool(1, shared_limit=16 * LARGE) as pool:
        for _ in range(20):
            assert pool.apply(torch.neg, [torch.ones(LARGE)])[0] == -1


# ---- Arrow --------------------------------------------------------------------------------------


@pytest.fixture
def arrow() -> Any:
    return pytest.importorskip("pyarrow")


def test_arrow_data_arrives_and_comes_back(arrow: Any, pool: Pool) -> None:
    numbers = arrow.array(range(100_000))
    table = arrow.table({"n": numbers, "text": [str(i) for i in range(100_000)]})
    for value in (
        arrow.py_buffer(bytes(range(256)) * 1000),
        numbers,
        arrow.array([None, 1.5] * 10_000),
        arrow.array([["a"], None, []] * 10_000),
        table,
        table.to_batches()[0],
        table.slice(5, 100),
        arrow.chunked_array([numbers, numbers]),
    ):
        assert pool.apply(same, [value]).equals(value)


def test_arrow_data_is_copied_once_each_way(arrow: Any, pool: Pool) -> None:
    buffer = arrow.py_buffer(bytes(range(256)) * (LARGE // 256))
    array = arrow.Array.from_buffers(arrow.uint8(), LARGE, [None, buffer])
    for value in (buffer, array, arrow.table({"a": array})):
        before = bytes_in(pool), bytes_out(pool)
        assert pool.apply(same, [value]).equals(value)
        assert LARGE <= bytes_in(pool) - before[0] < LARGE + 5000
        # The argument's memory is not the host's own, and so it is copied.
        assert LARGE <= bytes_out(pool) - before[1] < LARGE + 5000


def buffer_address(buffer: Any) -> int:
    return int(buffer.address)


def test_an_arrow_buffer_in_shared_memory_is_not_copied(arrow: Any, pool: Pool) -> None:
    buffer = arrow.py_buffer(shared.buffer(LARGE, pool=pool))
    assert pool.apply(buffer_address, [buffer]) == buffer.address
    array = arrow.Array.from_buffers(arrow.int64(), LARGE // 8, [None, buffer])
    before = bytes_in(pool)
    assert pool.apply(same, [array]).equals(array)
    assert bytes_in(pool) - before < 2000


def arrow_in_shared_memory() -> Any:
    import pyarrow

    memory = shared.buffer(LARGE)
    memory[:] = bytes(range(256)) * (LARGE // 256)
    buffer = pyarrow.py_buffer(memory)
    return buffer, buffer.address


def test_an_arrow_buffer_that_a_job_made_in_shared_memory_is_not_copied(
    arrow: Any, pool: Pool
) -> None:
    buffer, address = pool.apply(arrow_in_shared_memory)
    assert buffer.address == address
    assert buffer.to_pybytes() == bytes(range(256)) * (LARGE // 256)
