"""The layer on NVIDIA GPUs for short rows, without gradients: two launches, where launches are what takes the time."""

from __future__ import annotations

import torch
import triton

from ftmamba.backends import BackendError
from ftmamba.ops.gpu import check_dtypes, contiguous_rows, on
from ftmamba.ops.mamba_layer import LayerInputs
from ftmamba.ops.mamba_layer import triton_kernels as kernels
from ftmamba.ops.selective_scan import Readout

MOST_TOKENS = 128  # beyond, one program a row walks for longer than launches take
TOKENS, CHANNELS = 16, 64  # of a tile
WIDTHS = (64, 128, 256)


def refusal(d_model: int, d_inner: int, d_conv: int, d_state: int, dt_rank: int) -> str | None:
    """Why layers of these widths cannot run here, or None when they can."""
    if d_model not in (32, *WIDTHS) or d_inner not in WIDTHS or d_state not in (16, 32) or dt_rank > 16 or d_conv > 8:
        return "takes d_model and d_inner of 64, 128 or 256, 16 or 32 states, ranks up to 16 and up to 8 taps"
    return None


def pays(x: torch.Tensor) -> bool:
    """Whether it is expected to be faster than the ops one by one: at short rows without gradients."""
    return x.shape[1] <= MOST_TOKENS and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def mamba_layer(inputs: LayerInputs, *, readout: Readout = "all") -> torch.Tensor:
    """See `ftmamba.ops.mamba_layer.mamba_layer`.

    Raises:
        BackendError: widths that the kernels do not take, or gradients are wanted.
    """
    check_dtypes("the layer", *inputs)
    x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj = inputs
    (batch, n_tokens, d_model), (d_inner, d_state), rank = x.shape, A.shape, dt_proj.shape[1]
    if reason := refusal(d_model, d_inner, conv_weight.shape[1], d_state, rank):
        raise BackendError(f"backend 'triton' cannot run this layer: it {reason}")
    if torch.is_grad_enabled() and any(each.requires_grad for each in inputs):
        raise BackendError("backend 'triton' runs the layer as one without gradients; take the ops one by one")
    first = 0 if readout == "all" else n_tokens - 1
    out = x.new_empty((batch, n_tokens - first, d_model))
    if x.numel() == 0:
        return out
    x = contiguous_rows(x)
    weights = [each.contiguous() for each in (in_proj, conv_weight, conv_bias, x_proj, dt_proj)]
    v, z, dt, y = (x.new_empty((batch, n_tokens, d_inner)) for _ in range(4))
    B, C = (x.new_empty((batch, n_tokens, d_state)) for _ in range(2))
    n_tiles = triton.cdiv(n_tokens, TOKENS)
    widths = {"D_MODEL": d_model, "D_INNER": d_inner, "N": d_state, "TOKENS": TOKENS, "CHANNELS": CHANNELS}
    with on(x.device):
        kernels.project_kernel[(batch * n_tiles,)](
            x, *weights, v, z, dt, B, C, n_tokens, n_tiles, x.stride(0), x.stride(1),
            **widths, RANK=rank, K=conv_weight.shape[1], PART=32, RANKS=16, num_warps=4, num_stages=1,
        )  # fmt: skip
        kernels.scan_project_kernel[(batch,)](
            v, dt, A.contiguous(), B, C, D.contiguous(), z, dt_bias.contiguous(), out_proj.contiguous(), y, out,
            n_tokens, first, 0, **widths, UNROLL=2, ALIGN=16, num_warps=d_inner // 32,
        )  # fmt: skip
    return out
