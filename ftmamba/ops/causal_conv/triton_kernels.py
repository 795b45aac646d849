# mypy: ignore-errors
# ruff: noqa: RUF005 (Triton has no unpacking)
"""GPU kernels of the causal convolution, in Triton; ``triton.py`` beside this file launches them."""

from __future__ import annotations

import triton
import triton.language as tl

from ftmamba.ops.triton_math import sigmoid, silu_slope, token_mask, wide

UNSPECIALIZED = (
    "origin", "n_tokens", "d_inner", "n_chunks", "n_cells", "chunk", "stride_x_b", "stride_x_t", "stride_dy_b",
    "stride_dy_t", "stride_w_d", "stride_w_k",
)  # fmt: skip


@triton.jit
def _load_span(base, stride_t, d, d_inner, t0, n_tokens, COUNT: tl.constexpr):
    """COUNT tokens from t0 on, as float32; zeros before the first token and after the last."""
    values = ()
    for i in tl.static_range(COUNT):
        t = wide(t0 + i)
        ok = token_mask((t >= 0) & (t < n_tokens), d, d_inner)
        values = values + (tl.load(base + t * stride_t + d, mask=ok, other=0.0).to(tl.float32),)
    return values


@triton.jit
def _load_taps(weight, bias, stride_w_d, stride_w_k, d, ok, K: tl.constexpr):
    taps = ()
    for k in tl.static_range(K):
        taps = taps + (tl.load(weight + d * stride_w_d + k * stride_w_k, mask=ok, other=0.0).to(tl.float32),)
    return taps, tl.load(bias + d, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def _filter(rows, taps, bias, i: tl.constexpr, K: tl.constexpr):
    """Before SiLU: the token whose K inputs are rows[i : i + K]."""
    value = bias
    for k in tl.static_range(K):
        value += taps[k] * rows[i + k]
    return value


@triton.jit(do_not_specialize=UNSPECIALIZED)
def conv_kernel(
    x, weight, bias, y,
    n_tokens, d_inner, n_chunks, chunk, stride_x_b, stride_x_t, stride_w_d, stride_w_k, origin,
    K: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    n_blocks = tl.cdiv(d_inner, BLOCK_D)
    cell = tl.program_id(0) // n_blocks
    d = (tl.program_id(0) % n_blocks) * BLOCK_D + tl.arange(0, BLOCK_D) + origin
    start = (cell % n_chunks) * chunk
    stop = tl.minimum(start + chunk, n_tokens)
    b = wide(cell // n_chunks)
    x += b * stride_x_b
    y += b * n_tokens * d_inner
    taps, shift = _load_taps(weight, bias, stride_w_d, stride_w_k, d, d < d_inner, K)
    before = _load_span(x, stride_x_t, d, d_inner, start - (K - 1), n_tokens, K - 1)
    for t0 in range(start, stop, UNROLL):
        rows = before + _load_span(x, stride_x_t, d, d_inner, t0, n_tokens, UNROLL)
        for i in tl.static_range(UNROLL):
            value = _filter(rows, taps, shift, i, K)
            t = wide(t0 + i)
            ok = token_mask(t < stop, d, d_inner)
            tl.store(y + t * d_inner + d, (value * sigmoid(value)).to(y.dtype.element_ty), mask=ok)
        before = rows[UNROLL:]


@triton.jit(do_not_specialize=UNSPECIALIZED)
def conv_adjoint_kernel(
    x, weight, bias, dy, dx, partial,
    n_tokens, d_inner, n_chunks, chunk,
    stride_x_b, stride_x_t, stride_dy_b, stride_dy_t, stride_w_d, stride_w_k, origin,
    K: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """dx of a chunk, and its share of the gradients of weight and bias: ``partial``, (cells, K + 1, d_inner).

    An input reaches K outputs, so the walk goes K - 1 tokens beyond the chunk; those count for dx alone.
    """
    n_blocks = tl.cdiv(d_inner, BLOCK_D)
    cell = tl.program_id(0) // n_blocks
    d = (tl.program_id(0) % n_blocks) * BLOCK_D + tl.arange(0, BLOCK_D) + origin
    start = (cell % n_chunks) * chunk
    stop = tl.minimum(start + chunk, n_tokens)
    b = wide(cell // n_chunks)
    x += b * stride_x_b
    dy += b * stride_dy_b
    dx += b * n_tokens * d_inner
    taps, shift = _load_taps(weight, bias, stride_w_d, stride_w_k, d, d < d_inner, K)
    before = _load_span(x, stride_x_t, d, d_inner, start - (K - 1), n_tokens, K - 1)
    slopes_before = ()
    d_taps = ()
    for _k in tl.static_range(K - 1):
        slopes_before = slopes_before + (tl.zeros((BLOCK_D,), tl.float32),)
    for _k in tl.static_range(K):
        d_taps = d_taps + (tl.zeros((BLOCK_D,), tl.float32),)
    d_shift = tl.zeros((BLOCK_D,), tl.float32)
    for t0 in range(start, stop + K - 1, UNROLL):
        rows = before + _load_span(x, stride_x_t, d, d_inner, t0, n_tokens, UNROLL)
        dys = _load_span(dy, stride_dy_t, d, d_inner, t0, n_tokens, UNROLL)
        slopes = slopes_before
        for i in tl.static_range(UNROLL):
            value = _filter(rows, taps, shift, i, K)
            slope = dys[i] * silu_slope(value, sigmoid(value))
            slopes = slopes + (slope,)
            own = tl.where(wide(t0 + i) < stop, slope, 0.0)
            d_shift += own
            sums = ()
            for k in tl.static_range(K):
                sums = sums + (d_taps[k] + own * rows[i + k],)
            d_taps = sums
        for i in tl.static_range(UNROLL):
            value = tl.zeros((BLOCK_D,), tl.float32)
            for k in tl.static_range(K):
                value += taps[K - 1 - k] * slopes[i + k]
            t = wide(t0 + i - (K - 1))
            ok = token_mask((t >= start) & (t < stop), d, d_inner)
            tl.store(dx + t * d_inner + d, value.to(dx.dtype.element_ty), mask=ok)
        before = rows[UNROLL:]
        slopes_before = slopes[UNROLL:]
    partial += wide(cell) * (K + 1) * d_inner
    for k in tl.static_range(K):
        tl.store(partial + k * d_inner + d, d_taps[k], mask=d < d_inner)
    tl.store(partial + K * d_inner + d, d_shift, mask=d < d_inner)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def sum_taps_kernel(
    partial, d_weight, d_bias,
    n_cells, d_inner,
    K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum ``partial`` over cells; write the gradients of weight, (d_inner, K), and of bias."""
    row = tl.program_id(0) % (K + 1)
    d = (tl.program_id(0) // (K + 1)) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for c0 in range(0, n_cells, BLOCK):
        cells = wide(c0) + tl.arange(0, BLOCK)
        ok = (cells < n_cells)[:, None] & (d < d_inner)[None, :]
        total += tl.load(partial + (cells * (K + 1) + row)[:, None] * d_inner + d[None, :], mask=ok, other=0.0)
    value = tl.sum(total, axis=0)
    if row < K:
        tl.store(d_weight + d * K + row, value.to(d_weight.dtype.element_ty), mask=d < d_inner)
    else:
        tl.store(d_bias + d, value.to(d_bias.dtype.element_ty), mask=d < d_inner)
