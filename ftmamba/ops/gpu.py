"""What the Triton backends share on the host's side."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
H100_MULTIPROCESSORS = 132


def check_dtypes(op: str, *tensors: Tensor | None) -> None:
    """Raise ValueError unless all tensors have a dtype that the kernels take."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in DTYPES:
            raise ValueError(f"{op} in triton takes float32, bfloat16 and float16, not {tensor.dtype}")


def contiguous_rows(t: Tensor) -> Tensor:
    """``t`` itself when its last dimension is dense, as in a slice of a projection; else a copy."""
    return t if t.stride(-1) == 1 else t.contiguous()


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """Of the GPU; on the CPU, where only Triton's interpreter runs kernels, those of an H100."""
    if device.type != "cuda":
        return H100_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def on(device: torch.device) -> AbstractContextManager[object]:
    """Launch kernels on the tensors' GPU, which need not be the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
