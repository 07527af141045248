"""Tensors of PyTorch: their content travels as a buffer, like that of NumPy's arrays.

PyTorch's own way of pickling writes a tensor to a file in memory, and takes that apart again, at
many times the cost of the copy. This module is used where PyTorch is loaded.
"""

from __future__ import annotations

import copyreg
import io
import sys
from collections.abc import Callable
from pickle import PickleBuffer, Pickler
from typing import Any

__all__ = ["dumps", "reducer"]

PROTOCOL = 5


def dumps(obj: Any, buffer_callback: Any = None) -> bytes:
    """Pickle as `pickle.dumps` does, but for tensors."""
    file = io.BytesIO()
    pickler = Pickler(file, PROTOCOL, buffer_callback=buffer_callback)
    tensor = _tensor_type()
    if tensor is not None:
        pickler.dispatch_table = copyreg.dispatch_table | {tensor: _reduce}
    pickler.dump(obj)
    return file.getvalue()


def reducer(kind: type) -> Callable[[Any], Any] | None:
    """Give what takes the place of ``__reduce_ex__`` for objects of exactly this type."""
    return _reduce if kind is _tensor_type() else None


def _tensor_type() -> Any:
    # Somebody may be importing it right now.
    return getattr(sys.modules.get("torch"), "Tensor", None)


def _reduce(tensor: Any) -> Any:
    content = _content_of(tensor)
    if content is None:
        return tensor.__reduce_ex__(PROTOCOL)
    shape, strides = tuple(tensor.shape), tensor.stride()
    return _make, (PickleBuffer(content), tensor.dtype, shape, strides)


def _content_of(tensor: Any) -> Any:
    """The memory of a tensor as an array of bytes, if a shape is all that it has besides."""
    import torch

    if (
        tensor.layout is not torch.strided
        or tensor.device.type != "cpu"
        or tensor.requires_grad
        or tensor.is_quantized
        or tensor.is_conj()
        or tensor.is_neg()
        or tensor.__dict__
        or tensor._backward_hooks
        or not hasattr(tensor, "untyped_storage")
    ):
        return None
    if not tensor.is_contiguous():
        strides = tensor.stride()
        tensor = tensor.permute(sorted(range(tensor.dim()), key=strides.__getitem__, reverse=True))
        if not tensor.is_contiguous():
            return None
    try:
        return tensor.view(-1).view(torch.uint8).numpy()
    except Exception:  # NumPy is missing, or the tensor is of a kind that hides what it is
        return None


def _make(content: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    import torch

    view = memoryview(content)
    if not view.nbytes:
        return torch.empty_strided(shape, strides, dtype=dtype)
    if view.readonly:
        view = memoryview(
            bytearray(view)
        )  # a tensor can't be: a job would write to what others have
    storage = torch.frombuffer(view, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)
