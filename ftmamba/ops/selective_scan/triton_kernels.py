# mypy: ignore-errors
# ruff: noqa: RUF005, SIM102, SIM108 (a condition known at compile time stands alone, and Triton has no unpacking)
"""GPU kernels of the selective scan, in Triton; ``triton.py`` beside this file launches them.

One program owns a block of channels of one row over one chunk of tokens. A thread owns whole channels: all states of
a channel stay in its registers, so that ``y``'s sum over states, and every sum over states of the backward pass, needs
no other thread. Tokens are walked in order.

Names: ``A2`` is ``A * log2(e)``, so that decay is ``exp2(A2 * delta)``; ``u`` is ``delta * x``; a tile is
(BLOCK_N, BLOCK_D), states by channels. Chunks are tied together by ``carry_kernel``: the decay of a whole chunk is
``exp(A * sum of delta)``, one exponential a state and chunk (arXiv 2312.00752, sec. 3.3, walks chunks one by one).
"""

from __future__ import annotations

import triton
import triton.language as tl

from ftmamba.ops.triton_math import (
    LN2,
    LOG2E,
    NATIVE,
    exp2_polynomial,
    load_tokens,
    sigmoid,
    silu_slope,
    softplus,
    softplus_slope,
    token_mask,
    wide,
)

# See `ftmamba.ops.triton_math` on layout; strides of A are hidden for the same reason. Of all other sizes and strides
# those of B and C alone better the code, by wider loads; the rest would be compiled anew for every sixteenth size.
UNSPECIALIZED = (
    "origin", "batch", "n_tokens", "d_inner", "n_chunks", "first_chunk", "first_program", "first_row", "chunk",
    "segment", "n_segments", "n_slots", "n_rows", "n_groups", "n_cells",
    *(f"stride_{name}_{axis}" for name in ("x", "dt", "z", "dy") for axis in "bt"), "stride_a_d", "stride_a_n",
)  # fmt: skip


