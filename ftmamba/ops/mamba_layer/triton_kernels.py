# mypy: ignore-errors
"""GPU kernels of a whole Mamba layer for short rows, in Triton: two launches forward, two for all gradients.

Tiles of tokens by channels; the convolution is a sum of products of shifted tokens, which tensor cores do faster than
registers can be shifted. What one token hands to the scan stands together in ``p``, (batch, n_tokens, 3 * N): the
ranks of the step, of which only the first RANK are used, then B, then C. Rows end at their ``lengths``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ftmamba.ops.selective_scan.triton_kernels import (
    _adjoint_tokens,
    _advance,
    _load_decay_rates,
    _load_tile,
    _scan_tokens,
    _store_tile,
)
from ftmamba.ops.triton_math import NATIVE, sigmoid, silu_slope, wide

UNSPECIALIZED = ("batch", "n_tokens", "n_tiles", "n_segments", "n_slots", "stride_x_b", "stride_x_t", "origin")


@triton.jit
def _load(base, rows, columns, stride, inside):
    """(rows, columns) of a matrix, zeros in rows that are not ``inside``."""
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside[:, None], other=0.0)


@triton.jit
def _load_turned(base, rows, columns, stride, inside):
    """(columns, rows) of a matrix, zeros for rows that are not ``inside``."""
    return tl.load(base + rows[None, :] * stride + columns[:, None], mask=inside[None, :], other=0.0)


@triton.jit
def _store(base, rows, columns, stride, inside, tile):
    place = base + rows[:, None] * stride + columns[None, :]
    tl.store(place, tile.to(base.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    if NATIVE:
        return tl.dot(a, b, input_precision=PRECISION)
    return tl.dot(a.to(tl.float32), b.to(tl.float32))  # the interpreter takes bfloat16 for whole numbers


@triton.jit
def _end(lengths, b, n_tokens, RAGGED: tl.constexpr):
    if RAGGED:
        return tl.load(lengths + b).to(tl.int32)
    return n_tokens


@triton.jit(do_not_specialize=UNSPECIALIZED)
def project_kernel(
    x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, u, v, z, dt, p,
    n_tokens, n_tiles, stride_x_b, stride_x_t,
    D_MODEL: tl.constexpr, D_INNER: tl.constexpr, N: tl.constexpr, RANK: tl.constexpr, K: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Of TOKENS tokens of one row what the scan takes; KEEP: also u, what the convolution was given."""
    b = wide(tl.program_id(0) // n_tiles)
    t = (tl.program_id(0) % n_tiles) * TOKENS + tl.arange(0, TOKENS)
    n = tl.arange(0, N)
    inside = t < n_tokens
    row = b * n_tokens + t
    x += b * stride_x_b
    ranks = tl.zeros((TOKENS, N), tl.float32)
    Bs = tl.zeros((TOKENS, N), tl.float32)
    Cs = tl.zeros((TOKENS, N), tl.float32)
    for d0 in range(0, D_INNER, CHANNELS):
        d = d0 + tl.arange(0, CHANNELS)
        total = tl.zeros((TOKENS, CHANNELS), tl.float32) + tl.load(conv_bias + d).to(tl.float32)[None, :]
        seen = tl.zeros((TOKENS, CHANNELS), tl.float32)
        for i in range(K):  # unrolled it would need more registers than there are
            at = t - (K - 1) + i
            seen = tl.zeros((TOKENS, CHANNELS), tl.float32)
            for k0 in range(0, D_MODEL, WIDE):
                k = k0 + tl.arange(0, WIDE)
                xs = _load(x, at, k, stride_x_t, inside & (at >= 0))
                seen += _product(xs, _load_turned(in_proj, d, k, D_MODEL, d < D_INNER), PRECISION)
            total += seen * tl.load(conv_weight + d * K + i).to(tl.float32)[None, :]
        if KEEP:
            _store(u, row, d, D_INNER, inside, seen)
        gate = tl.zeros((TOKENS, CHANNELS), tl.float32)
        for k0 in range(0, D_MODEL, WIDE):
            k = k0 + tl.arange(0, WIDE)
            weight = _load_turned(in_proj + D_INNER * D_MODEL, d, k, D_MODEL, d < D_INNER)
            gate += _product(_load(x, t, k, stride_x_t, inside), weight, PRECISION)
        _store(z, row, d, D_INNER, inside, gate)
        vs = (total * sigmoid(total)).to(x.dtype.element_ty)
        _store(v, row, d, D_INNER, inside, vs)
        ranks += _product(vs, _load_turned(x_proj, n, d, D_INNER, n < RANK), PRECISION)
        Bs += _product(vs, _load_turned(x_proj + RANK * D_INNER, n, d, D_INNER, n < N), PRECISION)
        Cs += _product(vs, _load_turned(x_proj + (RANK + N) * D_INNER, n, d, D_INNER, n < N), PRECISION)
    _store(p, row, n, 3 * N, inside, ranks)
    _store(p + N, row, n, 3 * N, inside, Bs)
    _store(p + 2 * N, row, n, 3 * N, inside, Cs)
    low = ranks.to(x.dtype.element_ty)
    for d0 in range(0, D_INNER, CHANNELS):
        d = d0 + tl.arange(0, CHANNELS)
        weight = tl.load(dt_proj + d[None, :] * RANK + n[:, None], mask=(n < RANK)[:, None], other=0.0)
        _store(dt, row, d, D_INNER, inside, _product(low, weight, PRECISION))


@triton.jit(do_not_specialize=UNSPECIALIZED)
def scan_project_kernel(
    v, dt, A, p, D, z, dt_bias, out_proj, lengths, y, out, checkpoints,
    n_tokens, n_segments, origin,
    D_MODEL: tl.constexpr, D_INNER: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
    ALIGN: tl.constexpr, SEGMENT: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
    PRECISION: tl.constexpr, RAGGED: tl.constexpr, LAST: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The scan of one row, its y left in memory, then the output of its tokens, or of the LAST one alone."""
    b = wide(tl.program_id(0))
    end = _end(lengths, b, n_tokens, RAGGED)
    d = tl.arange(0, BLOCK_D) + origin
    ok = d < D_INNER
    n = tl.arange(0, N)
    A2 = _load_decay_rates(A, 1, N, d, ok, n, N, N, BLOCK_D)
    bias = tl.load(dt_bias + d, mask=ok, other=0.0).to(tl.float32)
    skip = tl.load(D + d, mask=ok, other=0.0).to(tl.float32)
    v += b * n_tokens * D_INNER
    dt += b * n_tokens * D_INNER
    z += b * n_tokens * D_INNER
    y += b * n_tokens * D_INNER
    p += b * n_tokens * 3 * N
    h = tl.zeros((N, BLOCK_D), tl.float32)
    for s0 in range(0, end, SEGMENT):
        if KEEP:
            _store_tile(checkpoints + (b * n_segments + s0 // SEGMENT) * N * D_INNER, D_INNER, d, ok, h, n, N)
        n_own = tl.minimum(end - s0, SEGMENT)
        for s in range(n_own // UNROLL):
            at = s0 + s * UNROLL
            wd = at * D_INNER
            h = _scan_tokens(
                h, v + wd, dt + wd, p + (3 * at + 1) * N, p + (3 * at + 2) * N, z + wd, y + wd,
                D_INNER, D_INNER, 3 * N, 3 * N, D_INNER, D_INNER, A2, bias, skip, d, ok, n, N, N, UNROLL, ALIGN, 0,
            )  # fmt: skip
        for s in range(n_own % UNROLL):
            at = s0 + n_own - n_own % UNROLL + s
            wd = at * D_INNER
            h = _scan_tokens(
                h, v + wd, dt + wd, p + (3 * at + 1) * N, p + (3 * at + 2) * N, z + wd, y + wd,
                D_INNER, D_INNER, 3 * N, 3 * N, D_INNER, D_INNER, A2, bias, skip, d, ok, n, N, N, 1, ALIGN, 0,
            )  # fmt: skip
    tl.debug_barrier()  # what other threads wrote is read now
    first = end - 1 if LAST else 0
    stop = end if LAST else n_tokens
    out += b * (1 if LAST else n_tokens) * D_MODEL
    for t0 in range(first, stop, TOKENS):
        t = t0 + tl.arange(0, TOKENS)
        for m0 in range(0, D_MODEL, WIDE):
            m = m0 + tl.arange(0, WIDE)
            total = tl.zeros((TOKENS, WIDE), tl.float32)
            for d0 in range(0, D_INNER, CHANNELS):
                c = d0 + tl.arange(0, CHANNELS)
                ys = _load(y, t, c, D_INNER, t < end)
                total += _product(ys, _load_turned(out_proj, m, c, D_INNER, m < D_MODEL), PRECISION)
            _store(out, t - first, m, D_MODEL, t < stop, total)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def layer_adjoint_kernel(
    dout, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, lengths,
    u, v, z, dt, p, checkpoints, scratch, d_tokens, dy, du, dv, dz, ddt, dp, dx, d_channels,
    n_tokens, n_segments, n_slots, origin,
    D_MODEL: tl.constexpr, D_INNER: tl.constexpr, N: tl.constexpr, RANK: tl.constexpr, K: tl.constexpr,
    BLOCK_D: tl.constexpr, ALIGN: tl.constexpr, SEGMENT: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    RAGGED: tl.constexpr, LAST: tl.constexpr, WARP_SUM: tl.constexpr, CONSTRAINTS: tl.constexpr,
):  # fmt: skip
    """Gradients of every token of one row; what `weights_kernel` takes is left in memory.

    ``dv`` is left as the gradient of the convolution's sum, before its nonlinearity. ``scratch``, for each row
    (n_slots, N, BLOCK_D), takes the states of a segment, ``d_tokens`` (BLOCK_D / 32, n_tokens, 2 * N) the
    gradients of B and C summed over a warp's channels, ``d_channels`` (N + 2, D_INNER) those of A, D and dt_bias.
    """
    n = tl.arange(0, N)
    b = wide(tl.program_id(0))
    scratch += b * n_slots * N * BLOCK_D
    d_tokens += b * (BLOCK_D // 32) * n_tokens * 2 * N
    group_stride = n_tokens * 2 * N
    end = _end(lengths, b, n_tokens, RAGGED)
    row = b * n_tokens
    dout_row = dout + (b + 1 - end if LAST else row) * D_MODEL
    for t0 in range(0, end, TOKENS):
        t = t0 + tl.arange(0, TOKENS)
        given = (t < end) & (t >= end - 1) if LAST else t < end
        for d0 in range(0, D_INNER, CHANNELS):
            c = d0 + tl.arange(0, CHANNELS)
            total = tl.zeros((TOKENS, CHANNELS), tl.float32)
            for m0 in range(0, D_MODEL, WIDE):
                m = m0 + tl.arange(0, WIDE)
                douts = _load(dout_row, t, m, D_MODEL, given)
                total += _product(douts, _load(out_proj, m, c, D_INNER, m < D_MODEL), PRECISION)
            _store(dy + row * D_INNER, t, c, D_INNER, t < end, total)
    tl.debug_barrier()  # here and below: what other threads wrote is read now

    d = tl.arange(0, BLOCK_D) + origin
    ok = d < D_INNER
    A2 = _load_decay_rates(A, 1, N, d, ok, n, N, N, BLOCK_D)
    bias = tl.load(dt_bias + d, mask=ok, other=0.0).to(tl.float32)
    skip = tl.load(D + d, mask=ok, other=0.0).to(tl.float32)
    dA = tl.zeros((N, BLOCK_D), tl.float32)
    dskip = tl.zeros((BLOCK_D,), tl.float32)
    dbias = tl.zeros((BLOCK_D,), tl.float32)
    extra = tl.zeros((BLOCK_D,), tl.float32)
    g = tl.zeros((N, BLOCK_D), tl.float32)
    n_own = tl.cdiv(end, SEGMENT)
    for s in range(n_own):
        s0 = (n_own - 1 - s) * SEGMENT
        length = tl.minimum(end - s0, SEGMENT)
        saved = checkpoints + (b * n_segments + s0 // SEGMENT) * N * D_INNER
        h = _load_tile(saved, D_INNER, d, ok, n, N)
        total = tl.zeros((BLOCK_D,), tl.float32)
        for k in range(length):
            _store_tile(scratch + k * N * BLOCK_D, BLOCK_D, d, d < BLOCK_D, h, n, N)
            at = row + s0 + k
            h, total = _advance(
                h, total, v + at * D_INNER, dt + at * D_INNER, p + (3 * at + 1) * N, D_INNER, D_INNER, 3 * N,
                A2, bias, d, ok, n, N, N, 1, ALIGN, 0,
            )  # fmt: skip
        for k in range(length):
            slot = length - 1 - k
            h = _load_tile(scratch + slot * N * BLOCK_D, BLOCK_D, d, d < BLOCK_D, n, N)
            at = row + s0 + slot
            wd = at * D_INNER
            g, dA, dskip, dbias = _adjoint_tokens(
                h, g, dA, dskip, dbias, extra, v + wd, dt + wd, p + (3 * at + 1) * N, p + (3 * at + 2) * N, z + wd,
                dy + wd, dv + wd, ddt + wd, dz + wd, d_tokens + (s0 + slot) * 2 * N, D_INNER, group_stride,
                D_INNER, D_INNER, 3 * N, 3 * N, D_INNER, D_INNER, A2, bias, skip, d, ok, n, d,
                N, N, BLOCK_D, 1, ALIGN, 0, False, 2 * N, WARP_SUM, CONSTRAINTS,
            )  # fmt: skip
    d_channels += b * (N + 2) * D_INNER
    _store_tile(d_channels, D_INNER, d, ok, dA, n, N)
    tl.store(d_channels + N * D_INNER + d, dskip, mask=ok)
    tl.store(d_channels + (N + 1) * D_INNER + d, dbias, mask=ok)
    tl.debug_barrier()

    for t0 in range(0, end, TOKENS):
        t = t0 + tl.arange(0, TOKENS)
        dBs = tl.zeros((TOKENS, N), tl.float32)
        dCs = tl.zeros((TOKENS, N), tl.float32)
        for group in range(D_INNER // 32):
            dBs += _load(d_tokens + group * group_stride, t, n, 2 * N, t < end)
            dCs += _load(d_tokens + group * group_stride + N, t, n, 2 * N, t < end)
        ranks = tl.zeros((TOKENS, N), tl.float32)
        for d0 in range(0, D_INNER, CHANNELS):
            c = d0 + tl.arange(0, CHANNELS)
            weight = tl.load(dt_proj + c[:, None] * RANK + n[None, :], mask=(n < RANK)[None, :], other=0.0)
            ranks += _product(_load(ddt + row * D_INNER, t, c, D_INNER, t < end), weight, PRECISION)
        dlow = ranks.to(dp.dtype.element_ty)
        dB = dBs.to(dp.dtype.element_ty)
        dC = dCs.to(dp.dtype.element_ty)
        _store(dp + row * 3 * N, t, n, 3 * N, t < end, dlow)
        _store(dp + row * 3 * N + N, t, n, 3 * N, t < end, dB)
        _store(dp + row * 3 * N + 2 * N, t, n, 3 * N, t < end, dC)
        for d0 in range(0, D_INNER, CHANNELS):
            c = d0 + tl.arange(0, CHANNELS)
            dvs = _load(dv + row * D_INNER, t, c, D_INNER, t < end).to(tl.float32)
            dvs += _product(dlow, _load(x_proj, n, c, D_INNER, n < RANK), PRECISION)
            dvs += _product(dB, _load(x_proj + RANK * D_INNER, n, c, D_INNER, n < N), PRECISION)
            dvs += _product(dC, _load(x_proj + (RANK + N) * D_INNER, n, c, D_INNER, n < N), PRECISION)
            total = tl.zeros((TOKENS, CHANNELS), tl.float32) + tl.load(conv_bias + c).to(tl.float32)[None, :]
            for i in range(K):
                at = t - (K - 1) + i
                seen = _load(u + row * D_INNER, at, c, D_INNER, (t < end) & (at >= 0)).to(tl.float32)
                total += seen * tl.load(conv_weight + c * K + i).to(tl.float32)[None, :]
            _store(dv + row * D_INNER, t, c, D_INNER, t < end, dvs * silu_slope(total, sigmoid(total)))
    tl.debug_barrier()

    for t0 in range(0, end, TOKENS):
        t = t0 + tl.arange(0, TOKENS)
        for d0 in range(0, D_INNER, CHANNELS):
            c = d0 + tl.arange(0, CHANNELS)
            total = tl.zeros((TOKENS, CHANNELS), tl.float32)
            for i in range(K):
                at = t + (K - 1) - i
                later = _load(dv + row * D_INNER, at, c, D_INNER, at < end).to(tl.float32)
                total += later * tl.load(conv_weight + c * K + i).to(tl.float32)[None, :]
            _store(du + row * D_INNER, t, c, D_INNER, t < end, total)
    tl.debug_barrier()

    for t0 in range(0, n_tokens, TOKENS):
        t = t0 + tl.arange(0, TOKENS)
        for m0 in range(0, D_MODEL, WIDE):
            m = m0 + tl.arange(0, WIDE)
            total = tl.zeros((TOKENS, WIDE), tl.float32)
            for d0 in range(0, D_INNER, CHANNELS):
                c = d0 + tl.arange(0, CHANNELS)
                dus = _load(du + row * D_INNER, t, c, D_INNER, t < end)
                total += _product(dus, _load(in_proj, c, m, D_MODEL, c < D_INNER), PRECISION)
                dzs = _load(dz + row * D_INNER, t, c, D_INNER, t < end)
                weight = _load(in_proj + D_INNER * D_MODEL, c, m, D_MODEL, c < D_INNER)
                total += _product(dzs, weight, PRECISION)
            _store(dx + row * D_MODEL, t, m, D_MODEL, t < n_tokens, total)


@triton.jit
def _products_of_tokens(
    left, right, out, lengths, tile, batch, n_tokens, n_left, n_right, stride_left, stride_right,
    skipped_from, skipped,
    TILE: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr, RAGGED: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Tile ``tile`` of ``out``, (n_left, n_right): the sum of left^T right over all tokens of all rows.

    From column ``skipped_from`` on, left's columns stand ``skipped`` further. LAST: ``left`` holds the last token of
    each row alone.
    """
    n_across = tl.cdiv(n_right, TILE)
    i = tile // n_across * TILE + tl.arange(0, TILE)
    j = tile % n_across * TILE + tl.arange(0, TILE)
    column = tl.where(i < skipped_from, i, i + skipped)
    total = tl.zeros((TILE, TILE), tl.float32)
    n_rows = batch if LAST else batch * n_tokens
    for r0 in range(0, n_rows, ROWS):
        r = r0 + tl.arange(0, ROWS)
        inside = r < n_rows
        at = wide(r)
        if LAST:
            end = tl.load(lengths + r, mask=inside, other=1).to(tl.int32) if RAGGED else n_tokens
            at = at * n_tokens + end - 1
        elif RAGGED:
            inside = r % n_tokens < tl.load(lengths + r // n_tokens, mask=inside, other=0).to(tl.int32)
        lefts = left + wide(r)[:, None] * stride_left + column[None, :]
        rights = right + at[:, None] * stride_right + j[None, :]
        a = tl.load(lefts, mask=inside[:, None] & (i < n_left)[None, :], other=0.0)
        c = tl.load(rights, mask=inside[:, None] & (j < n_right)[None, :], other=0.0)
        total += _product(tl.trans(a), c, PRECISION)
    place = out + i[:, None] * n_right + j[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(i < n_left)[:, None] & (j < n_right)[None, :])


@triton.jit(do_not_specialize=UNSPECIALIZED)
def weights_kernel(
    x, dout, lengths, u, v, y, p, du, dv, dz, ddt, dp, d_channels,
    din_proj, dconv_weight, dconv_bias, dx_proj, ddt_proj, ddt_bias, dA, dD, dout_proj,
    batch, n_tokens,
    D_MODEL: tl.constexpr, D_INNER: tl.constexpr, N: tl.constexpr, RANK: tl.constexpr, K: tl.constexpr,
    TILE: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr, RAGGED: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Gradients of all weights, a tile a program; those of the convolution, A, D and dt_bias by the last programs."""
    tile = tl.program_id(0)
    INNER: tl.constexpr = D_INNER // TILE
    MODEL: tl.constexpr = D_MODEL // TILE
    PROJECTED: tl.constexpr = (RANK + 2 * N + TILE - 1) // TILE
    if tile < INNER * MODEL:
        _products_of_tokens(
            du, x, din_proj, lengths, tile, batch, n_tokens, D_INNER, D_MODEL, D_INNER, D_MODEL, D_INNER, 0,
            TILE, ROWS, PRECISION, RAGGED, False,
        )  # fmt: skip
    elif tile < 2 * INNER * MODEL:
        _products_of_tokens(
            dz, x, din_proj + D_INNER * D_MODEL, lengths, tile - INNER * MODEL, batch, n_tokens,
            D_INNER, D_MODEL, D_INNER, D_MODEL, D_INNER, 0, TILE, ROWS, PRECISION, RAGGED, False,
        )  # fmt: skip
    elif tile < 3 * INNER * MODEL:
        _products_of_tokens(
            dout, y, dout_proj, lengths, tile - 2 * INNER * MODEL, batch, n_tokens,
            D_MODEL, D_INNER, D_MODEL, D_INNER, D_MODEL, 0, TILE, ROWS, PRECISION, RAGGED, LAST,
        )  # fmt: skip
    elif tile < INNER * (3 * MODEL + PROJECTED):
        _products_of_tokens(
            dp, v, dx_proj, lengths, tile - 3 * INNER * MODEL, batch, n_tokens,
            RANK + 2 * N, D_INNER, 3 * N, D_INNER, RANK, N - RANK, TILE, ROWS, PRECISION, RAGGED, False,
        )  # fmt: skip
    elif tile < INNER * (3 * MODEL + PROJECTED + 1):
        _products_of_tokens(
            ddt, p, ddt_proj, lengths, tile - INNER * (3 * MODEL + PROJECTED), batch, n_tokens,
            D_INNER, RANK, D_INNER, 3 * N, D_INNER, 0, TILE, ROWS, PRECISION, RAGGED, False,
        )  # fmt: skip
    else:
        rest = tile - INNER * (3 * MODEL + PROJECTED + 1)
        c = rest % INNER * TILE + tl.arange(0, TILE)
        if rest < INNER * (K + 1):
            tap = rest // INNER
            _sum_tap(u, dv, lengths, dconv_weight, dconv_bias, c, tap, batch, n_tokens, D_INNER, K, ROWS, RAGGED)
        else:
            _sum_rows(d_channels, dA, dD, ddt_bias, c, rest // INNER - K - 1, batch, D_INNER, N, ROWS)


@triton.jit
def _sum_tap(
    u, dv, lengths, dconv_weight, dconv_bias, c, i, batch, n_tokens,
    D_INNER: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution's tap i for the channels c; K stands for the bias."""
    back = tl.maximum(K - 1 - i, 0)
    total = tl.zeros((ROWS, c.shape[0]), tl.float32)
    for r0 in range(0, batch * n_tokens, ROWS):
        r = r0 + tl.arange(0, ROWS)
        inside = r < batch * n_tokens
        if RAGGED:
            inside = r % n_tokens < tl.load(lengths + r // n_tokens, mask=inside, other=0).to(tl.int32)
        seen = _load(u, wide(r) - back, c, D_INNER, inside & (r % n_tokens >= back)).to(tl.float32)
        total += _load(dv, wide(r), c, D_INNER, inside).to(tl.float32) * tl.where(i < K, seen, 1.0)
    value = tl.sum(total, axis=0)
    if i < K:
        tl.store(dconv_weight + c * K + i, value.to(dconv_weight.dtype.element_ty))
    else:
        tl.store(dconv_bias + c, value.to(dconv_bias.dtype.element_ty))


@triton.jit
def _sum_rows(d_channels, dA, dD, ddt_bias, c, i, batch, D_INNER: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr):
    """Gradient of state i of A for the channels c, of D or of dt_bias, from what each row's program has summed."""
    total = tl.zeros((ROWS, c.shape[0]), tl.float32)
    for r0 in range(0, batch, ROWS):
        r = r0 + tl.arange(0, ROWS)
        total += _load(d_channels, wide(r) * (N + 2) + i, c, D_INNER, r < batch)
    value = tl.sum(total, axis=0)
    if i < N:
        tl.store(dA + c * N + i, value.to(dA.dtype.element_ty))
    elif i == N:
        tl.store(dD + c, value.to(dD.dtype.element_ty))
    else:
        tl.store(ddt_bias + c, value.to(ddt_bias.dtype.element_ty))
