"""What the numba backends share on the host's side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ftmamba.backends import BackendError
from ftmamba.ops.simd import CHANNELS, compile_entry
from ftmamba.threads import Kernel, get_threads


def kernel(function: Callable[..., Any], fields: Sequence[str]) -> Kernel:
    """The kernel of a Python function that takes the address of its arguments; compiled at first use."""
    return Kernel(lambda: compile_entry(function, fields), fields)  # type: ignore[no-untyped-call]


def as_float(*tensors: Tensor | None) -> list[Any]:
    """The tensors in float32, which the kernels compute in.

    Raises:
        BackendError: one is float64.
    """
    if any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors):
        raise BackendError("backend 'numba' computes in float32; for float64 use backend 'reference'")
    return [None if tensor is None else tensor.float() for tensor in tensors]


def strided(**tensors: Tensor) -> dict[str, Tensor | int | None]:
    """Arguments of a kernel: address and strides of (batch, token, ..., channel) tensors, heads the third where four.

    Slices need no copy as long as channels are adjacent.
    """
    arguments: dict[str, Tensor | int | None] = {}
    for name, tensor in tensors.items():
        rows = tensor if tensor.stride(-1) == 1 else tensor.contiguous()
        strides = zip(("_batch", "_token", "_head"), rows.stride()[:-1], strict=False)
        arguments |= {name: rows, **{f"{name}{axis}": stride for axis, stride in strides}}
    return arguments


def scratch(like: Tensor, n_threads: int, n_floats: int) -> dict[str, Tensor | int | None]:
    """Arguments of a kernel: memory of each thread's own."""
    return {"scratch": like.new_empty(n_threads, n_floats), "scratch_stride": n_floats}


def padded(count: int) -> int:
    """Rounded up to whole vectors."""
    return count + -count % CHANNELS


def chunks_of(like: Tensor, n_rows: int, chunk: int, n_states: int, lengths: Tensor | None) -> dict[str, Any]:
    """Arguments of a kernel over chunks of rows, `ftmamba.ops.chunks`: counts, and the states that are handed on."""
    return {
        "n_rows": n_rows,
        "n_tokens": like.shape[1],
        "chunk": chunk,
        "n_lanes": min(get_threads(), n_rows),
        "n_items": n_rows * -(-like.shape[1] // chunk),
        "lengths": None if lengths is None else lengths.to(torch.int64).contiguous(),
        "states": like.new_empty(n_rows, n_states),
        "progress": like.new_zeros(n_rows, dtype=torch.int64),
    }


def zero_pads(lengths: Tensor | None, *tensors: Tensor) -> None:
    """Zeros wherever a kernel may write nothing, behind the ends of ragged rows."""
    if lengths is not None:
        for each in tensors:
            each.zero_()
