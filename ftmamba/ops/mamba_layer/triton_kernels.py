# mypy: ignore-errors
"""GPU kernels of a whole Mamba layer for short rows, in Triton: all projections before the scan, then scan and output.

Tiles of tokens by channels; the convolution is a sum of products of shifted tokens, which tensor cores do faster than
registers can be shifted.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ftmamba.ops.selective_scan.triton_kernels import _load_decay_rates, _scan_tokens
from ftmamba.ops.triton_math import NATIVE, sigmoid, wide

UNSPECIALIZED = ("n_tokens", "n_tiles", "first", "stride_x_b", "stride_x_t", "origin")


@triton.jit
def _load_block(matrix, rows, columns, n_rows, width: tl.constexpr):
    """Transposed: (columns, rows) of a (n_rows, width) matrix, zeros beyond its rows."""
    return tl.load(matrix + rows[None, :] * width + columns[:, None], mask=(rows < n_rows)[None, :], other=0.0)


@triton.jit
def _product(a, b):
    if NATIVE:
        return tl.dot(a, b, input_precision="ieee")
    return tl.dot(a.to(tl.float32), b.to(tl.float32))  # the interpreter takes bfloat16 for whole numbers


@triton.jit(do_not_specialize=UNSPECIALIZED)
def project_kernel(
    x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, v, z, dt, B, C,
    n_tokens, n_tiles, stride_x_b, stride_x_t,
    D_MODEL: tl.constexpr, D_INNER: tl.constexpr, N: tl.constexpr, RANK: tl.constexpr, K: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, PART: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """Of TOKENS tokens of one row what the scan takes: v, z, dt (batch, n_tokens, D_INNER), B, C (..., N)."""
    b = wide(tl.program_id(0) // n_tiles)
    t = (tl.program_id(0) % n_tiles) * TOKENS + tl.arange(0, TOKENS)
    n = tl.arange(0, N)
    r = tl.arange(0, RANKS)
    inside = (t < n_tokens)[:, None]
    row = b * n_tokens + t
    x += b * stride_x_b
    ranks = tl.zeros((TOKENS, RANKS), tl.float32)
    Bs = tl.zeros((TOKENS, N), tl.float32)
    Cs = tl.zeros((TOKENS, N), tl.float32)
    for d0 in range(0, D_INNER, CHANNELS):
        d = d0 + tl.arange(0, CHANNELS)
        total = tl.zeros((TOKENS, CHANNELS), tl.float32) + tl.load(conv_bias + d).to(tl.float32)[None, :]
        gate = tl.zeros((TOKENS, CHANNELS), tl.float32)
        for k0 in range(0, D_MODEL, PART):
            k = k0 + tl.arange(0, PART)
            to_u = _load_block(in_proj, d, k, D_INNER, D_MODEL)
            for i in tl.static_range(K):
                at = t - (K - 1) + i
                xs = tl.load(x + at[:, None] * stride_x_t + k[None, :], mask=inside & (at >= 0)[:, None], other=0.0)
                total += _product(xs, to_u) * tl.load(conv_weight + d * K + i).to(tl.float32)[None, :]
                if i == K - 1:
                    gate += _product(xs, _load_block(in_proj + D_INNER * D_MODEL, d, k, D_INNER, D_MODEL))
        tl.store(z + row[:, None] * D_INNER + d[None, :], gate.to(z.dtype.element_ty), mask=inside)
        u = (total * sigmoid(total)).to(x.dtype.element_ty)
        tl.store(v + row[:, None] * D_INNER + d[None, :], u, mask=inside)
        ranks += _product(u, _load_block(x_proj, r, d, RANK, D_INNER))
        Bs += _product(u, _load_block(x_proj + RANK * D_INNER, n, d, N, D_INNER))
        Cs += _product(u, _load_block(x_proj + (RANK + N) * D_INNER, n, d, N, D_INNER))
    tl.store(B + row[:, None] * N + n[None, :], Bs.to(B.dtype.element_ty), mask=inside)
    tl.store(C + row[:, None] * N + n[None, :], Cs.to(C.dtype.element_ty), mask=inside)
    low = ranks.to(x.dtype.element_ty)
    for d0 in range(0, D_INNER, CHANNELS):
        d = d0 + tl.arange(0, CHANNELS)
        weight = tl.load(dt_proj + d[None, :] * RANK + r[:, None], mask=(r < RANK)[:, None], other=0.0)
        step = _product(low, weight)
        tl.store(dt + row[:, None] * D_INNER + d[None, :], step.to(dt.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def scan_project_kernel(
    v, dt, A, B, C, D, z, dt_bias, out_proj, y, out,
    n_tokens, first, origin,
    D_MODEL: tl.constexpr, D_INNER: tl.constexpr, N: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The scan of one row, its y left in memory, then the output of its tokens from ``first`` on."""
    b = wide(tl.program_id(0))
    d = tl.arange(0, D_INNER) + origin
    ok = d < D_INNER
    n = tl.arange(0, N)
    A2 = _load_decay_rates(A, 1, N, d, ok, n, N, N, D_INNER)
    bias = tl.load(dt_bias + d).to(tl.float32)
    skip = tl.load(D + d).to(tl.float32)
    v += b * n_tokens * D_INNER
    dt += b * n_tokens * D_INNER
    z += b * n_tokens * D_INNER
    y += b * n_tokens * D_INNER
    B += b * n_tokens * N
    C += b * n_tokens * N
    h = tl.zeros((N, D_INNER), tl.float32)
    for s in range(n_tokens // UNROLL):
        at = s * UNROLL
        wd = at * D_INNER
        h = _scan_tokens(
            h, v + wd, dt + wd, B + at * N, C + at * N, z + wd, y + wd, D_INNER, D_INNER, N, N, D_INNER, D_INNER,
            A2, bias, skip, d, ok, n, N, N, UNROLL, ALIGN, 0,
        )  # fmt: skip
    for s in range(n_tokens % UNROLL):
        at = n_tokens - n_tokens % UNROLL + s
        wd = at * D_INNER
        h = _scan_tokens(
            h, v + wd, dt + wd, B + at * N, C + at * N, z + wd, y + wd, D_INNER, D_INNER, N, N, D_INNER, D_INNER,
            A2, bias, skip, d, ok, n, N, N, 1, ALIGN, 0,
        )  # fmt: skip
    tl.debug_barrier()  # what other threads wrote is read now
    m = tl.arange(0, D_MODEL)
    for t0 in range(first, n_tokens, TOKENS):
        t = t0 + tl.arange(0, TOKENS)
        total = tl.zeros((TOKENS, D_MODEL), tl.float32)
        for d0 in range(0, D_INNER, CHANNELS):
            c = d0 + tl.arange(0, CHANNELS)
            ys = tl.load(y + t[:, None] * D_INNER + c[None, :], mask=(t < n_tokens)[:, None], other=0.0)
            total += _product(ys, _load_block(out_proj, m, c, D_MODEL, D_INNER))
        place = out + (b * (n_tokens - first) + t - first)[:, None] * D_MODEL + m[None, :]
        tl.store(place, total.to(out.dtype.element_ty), mask=(t < n_tokens)[:, None])
