"""The causal convolution on NVIDIA GPUs, in Triton: one pass forward, one backward, and a small sum for the weights.

A thread owns a channel and walks a chunk of tokens; the last taps' inputs stay in its registers.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ftmamba.ops.causal_conv import triton_kernels as kernels
from ftmamba.ops.gpu import check_dtypes, contiguous_rows, multiprocessors, on
from ftmamba.ops.operators import ANY_DEVICE, differentiate, operator

MAX_TAPS = 32


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ftmamba.ops.causal_conv.causal_conv`. float32, bfloat16 or float16; computes in float32."""
    check_dtypes("the convolution", x, weight, bias)
    if weight.shape[1] > MAX_TAPS:
        raise ValueError(f"the convolution in triton takes up to {MAX_TAPS} taps, not {weight.shape[1]}")
    return _conv(x, weight, bias)  # type: ignore[no-any-return]


def _conv_output(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@operator("causal_conv_triton(Tensor x, Tensor weight, Tensor bias) -> Tensor", _conv_output, ANY_DEVICE)
def _conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = _conv_output(x, weight, bias)
    if x.numel() == 0:
        return y
    x = contiguous_rows(x)
    batch, n_tokens, d_inner = x.shape
    block_d, warps = _block(d_inner)
    chunk = _chunk(batch, n_tokens, d_inner, block_d, multiprocessors(x.device))
    n_chunks = triton.cdiv(n_tokens, chunk)
    with on(x.device):
        kernels.conv_kernel[(triton.cdiv(d_inner, block_d) * n_chunks * batch,)](
            x, weight, bias.contiguous(), y,
            n_tokens, d_inner, n_chunks, chunk, x.stride(0), x.stride(1), *weight.stride(), 0,
            K=weight.shape[1], BLOCK_D=block_d, UNROLL=8, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
    return y


def _conv_gradients(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


@operator(
    "causal_conv_triton_backward(Tensor x, Tensor weight, Tensor bias, Tensor dy) -> (Tensor, Tensor, Tensor)",
    _conv_gradients,
    ANY_DEVICE,
)
def _conv_backward(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dx, d_weight, d_bias = grads = _conv_gradients(x, weight, bias, dy)
    if x.numel() == 0:
        return dx, d_weight.zero_(), d_bias.zero_()
    x, dy = contiguous_rows(x), contiguous_rows(dy)
    batch, n_tokens, d_inner = x.shape
    d_conv = weight.shape[1]
    block_d, warps = _block(d_inner)
    chunk = _chunk(batch, n_tokens, d_inner, block_d, multiprocessors(x.device))
    n_chunks = triton.cdiv(n_tokens, chunk)
    partial = x.new_empty((batch * n_chunks, d_conv + 1, d_inner), dtype=torch.float32)
    with on(x.device):
        kernels.conv_adjoint_kernel[(triton.cdiv(d_inner, block_d) * n_chunks * batch,)](
            x, weight, bias.contiguous(), dy, dx, partial,
            n_tokens, d_inner, n_chunks, chunk,
            x.stride(0), x.stride(1), dy.stride(0), dy.stride(1), *weight.stride(), 0,
            K=d_conv, BLOCK_D=block_d, UNROLL=4, num_warps=warps, enable_fp_fusion=True,
        )  # fmt: skip
        kernels.sum_taps_kernel[((d_conv + 1) * triton.cdiv(d_inner, 32),)](
            partial, d_weight, d_bias, batch * n_chunks, d_inner, K=d_conv, BLOCK=32, BLOCK_D=32
        )
    return grads


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _conv_backward(*ctx.saved_tensors, dy)  # type: ignore[no-any-return]


differentiate(_conv, _setup_context, _backward, _conv_backward)


def _block(d_inner: int) -> tuple[int, int]:
    """Channels a program and its warps: one channel a thread."""
    warps = 1
    while warps < 4 and 32 * warps < d_inner:
        warps *= 2
    return 32 * warps, warps


def _chunk(batch: int, n_tokens: int, d_inner: int, block_d: int, multiprocessors: int) -> int:
    """Tokens a program: as many as leave eight programs a multiprocessor, which hide the latency of memory.

    Long chunks read few tokens twice and leave few partial sums of the weights; 32 to 512 tokens.
    """
    chunk = 512
    while chunk > 32 and batch * triton.cdiv(d_inner, block_d) * triton.cdiv(n_tokens, chunk) < 8 * multiprocessors:
        chunk //= 2
    return chunk