def sum_over_warp(rows: int) -> str:
    """PTX that sums each of ``rows`` registers over the 32 lanes of a warp; lane l gets the sum of register l % rows.

    At each step a lane keeps half of what it has and sends the other half to the lane that differs in one bit: 16
    shuffles for 16 registers, where summing each by itself takes 80. Triton wants as many outputs as inputs; all but
    the first are copies, which compilers drop.
    """
    lines = ["{", ".reg .pred upper;", ".reg .b32 lane, bit;", ".reg .f32 keep, send, got;"]
    values = [f"${rows + i}" for i in range(rows)]
    lines.append("mov.u32 lane, %laneid;")
    halving = [1 << k for k in reversed(range(rows.bit_length() - 1))]
    for step, bit in enumerate(halving + [m for m in (1, 2, 4, 8, 16) if m not in halving]):
        half = max(len(values) // 2, 1)
        sums = [f"s{step}_{i}" for i in range(half)]
        lines.append(f".reg .f32 {', '.join(sums)};")
        lines += [f"and.b32 bit, lane, {bit};", "setp.ne.u32 upper, bit, 0;"]
        for i, total in enumerate(sums):
            low, high = values[i], values[(i + half) % len(values)]
            lines += [
                f"selp.f32 keep, {high}, {low}, upper;",
                f"selp.f32 send, {low}, {high}, upper;",
                f"shfl.sync.bfly.b32 got, send, {bit}, 31, -1;",
                f"add.f32 {total}, keep, got;",
            ]
        values = sums
    lines += [f"mov.f32 ${i}, {values[0]};" for i in range(rows)]
    return " ".join([*lines, "}"])


def warp_sum_constraints(rows: int) -> str:
    return ",".join(["=f"] * rows + ["f"] * rows)


WIDEN_BF16 = tl.constexpr("shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;")


@triton.jit
def _decay(A2, delta, n, POLYNOMIAL: tl.constexpr):
    """exp(delta * A), the first POLYNOMIAL states of each channel without the special-function origin."""
    v = A2 * delta[None, :]
    if POLYNOMIAL == 0:
        return tl.exp2(v)
    return tl.where(n[:, None] < POLYNOMIAL, exp2_polynomial(v), tl.exp2(v))


@triton.jit
def _load_decay_rates(A, stride_n, stride_d, d, ok, n, N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """A * log2(e) as a tile; row by row, so that the layout of A in memory does not become that of the tiles."""
    tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for i in tl.static_range(N):
        row = tl.load(A + i * stride_n + d * stride_d, mask=ok, other=0.0).to(tl.float32)
        tile = tl.where(n[:, None] == i, row[None, :], tile)
    return tile * LOG2E


@triton.jit
def _load_tile(base, stride_n, d, ok, n, N: tl.constexpr):
    """Tile of N states by channels, which are contiguous in memory; rows beyond N are zero."""
    pointers = base + n[:, None] * stride_n + d[None, :]
    return tl.load(pointers, mask=(n < N)[:, None] & ok[None, :], other=0.0).to(tl.float32)


@triton.jit
def _store_tile(base, stride_n, d, ok, tile, n, N: tl.constexpr):
    tl.store(base + n[:, None] * stride_n + d[None, :], tile, mask=(n < N)[:, None] & ok[None, :])


@triton.jit
def _load_states(row, n, N: tl.constexpr, BLOCK_N: tl.constexpr, ALIGN: tl.constexpr):
    """The (BLOCK_N,) vector of one token's B or C; ALIGN is what the launcher knows of the address, in bytes."""
    row = tl.multiple_of(row, ALIGN)
    if N == BLOCK_N:
        values = tl.load(row + n)
    else:
        values = tl.load(row + n, mask=n < N, other=0.0)
    if NATIVE:  # one by one: Triton 3.3 takes no chain of conditions
        if BLOCK_N > 1:
            if values.dtype == tl.bfloat16:
                # Triton's own conversion takes two instructions a value.
                return tl.inline_asm_elementwise(WIDEN_BF16, "=r,=r,r", [values], tl.float32, is_pure=True, pack=2)
    return values.to(tl.float32)


@triton.jit
def _place(pid, n_tokens, d_inner, n_chunks, first_chunk, chunk, origin, BLOCK_D: tl.constexpr):
    """Which row, chunk and channels program ``pid`` owns; channel blocks of one token run side by side."""
    n_blocks = tl.cdiv(d_inner, BLOCK_D)
    block = pid % n_blocks
    rest = pid // n_blocks
    c = rest % (n_chunks - first_chunk) + first_chunk
    b = wide(rest // (n_chunks - first_chunk))
    d = block * BLOCK_D + tl.arange(0, BLOCK_D) + origin
    start = c * chunk
    return b, c, block, d, d < d_inner, start, tl.minimum(start + chunk, n_tokens)


@triton.jit
def _advance(
    h, total, x, dt, B, stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n,
    N: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr, POLYNOMIAL: tl.constexpr,
):  # fmt: skip
    """The state after UNROLL more tokens, and the sum of delta."""
    xs = load_tokens(x, stride_x_t, d, ok, UNROLL)
    dts = load_tokens(dt, stride_dt_t, d, ok, UNROLL)
    for i in tl.static_range(UNROLL):
        Bt = _load_states(B + i * stride_b_t, n, N, BLOCK_N, ALIGN)
        delta, _e = softplus(dts[i] + bias)
        h = _decay(A2, delta, n, POLYNOMIAL) * h + Bt[:, None] * (delta * xs[i])[None, :]
        total += delta
    return h, total


@triton.jit(do_not_specialize=UNSPECIALIZED)
def chunk_state_kernel(
    x, dt, A, B, dt_bias, states, sums,
    n_tokens, d_inner, n_chunks, first_chunk, chunk,
    stride_x_b, stride_x_t, stride_dt_b, stride_dt_t, stride_b_b, stride_b_t, stride_a_d, stride_a_n, origin,
    N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr,
    POLYNOMIAL: tl.constexpr,
):  # fmt: skip
    """Each chunk alone: its final state from a zero state, and its sum of delta."""
    b, c, _block, d, ok, start, stop = _place(
        tl.program_id(0), n_tokens, d_inner, n_chunks, first_chunk, chunk, origin, BLOCK_D
    )
    n = tl.arange(0, BLOCK_N)
    A2 = _load_decay_rates(A, stride_a_n, stride_a_d, d, ok, n, N, BLOCK_N, BLOCK_D)
    bias = tl.load(dt_bias + d, mask=ok, other=0.0).to(tl.float32)
    x += b * stride_x_b + wide(start) * stride_x_t
    dt += b * stride_dt_b + wide(start) * stride_dt_t
    B += b * stride_b_b + wide(start) * stride_b_t
    h = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    n_own = stop - start
    for _t in range(n_own // UNROLL):
        h, total = _advance(
            h, total, x, dt, B, stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n,
            N, BLOCK_N, UNROLL, ALIGN, POLYNOMIAL,
        )  # fmt: skip
        x += UNROLL * stride_x_t
        dt += UNROLL * stride_dt_t
        B += UNROLL * stride_b_t
    for _t in range(n_own % UNROLL):
        h, total = _advance(
            h, total, x, dt, B, stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n,
            N, BLOCK_N, 1, ALIGN, POLYNOMIAL,
        )  # fmt: skip
        x += stride_x_t
        dt += stride_dt_t
        B += stride_b_t
    cell = b * n_chunks + c
    _store_tile(states + cell * N * d_inner, d_inner, d, ok, h, n, N)
    tl.store(sums + cell * d_inner + d, total, mask=ok)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def carry_kernel(
    states, sums, A, first,
    d_inner, n_chunks,
    stride_a_d, stride_a_n,
    N: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, HAS_FIRST: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Replace each chunk's own state by the state that enters it; with REVERSE from the last chunk to the first.

    ``first``, (batch, N, d_inner), enters the chunk that is met first.
    """
    n_blocks = tl.cdiv(N * d_inner, BLOCK)
    b = wide(tl.program_id(0) // n_blocks)
    e = (tl.program_id(0) % n_blocks) * BLOCK + tl.arange(0, BLOCK)
    ok = e < N * d_inner
    n = e // d_inner
    d = e % d_inner
    A2 = tl.load(A + d * stride_a_d + n * stride_a_n, mask=ok, other=0.0).to(tl.float32) * LOG2E
    h = tl.zeros((BLOCK,), tl.float32)
    if HAS_FIRST:
        h += tl.load(first + b * N * d_inner + e, mask=ok, other=0.0).to(tl.float32)
    for k0 in range(0, n_chunks, UNROLL):
        own = ()
        total = ()
        for i in tl.static_range(UNROLL):
            c = n_chunks - 1 - (k0 + i) if REVERSE else k0 + i
            inside = token_mask(wide(k0 + i) < n_chunks, e, N * d_inner)
            cell = b * n_chunks + c
            own = own + (tl.load(states + cell * N * d_inner + e, mask=inside, other=0.0),)
            total = total + (tl.load(sums + cell * d_inner + d, mask=inside, other=0.0),)
        for i in tl.static_range(UNROLL):
            c = n_chunks - 1 - (k0 + i) if REVERSE else k0 + i
            inside = token_mask(wide(k0 + i) < n_chunks, e, N * d_inner)
            tl.store(states + (b * n_chunks + c) * N * d_inner + e, h, mask=inside)
            h = tl.exp2(A2 * total[i]) * h + own[i]


@triton.jit
def _scan_tokens(
    h, x, dt, B, C, z, y, stride_x_t, stride_dt_t, stride_b_t, stride_c_t, stride_z_t, d_inner,
    A2, bias, skip, d, ok, n,
    N: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr, POLYNOMIAL: tl.constexpr,
):  # fmt: skip
    """The state after UNROLL more tokens; their outputs go to y, after all loads, which may not pass a store."""
    xs = load_tokens(x, stride_x_t, d, ok, UNROLL)
    dts = load_tokens(dt, stride_dt_t, d, ok, UNROLL)
    zs = load_tokens(z, stride_z_t, d, ok, UNROLL)
    ys = ()
    for i in tl.static_range(UNROLL):
        Bt = _load_states(B + i * stride_b_t, n, N, BLOCK_N, ALIGN)
        Ct = _load_states(C + i * stride_c_t, n, N, BLOCK_N, ALIGN)
        delta, _e = softplus(dts[i] + bias)
        h = _decay(A2, delta, n, POLYNOMIAL) * h + Bt[:, None] * (delta * xs[i])[None, :]
        yt = tl.sum(h * Ct[:, None], axis=0) + skip * xs[i]
        ys = ys + (yt * (zs[i] * sigmoid(zs[i])),)
    for i in tl.static_range(UNROLL):
        tl.store(y + i * d_inner + d, ys[i].to(y.dtype.element_ty), mask=ok)
    return h


@triton.jit(do_not_specialize=UNSPECIALIZED)
def scan_kernel(
    x, dt, A, B, C, D, z, dt_bias, initial, y, final, checkpoints,
    n_tokens, d_inner, n_chunks, first_chunk, chunk, segment, n_segments,
    stride_x_b, stride_x_t, stride_dt_b, stride_dt_t, stride_b_b, stride_b_t, stride_c_b, stride_c_t,
    stride_z_b, stride_z_t, stride_a_d, stride_a_n, origin,
    N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr,
    POLYNOMIAL: tl.constexpr, HAS_INITIAL: tl.constexpr, CHUNKED: tl.constexpr, LAST: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """The scan of each chunk from the state that enters it.

    ``initial`` is (batch, n_chunks, N, d_inner) when CHUNKED, else (batch, N, d_inner). LAST: y of the last token
    alone. SAVE: the state before every segment goes to ``checkpoints``, (batch, n_segments, N, d_inner).
    """
    b, c, _block, d, ok, start, stop = _place(
        tl.program_id(0), n_tokens, d_inner, n_chunks, first_chunk, chunk, origin, BLOCK_D
    )
    n = tl.arange(0, BLOCK_N)
    A2 = _load_decay_rates(A, stride_a_n, stride_a_d, d, ok, n, N, BLOCK_N, BLOCK_D)
    bias = tl.load(dt_bias + d, mask=ok, other=0.0).to(tl.float32)
    skip = tl.load(D + d, mask=ok, other=0.0).to(tl.float32)
    x += b * stride_x_b + wide(start) * stride_x_t
    dt += b * stride_dt_b + wide(start) * stride_dt_t
    B += b * stride_b_b + wide(start) * stride_b_t
    C += b * stride_c_b
    z += b * stride_z_b
    if LAST:
        y += b * d_inner
    else:
        C += wide(start) * stride_c_t
        z += wide(start) * stride_z_t
        y += (b * n_tokens + start) * d_inner
    if CHUNKED:
        h = _load_tile(initial + (b * n_chunks + c) * N * d_inner, d_inner, d, ok, n, N)
    elif HAS_INITIAL:
        h = _load_tile(initial + b * N * d_inner, d_inner, d, ok, n, N)
    else:
        h = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)

    total = tl.zeros((BLOCK_D,), tl.float32)
    for s0 in range(start, stop, segment):
        if SAVE:
            cell = b * n_segments + s0 // segment
            _store_tile(checkpoints + cell * N * d_inner, d_inner, d, ok, h, n, N)
        n_own = tl.minimum(stop - s0, segment)
        for _t in range(n_own // UNROLL):
            if LAST:
                h, total = _advance(
                    h, total, x, dt, B, stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n,
                    N, BLOCK_N, UNROLL, ALIGN, POLYNOMIAL,
                )  # fmt: skip
            else:
                h = _scan_tokens(
                    h, x, dt, B, C, z, y, stride_x_t, stride_dt_t, stride_b_t, stride_c_t, stride_z_t, d_inner,
                    A2, bias, skip, d, ok, n, N, BLOCK_N, UNROLL, ALIGN, POLYNOMIAL,
                )  # fmt: skip
                C += UNROLL * stride_c_t
                z += UNROLL * stride_z_t
                y += UNROLL * d_inner
            x += UNROLL * stride_x_t
            dt += UNROLL * stride_dt_t
            B += UNROLL * stride_b_t
        for _t in range(n_own % UNROLL):
            if LAST:
                h, total = _advance(
                    h, total, x, dt, B, stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n,
                    N, BLOCK_N, 1, ALIGN, POLYNOMIAL,
                )  # fmt: skip
            else:
                h = _scan_tokens(
                    h, x, dt, B, C, z, y, stride_x_t, stride_dt_t, stride_b_t, stride_c_t, stride_z_t, d_inner,
                    A2, bias, skip, d, ok, n, N, BLOCK_N, 1, ALIGN, POLYNOMIAL,
                )  # fmt: skip
                C += stride_c_t
                z += stride_z_t
                y += d_inner
            x += stride_x_t
            dt += stride_dt_t
            B += stride_b_t

    if c == n_chunks - 1:
        _store_tile(final + b * N * d_inner, d_inner, d, ok, h, n, N)
        if LAST:
            x_last = tl.load(x - stride_x_t + d, mask=ok, other=0.0).to(tl.float32)
            z_last = tl.load(z + d, mask=ok, other=0.0).to(tl.float32)
            Ct = _load_states(C, n, N, BLOCK_N, ALIGN)
            yt = (tl.sum(h * Ct[:, None], axis=0) + skip * x_last) * (z_last * sigmoid(z_last))
            tl.store(y + d, yt.to(y.dtype.element_ty), mask=ok)


@triton.jit
def _recede(
    g, total, dt, C, z, dy, stride_dt_t, stride_c_t, stride_z_t, stride_dy_t, A2, bias, d, ok, n,
    N: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr, POLYNOMIAL: tl.constexpr,
    LAST: tl.constexpr,
):  # fmt: skip
    """From the gradient of the state after UNROLL tokens to that of the state before them, and the sum of delta."""
    dts = load_tokens(dt, stride_dt_t, d, ok, UNROLL)
    if not LAST:
        zs = load_tokens(z, stride_z_t, d, ok, UNROLL)
        dys = load_tokens(dy, stride_dy_t, d, ok, UNROLL)
    for i in tl.static_range(UNROLL - 1, -1, -1):
        delta, _e = softplus(dts[i] + bias)
        total += delta
        if not LAST:
            Ct = _load_states(C + i * stride_c_t, n, N, BLOCK_N, ALIGN)
            g += Ct[:, None] * (dys[i] * zs[i] * sigmoid(zs[i]))[None, :]
            g = _decay(A2, delta, n, POLYNOMIAL) * g
    return g, total


@triton.jit(do_not_specialize=UNSPECIALIZED)
def chunk_adjoint_kernel(
    dt, A, C, z, dt_bias, dy, states, sums,
    n_tokens, d_inner, n_chunks, first_chunk, chunk,
    stride_dt_b, stride_dt_t, stride_c_b, stride_c_t, stride_z_b, stride_z_t, stride_dy_b, stride_dy_t,
    stride_a_d, stride_a_n, origin,
    N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr,
    POLYNOMIAL: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Each chunk alone, backwards: the gradient of the state that enters it, and its sum of delta."""
    b, c, _block, d, ok, start, stop = _place(
        tl.program_id(0), n_tokens, d_inner, n_chunks, first_chunk, chunk, origin, BLOCK_D
    )
    n = tl.arange(0, BLOCK_N)
    A2 = _load_decay_rates(A, stride_a_n, stride_a_d, d, ok, n, N, BLOCK_N, BLOCK_D)
    bias = tl.load(dt_bias + d, mask=ok, other=0.0).to(tl.float32)
    dt += b * stride_dt_b + wide(stop) * stride_dt_t
    C += b * stride_c_b
    z += b * stride_z_b
    dy += b * stride_dy_b
    if not LAST:
        C += wide(stop) * stride_c_t
        z += wide(stop) * stride_z_t
        dy += wide(stop) * stride_dy_t
    g = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    n_own = stop - start
    for _t in range(n_own // UNROLL):
        dt -= UNROLL * stride_dt_t
        if not LAST:
            C -= UNROLL * stride_c_t
            z -= UNROLL * stride_z_t
            dy -= UNROLL * stride_dy_t
        g, total = _recede(
            g, total, dt, C, z, dy, stride_dt_t, stride_c_t, stride_z_t, stride_dy_t, A2, bias, d, ok, n,
            N, BLOCK_N, UNROLL, ALIGN, POLYNOMIAL, LAST,
        )  # fmt: skip
    for _t in range(n_own % UNROLL):
        dt -= stride_dt_t
        if not LAST:
            C -= stride_c_t
            z -= stride_z_t
            dy -= stride_dy_t
        g, total = _recede(
            g, total, dt, C, z, dy, stride_dt_t, stride_c_t, stride_z_t, stride_dy_t, A2, bias, d, ok, n,
            N, BLOCK_N, 1, ALIGN, POLYNOMIAL, LAST,
        )  # fmt: skip
    if LAST:
        if c == n_chunks - 1:
            Ct = _load_states(C, n, N, BLOCK_N, ALIGN)
            z_last = tl.load(z + d, mask=ok, other=0.0).to(tl.float32)
            dy_last = tl.load(dy + d, mask=ok, other=0.0).to(tl.float32)
            g = Ct[:, None] * (dy_last * z_last * sigmoid(z_last))[None, :]
            g = _decay(A2, total, n, POLYNOMIAL) * g
    cell = b * n_chunks + c
    _store_tile(states + cell * N * d_inner, d_inner, d, ok, g, n, N)
    tl.store(sums + cell * d_inner + d, total, mask=ok)


@triton.jit
def _sum_warps(
    tile, n, N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, WARP_SUM: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
):  # fmt: skip
    """Sum each row over every 32 channels, which are one warp's; entry i of the 32 is the sum of row i % BLOCK_N."""
    if NATIVE:
        sums = tl.inline_asm_elementwise(WARP_SUM, CONSTRAINTS, [tile], tl.float32, is_pure=True, pack=BLOCK_N)
        # Row 0, without arithmetic: a sum of integers whose other terms are constant zeros.
        bits = tl.where(n[:, None] == 0, sums.to(tl.int32, bitcast=True), 0)
        out = tl.sum(bits, axis=0).to(tl.float32, bitcast=True)
    else:
        out = tl.zeros((BLOCK_D,), tl.float32)
        entry = tl.arange(0, BLOCK_D) % BLOCK_N
        for i in tl.static_range(N):
            row = tl.sum(tl.where(n[:, None] == i, tile, 0.0), axis=0)
            total = tl.sum(tl.reshape(row, (BLOCK_D // 32, 32)), axis=1)
            total = tl.reshape(tl.broadcast_to(total[:, None], (BLOCK_D // 32, 32)), (BLOCK_D,))
            out = tl.where(entry == i, total, out)
    return out


@triton.jit
def _adjoint_tokens(
    h, g, dA, dskip, dbias, extra, x, dt, B, C, z, dy, dx, ddt, dz, d_tokens, d_inner, group_stride,
    stride_x_t, stride_dt_t, stride_b_t, stride_c_t, stride_z_t, stride_dy_t, A2, bias, skip, d, ok, n, lane,
    N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr,
    POLYNOMIAL: tl.constexpr, LAST: tl.constexpr, WIDTH: tl.constexpr, WARP_SUM: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
):  # fmt: skip
    """Gradients of UNROLL tokens, from the state before them and the gradient of the state after them.

    ``extra`` adds to dx of their last token. All stores come after all loads, which may not pass a store.
    """
    xs = load_tokens(x, stride_x_t, d, ok, UNROLL)
    dts = load_tokens(dt, stride_dt_t, d, ok, UNROLL)
    if not LAST:
        zs = load_tokens(z, stride_z_t, d, ok, UNROLL)
        dys = load_tokens(dy, stride_dy_t, d, ok, UNROLL)
    decays = ()
    decayed = ()
    deltas = ()
    exponentials = ()
    for i in tl.static_range(UNROLL):
        delta, e = softplus(dts[i] + bias)
        a = _decay(A2, delta, n, POLYNOMIAL)
        h = a * h
        decays = decays + (a,)
        decayed = decayed + (h,)
        deltas = deltas + (delta,)
        exponentials = exponentials + (e,)
        if i + 1 < UNROLL:
            Bt = _load_states(B + i * stride_b_t, n, N, BLOCK_N, ALIGN)
            h += Bt[:, None] * (delta * xs[i])[None, :]
    dxs = ()
    ddts = ()
    dzs = ()
    sums = ()
    for i in tl.static_range(UNROLL - 1, -1, -1):
        u = deltas[i] * xs[i]
        Bt = _load_states(B + i * stride_b_t, n, N, BLOCK_N, ALIGN)
        dxt = tl.zeros((BLOCK_D,), tl.float32)
        if LAST:
            if i == UNROLL - 1:
                dxt += extra
        else:
            Ct = _load_states(C + i * stride_c_t, n, N, BLOCK_N, ALIGN)
            gate = sigmoid(zs[i])
            dyt = dys[i] * (zs[i] * gate)
            ht = decayed[i] + Bt[:, None] * u[None, :]
            yt = tl.sum(ht * Ct[:, None], axis=0) + skip * xs[i]
            dzs = (dys[i] * yt * silu_slope(zs[i], gate),) + dzs
            g += Ct[:, None] * dyt[None, :]
            dC = ht * dyt[None, :]
            if BLOCK_N > 16:
                dC_sums = tl.sum(dC, axis=1)
            else:
                dC_sums = _sum_warps(dC, n, N, BLOCK_N, BLOCK_D, WARP_SUM, CONSTRAINTS)
            dskip += dyt * xs[i]
            dxt += skip * dyt
        dB = g * u[None, :]
        gB = tl.sum(g * Bt[:, None], axis=0)
        ga = decayed[i] * g
        g = decays[i] * g
        dA += ga * deltas[i][None, :]
        ddelta = xs[i] * gB + tl.sum(ga * A2, axis=0) * LN2
        ddtt = ddelta * softplus_slope(dts[i] + bias, exponentials[i])
        dbias += ddtt
        dxs = (dxt + deltas[i] * gB,) + dxs
        ddts = (ddtt,) + ddts
        if BLOCK_N > 16:
            if not LAST:
                sums = (dC_sums,) + sums
            sums = (tl.sum(dB, axis=1),) + sums
        else:
            dB_sums = _sum_warps(dB, n, N, BLOCK_N, BLOCK_D, WARP_SUM, CONSTRAINTS)
            if not LAST:
                dB_sums = tl.where(lane % WIDTH < BLOCK_N, dB_sums, dC_sums)
            sums = (dB_sums,) + sums
    for i in tl.static_range(UNROLL):
        tl.store(dx + i * d_inner + d, dxs[i].to(dx.dtype.element_ty), mask=ok)
        tl.store(ddt + i * d_inner + d, ddts[i].to(ddt.dtype.element_ty), mask=ok)
        if not LAST:
            tl.store(dz + i * d_inner + d, dzs[i].to(dz.dtype.element_ty), mask=ok)
        if BLOCK_N <= 16:
            tl.store(d_tokens + i * WIDTH + lane // 32 * group_stride + lane % 32, sums[i], mask=lane % 32 < WIDTH)
        elif LAST:
            tl.store(d_tokens + i * WIDTH + n, sums[i])
        else:
            tl.store(d_tokens + i * WIDTH + n, sums[2 * i])
            tl.store(d_tokens + i * WIDTH + BLOCK_N + n, sums[2 * i + 1])
    return g, dA, dskip, dbias


@triton.jit(do_not_specialize=UNSPECIALIZED)
def scan_adjoint_kernel(
    x, dt, A, B, C, D, z, dt_bias, dy, final, checkpoints, d_final, scratch,
    dx, ddt, dz, d_initial, d_tokens, d_last, d_channels,
    batch, n_tokens, d_inner, n_chunks, first_program, first_row, n_rows, chunk, segment, n_segments, n_slots,
    stride_x_b, stride_x_t, stride_dt_b, stride_dt_t, stride_b_b, stride_b_t, stride_c_b, stride_c_t,
    stride_z_b, stride_z_t, stride_dy_b, stride_dy_t, stride_a_d, stride_a_n, origin,
    N: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ALIGN: tl.constexpr,
    POLYNOMIAL: tl.constexpr, CHUNKED: tl.constexpr, LAST: tl.constexpr, WIDTH: tl.constexpr, WARP_SUM: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
):  # fmt: skip
    """All gradients of one chunk, from the gradient of the state that leaves it.

    Segment by segment from the end: forward from the segment's checkpoint, leaving a state in ``scratch`` every UNROLL
    tokens; then UNROLL tokens at a time backwards, their states recomputed and held in registers. Tokens that do not
    fill a last part are parts of their own.

    ``d_final`` is (batch, n_chunks, N, d_inner) when CHUNKED, else (batch, N, d_inner). ``d_tokens``,
    (groups, n_rows, WIDTH), begins with token ``first_row`` of the whole batch; it takes BLOCK_N states of dB and, but
    for LAST, of dC, summed over one group of channels each: a warp, or the whole block beyond 16 states.
    ``d_channels``, (batch * n_chunks, N + 2, d_inner), takes dA, dD and ddt_bias of this chunk.
    """
    b, c, block, d, ok, start, stop = _place(
        tl.program_id(0) + first_program, n_tokens, d_inner, n_chunks, 0, chunk, origin, BLOCK_D
    )
    n = tl.arange(0, BLOCK_N)
    lane = tl.arange(0, BLOCK_D) + origin
    A2 = _load_decay_rates(A, stride_a_n, stride_a_d, d, ok, n, N, BLOCK_N, BLOCK_D)
    bias = tl.load(dt_bias + d, mask=ok, other=0.0).to(tl.float32)
    skip = tl.load(D + d, mask=ok, other=0.0).to(tl.float32)
    cell = b * n_chunks + c
    x += b * stride_x_b
    dt += b * stride_dt_b
    B += b * stride_b_b
    C += b * stride_c_b
    z += b * stride_z_b
    dy += b * stride_dy_b
    dx += b * n_tokens * d_inner
    ddt += b * n_tokens * d_inner
    dz += b * (1 if LAST else n_tokens) * d_inner
    group_stride = wide(n_rows) * WIDTH
    d_tokens += block * (1 if BLOCK_N > 16 else BLOCK_D // 32) * group_stride + (b * n_tokens - first_row) * WIDTH
    scratch += wide(tl.program_id(0)) * n_slots * N * BLOCK_D

    if CHUNKED:
        g = _load_tile(d_final + cell * N * d_inner, d_inner, d, ok, n, N)
    else:
        g = _load_tile(d_final + b * N * d_inner, d_inner, d, ok, n, N)
    dA = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dskip = tl.zeros((BLOCK_D,), tl.float32)
    dbias = tl.zeros((BLOCK_D,), tl.float32)
    extra = tl.zeros((BLOCK_D,), tl.float32)
    if LAST:
        if c == n_chunks - 1:
            h = _load_tile(final + b * N * d_inner, d_inner, d, ok, n, N)
            Ct = _load_states(C, n, N, BLOCK_N, ALIGN)
            xt = tl.load(x + wide(n_tokens - 1) * stride_x_t + d, mask=ok, other=0.0).to(tl.float32)
            zt = tl.load(z + d, mask=ok, other=0.0).to(tl.float32)
            dyt = tl.load(dy + d, mask=ok, other=0.0).to(tl.float32)
            gate = sigmoid(zt)
            dyt_scan = dyt * (zt * gate)
            yt = tl.sum(h * Ct[:, None], axis=0) + skip * xt
            tl.store(dz + d, (dyt * yt * silu_slope(zt, gate)).to(dz.dtype.element_ty), mask=ok)
            tl.store(d_last + (block * batch + b) * N + n, tl.sum(h * dyt_scan[None, :], axis=1), mask=n < N)
            g += Ct[:, None] * dyt_scan[None, :]
            dskip = dyt_scan * xt
            extra = dyt_scan * skip

    n_own = tl.cdiv(stop - start, segment)
    for s in range(n_own):
        s0 = start + (n_own - 1 - s) * segment
        length = tl.minimum(stop - s0, segment)
        n_full = length // UNROLL
        n_single = length % UNROLL
        saved = checkpoints + (b * n_segments + s0 // segment) * N * d_inner
        h = _load_tile(saved, d_inner, d, ok, n, N)
        total = tl.zeros((BLOCK_D,), tl.float32)
        if BLOCK_N > 16:
            tl.debug_barrier()  # warps share a state: none may overwrite what another still reads
        for k in range(n_full):
            _store_tile(scratch + k * N * BLOCK_D, BLOCK_D, lane, lane < BLOCK_D, h, n, N)
            t0 = wide(s0 + k * UNROLL)
            h, total = _advance(
                h, total, x + t0 * stride_x_t, dt + t0 * stride_dt_t, B + t0 * stride_b_t,
                stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n, N, BLOCK_N, UNROLL, ALIGN, POLYNOMIAL,
            )  # fmt: skip
        for k in range(n_single):
            _store_tile(scratch + (n_full + k) * N * BLOCK_D, BLOCK_D, lane, lane < BLOCK_D, h, n, N)
            t0 = wide(s0 + n_full * UNROLL + k)
            h, total = _advance(
                h, total, x + t0 * stride_x_t, dt + t0 * stride_dt_t, B + t0 * stride_b_t,
                stride_x_t, stride_dt_t, stride_b_t, A2, bias, d, ok, n, N, BLOCK_N, 1, ALIGN, POLYNOMIAL,
            )  # fmt: skip
        if BLOCK_N > 16:
            tl.debug_barrier()

        for k in range(n_single):
            slot = n_full + n_single - 1 - k
            h = _load_tile(scratch + slot * N * BLOCK_D, BLOCK_D, lane, lane < BLOCK_D, n, N)
            t0 = wide(s0 + n_full * UNROLL + n_single - 1 - k)
            g, dA, dskip, dbias = _adjoint_tokens(
                h, g, dA, dskip, dbias, extra,
                x + t0 * stride_x_t, dt + t0 * stride_dt_t, B + t0 * stride_b_t, C + t0 * stride_c_t,
                z + t0 * stride_z_t, dy + t0 * stride_dy_t, dx + t0 * d_inner, ddt + t0 * d_inner, dz + t0 * d_inner,
                d_tokens + t0 * WIDTH, d_inner, group_stride,
                stride_x_t, stride_dt_t, stride_b_t, stride_c_t, stride_z_t, stride_dy_t, A2, bias, skip, d, ok, n,
                lane, N, BLOCK_N, BLOCK_D, 1, ALIGN, POLYNOMIAL, LAST, WIDTH, WARP_SUM, CONSTRAINTS,
            )  # fmt: skip
            extra = tl.zeros((BLOCK_D,), tl.float32)
        for k in range(n_full):
            slot = n_full - 1 - k
            h = _load_tile(scratch + slot * N * BLOCK_D, BLOCK_D, lane, lane < BLOCK_D, n, N)
            t0 = wide(s0 + slot * UNROLL)
            g, dA, dskip, dbias = _adjoint_tokens(
                h, g, dA, dskip, dbias, extra,
                x + t0 * stride_x_t, dt + t0 * stride_dt_t, B + t0 * stride_b_t, C + t0 * stride_c_t,
                z + t0 * stride_z_t, dy + t0 * stride_dy_t, dx + t0 * d_inner, ddt + t0 * d_inner, dz + t0 * d_inner,
                d_tokens + t0 * WIDTH, d_inner, group_stride,
                stride_x_t, stride_dt_t, stride_b_t, stride_c_t, stride_z_t, stride_dy_t, A2, bias, skip, d, ok, n,
                lane, N, BLOCK_N, BLOCK_D, UNROLL, ALIGN, POLYNOMIAL, LAST, WIDTH, WARP_SUM, CONSTRAINTS,
            )  # fmt: skip
            extra = tl.zeros((BLOCK_D,), tl.float32)

    if c == 0:
        _store_tile(d_initial + b * N * d_inner, d_inner, d, ok, g, n, N)
    d_channels += cell * (N + 2) * d_inner
    _store_tile(d_channels, d_inner, d, ok, dA, n, N)
    tl.store(d_channels + N * d_inner + d, dskip, mask=ok)
    tl.store(d_channels + (N + 1) * d_inner + d, dbias, mask=ok)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def sum_tokens_kernel(
    d_tokens, dB, dC,
    first_row, n_rows, n_groups,
    N: tl.constexpr, BLOCK_N: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum ``d_tokens`` over groups of channels; write ``n_rows`` of dB and, when WIDTH holds both, of dC."""
    r = wide(tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)
    v = tl.arange(0, WIDTH)
    ok = (r < n_rows)[:, None] & (v >= 0)[None, :]
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    for group in range(n_groups):
        offsets = (group * wide(n_rows) + r)[:, None] * WIDTH + v[None, :]
        total += tl.load(d_tokens + offsets, mask=ok, other=0.0)
    n = v % BLOCK_N
    to_B = ok & (v < BLOCK_N)[None, :] & (n < N)[None, :]
    tl.store(dB + (first_row + r)[:, None] * N + n[None, :], total.to(dB.dtype.element_ty), mask=to_B)
    if WIDTH > BLOCK_N:
        to_C = ok & (v >= BLOCK_N)[None, :] & (n < N)[None, :]
        tl.store(dC + (first_row + r)[:, None] * N + n[None, :], total.to(dC.dtype.element_ty), mask=to_C)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def sum_channels_kernel(
    d_channels, dA, dD, dbias,
    n_cells, d_inner,
    N: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum ``d_channels`` over rows and chunks; write dA (d_inner, N), dD and ddt_bias (d_inner,)."""
    row = tl.program_id(0) % (N + 2)
    d = (tl.program_id(0) // (N + 2)) * BLOCK_D + tl.arange(0, BLOCK_D)
    ok = d < d_inner
    k = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK_D), tl.float32)
    for k0 in range(0, n_cells, BLOCK):
        cells = wide(k0 + k)
        offsets = (cells * (N + 2) + row)[:, None] * d_inner + d[None, :]
        total += tl.load(d_channels + offsets, mask=(cells < n_cells)[:, None] & ok[None, :], other=0.0)
    value = tl.sum(total, axis=0)
    if row < N:
        tl.store(dA + d * N + row, value.to(dA.dtype.element_ty), mask=ok)
    elif row == N:
        tl.store(dD + d, value.to(dD.dtype.element_ty), mask=ok)
    else:
        tl.store(dbias + d, value.to(dbias.dtype.element_ty), mask=ok)
