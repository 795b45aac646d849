"""The gated delta rule's kernels, compiled by numba: a chunk of tokens of one head of one row, in cache.

With the corrections ``U`` of a chunk as its inputs the rule is the recurrence of `ftmamba.ops.chunks`, keys as B and
queries as C. ``(I + A) U = R`` with ``A = beta K K^T`` below the diagonal and ``R = beta (V - K S)``, decays left out
here. Heads and rows share out the work. Forward can leave the states at each chunk's start, from which backward
computes the rest again. What stands behind a row's length is neither read nor written. Buffers are float32 and passed
by address; ``lengths`` are int64 or no address.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import numpy as np
from numba import njit

from ftmamba.mixers.gated_deltanet import EPS
from ftmamba.ops.chunks import (
    added_gradients,
    added_states,
    chunk_at,
    chunk_floats,
    gradients,
    hand_on,
    length_of,
    outputs,
    pairs_of,
    place,
    read_states,
    run_up,
    share_of,
    times,
    up,
)
from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    enter,
    fetch_add,
    fill,
    full_row,
    load_float,
    load_part,
    load_row,
    restore_mode,
    store_float,
    store_part,
    store_row,
    sum_channels,
    wait_for,
)
from ftmamba.ops.tiles import gemm, gemm_add, keep_lanes, pack, transpose

_BYTES = 4
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_LOG2E = np.float32(1.4426950408889634)

_COMMON = ["n_rows", "n_tokens", "n_heads", "d_head", "chunk", "n_lanes", "n_items", "lengths", "mixed", "mixed_batch"]
_COMMON += ["mixed_token", "decay", "beta", "checkpoints", "states", "progress", "scratch", "scratch_stride"]
FORWARD = [*_COMMON, "out"]
BACKWARD = [*_COMMON, "dout", "dout_batch", "dout_token", "dmixed", "ddecay", "dbeta"]


def floats_of(size, width, backward):
    """Floats of scratch a thread needs."""
    return chunk_floats(size, 1, width, width, backward) + 3 * size * width + 2 * size**2 + 6 * size


@njit(**JIT)
def _scale_of(rows, at, d_head):
    """One over the length of a query or key."""
    total = full_row(_ZERO)
    for i in range(0, d_head, CHANNELS):
        value = load_part(rows, at + i, d_head - i)
        total = total + value * value
    return _ONE / np.float32(np.sqrt(sum_channels(total) + np.float32(EPS)))


@njit(**JIT)
def _take(p, c, more, row, first, n, lanes):
    """Queries and keys of length 1, values, decays and shares of n tokens, and the system's matrix.

    More buffers: v and ks (size, width), a third of them, the matrix and what of it goes with beta (size, size), beta.
    """
    batch, head, inner = row // p.n_heads, row % p.n_heads, p.n_heads * p.d_head
    mixed = p.mixed + _BYTES * (batch * p.mixed_batch + first * p.mixed_token + head * p.d_head)
    shrink = _ONE / np.float32(np.sqrt(np.float32(p.d_head)))
    matrix = more + 3 * _BYTES * c.size * c.width
    beta = matrix + 2 * _BYTES * c.size * c.size
    for t in range(n):
        at, scalar = t * p.mixed_token, (batch * p.n_tokens + first + t) * p.n_heads + head
        store_float(c.high, t, load_float(p.decay, scalar) * _LOG2E)
        store_float(beta, t, load_float(p.beta, scalar))
        q, k = _scale_of(mixed, at, p.d_head) * shrink, _scale_of(mixed, at + inner, p.d_head)
        token = _BYTES * t * c.width
        pack(mixed + _BYTES * at, 0, 1, p.d_head, q, c.C + token, c.width, 1)
        pack(mixed + _BYTES * (at + inner), 0, 1, p.d_head, k, c.B + token, c.width, 1)
        pack(mixed + _BYTES * (at + 2 * inner), 0, 1, p.d_head, _ONE, more + token, c.width, 1)
    for rows in (c.C, c.B, more):
        fill(rows, n * c.width, (lanes - n) * c.width)
    for t in range(n, lanes):
        store_float(beta, t, _ZERO)
    run_up(c, n, lanes)
    pairs_of(c, c.B, lanes)
    for t in range(lanes):
        share = full_row(load_float(beta, t))
        for column in range(0, lanes, CHANNELS):
            at = t * c.size + column
            value = load_row(c.pairs, at) * share_of(c, 0, t, column)
            value = keep_lanes(value, full_row(_ZERO), 0, t - column)
            store_row(matrix, at, share * value)
            store_row(matrix, c.size * c.size + at, value)
    return matrix, beta


@njit(**JIT)
def _solve(c, matrix, rows, lanes, from_end):
    """``(I + A) x = rows`` in place, or, from the end, that of A's transpose."""
    for i in range(lanes):
        t = lanes - 1 - i if from_end else i
        for channel in range(0, c.width, CHANNELS):
            even, odd = load_row(rows, t * c.width + channel), full_row(_ZERO)
            for j in range(i):
                s = lanes - 1 - j if from_end else j
                factor = full_row(load_float(matrix, s * c.size + t if from_end else t * c.size + s))
                product = factor * load_row(rows, s * c.width + channel)
                if j % 2:
                    odd = odd + product
                else:
                    even = even - product
            store_row(rows, t * c.width + channel, even - odd)


@njit(**JIT)
def _correct(c, more, matrix, beta, lanes, state, starts):
    """The corrections to x; ks becomes ``grown K S``, behind it stands ``V - grown K S``."""
    ks, less = more + _BYTES * c.size * c.width, more + 2 * _BYTES * c.size * c.width
    if starts:
        fill(ks, 0, lanes * c.width)
    else:
        read_states(c, c.B, state, ks, lanes)
        times(c, ks, c.grown, ks, lanes)
    for i in range(0, lanes * c.width, CHANNELS):
        value = load_row(more, i) - load_row(ks, i)
        store_row(less, i, value)
        store_row(c.x, i, full_row(load_float(beta, i // c.width)) * value)
    _solve(c, matrix, c.x, lanes, False)


@njit(**JIT)
def _chunk_of(p, counters):
    """The buffers of a chunk, and the address behind them."""
    width = up(p.d_head, CHANNELS)
    at = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    more = at + _BYTES * (p.scratch_stride - 3 * p.chunk * width - 2 * p.chunk**2 - 6 * p.chunk)
    return chunk_at(at, p.chunk, 1, width, width), more


def forward(pointer):
    """The output of all rows, and, where asked for, the states at each chunk's start."""
    mode, p, counters = enter(pointer)
    c, more = _chunk_of(p, counters)
    n_states, n_chunks = c.depth * c.width, (p.n_tokens + p.chunk - 1) // p.chunk
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, step = place(p, item)
        first, length = step * p.chunk, length_of(p, row // p.n_heads)
        n = min(length - first, p.chunk)
        if n <= 0:
            continue
        lanes, ends = up(n, CHANNELS), first + p.chunk >= length
        states, state = p.states + _BYTES * row * n_states, c.state
        if p.checkpoints != 0:
            state = p.checkpoints + _BYTES * (row * n_chunks + step) * n_states
        matrix, beta = _take(p, c, more, row, first, n, lanes)
        wait_for(p.progress, row, step)
        _correct(c, more, matrix, beta, lanes, states, step == 0)
        if not ends:
            added_states(c, lanes)
        hand_on(c, lanes, states, state, p.progress, row, step, ends)
        outputs(c, lanes, state, step == 0)
        for t in range(n):
            at = ((row // p.n_heads * p.n_tokens + first + t) * p.n_heads + row % p.n_heads) * p.d_head
            for i in range(0, p.d_head, CHANNELS):
                store_part(p.out, at + i, load_row(c.y, t * c.width + i), p.d_head - i)
    restore_mode(mode)


@njit(**JIT)
def _through_state(c, more, beta, lanes, state):
    """From dR, in dx, through ``-beta grown K S`` to dB and ``added``; what that does to the decays, to ``line``."""
    ks, scaled, line = more + _BYTES * c.size * c.width, c.dys, beta + _BYTES * c.size
    for t in range(lanes):
        factor = full_row(-load_float(beta, t) * load_float(c.grown, t))
        share, total = full_row(-load_float(beta, t)), full_row(_ZERO)
        for i in range(t * c.width, (t + 1) * c.width, CHANNELS):
            store_row(scaled, i, factor * load_row(c.dx, i))
            total = total + share * load_row(c.dx, i) * load_row(ks, i)
        store_float(line, t, load_float(line, t) + sum_channels(total))
    gemm_add(c.B, 1, c.depth, lanes, scaled, c.width, c.added, c.width, c.depth, c.width, 0, 0)
    transpose(state, c.width, c.depth, c.width, c.turned, c.depth)
    gemm_add(scaled, c.width, 1, c.width, c.turned, c.depth, c.dB, c.depth, lanes, c.depth, 0, 0)


@njit(**JIT)
def _through_matrix(c, matrix, beta, lanes):
    """From dR, in dx, through the system's matrix to dB; shares' and decays' gradients to the lines behind beta."""
    line, dbeta, column_sums = beta + _BYTES * c.size, beta + 2 * _BYTES * c.size, beta + 3 * _BYTES * c.size
    bare = matrix + _BYTES * c.size * c.size
    transpose(c.x, c.width, lanes, c.width, c.turned, c.size)
    gemm(c.dx, c.width, 1, c.width, c.turned, c.size, c.dpairs, c.size, lanes, lanes, 0, 0)
    fill(column_sums, 0, lanes)
    for t in range(lanes):
        share, products, slopes = full_row(-load_float(beta, t)), full_row(_ZERO), full_row(_ZERO)
        for column in range(0, lanes, CHANNELS):
            at = t * c.size + column
            slope = load_row(c.dpairs, at)
            product = full_row(_ZERO) - slope * load_row(matrix, at)
            products = products + product
            slopes = slopes - slope * load_row(bare, at)
            store_row(column_sums, column, load_row(column_sums, column) + product)
            kept = keep_lanes(share * slope * share_of(c, 0, t, column), full_row(_ZERO), 0, t - column)
            store_row(c.dpairs, at, kept)
        store_float(line, t, sum_channels(products))
        store_float(dbeta, t, sum_channels(slopes))
    for t in range(0, lanes, CHANNELS):
        store_row(line, t, load_row(line, t) - load_row(column_sums, t))
    gemm_add(c.dpairs, c.size, 1, lanes, c.B, c.depth, c.dB, c.depth, lanes, c.depth, 0, 0)
    gemm_add(c.dpairs, 1, c.size, lanes, c.B, c.depth, c.dB, c.depth, lanes, c.depth, 0, 0)


@njit(**JIT)
def _give_unit(p, mixed, at, d_unit, dmixed, to, shrink):
    """The gradient of a query or key from that of the vector of length 1 that was made of it, times ``shrink``."""
    scale, total = _scale_of(mixed, at, p.d_head), full_row(_ZERO)
    for i in range(0, p.d_head, CHANNELS):
        total = total + load_part(mixed, at + i, p.d_head - i) * load_row(d_unit, i)
    along = full_row(scale * scale * sum_channels(total))
    for i in range(0, p.d_head, CHANNELS):
        count = p.d_head - i
        value = load_row(d_unit, i) - along * load_part(mixed, at + i, count)
        store_part(dmixed, to + i, full_row(scale * shrink) * value, count)


@njit(**JIT)
def _give_gradients(p, c, more, beta, row, first, n, lanes):
    """Gradients of what `_take` read, in the same places."""
    batch, head, inner = row // p.n_heads, row % p.n_heads, p.n_heads * p.d_head
    mixed = p.mixed + _BYTES * (batch * p.mixed_batch + first * p.mixed_token + head * p.d_head)
    less, line, dbeta = more + 2 * _BYTES * c.size * c.width, beta + _BYTES * c.size, beta + 2 * _BYTES * c.size
    shrink, run = _ONE / np.float32(np.sqrt(np.float32(p.d_head))), 0.0
    for t in range(lanes - 1, -1, -1):
        run += load_float(line, t)
        if t >= n:
            continue
        token, at = batch * p.n_tokens + first + t, t * p.mixed_token
        to, scalar = token * 3 * inner + head * p.d_head, token * p.n_heads + head
        store_float(p.ddecay, scalar, np.float32(load_float(c.da, t) + run))
        share, total = full_row(load_float(beta, t)), full_row(_ZERO)
        for i in range(0, p.d_head, CHANNELS):
            slope = load_row(c.dx, t * c.width + i)
            total = total + slope * load_row(less, t * c.width + i)
            store_part(p.dmixed, to + 2 * inner + i, share * slope, p.d_head - i)
        store_float(p.dbeta, scalar, load_float(dbeta, t) + sum_channels(total))
        _give_unit(p, mixed, at, c.dC + _BYTES * t * c.width, p.dmixed, to, shrink)
        _give_unit(p, mixed, at + inner, c.dB + _BYTES * t * c.width, p.dmixed, to + inner, _ONE)


def backward(pointer):
    """All gradients."""
    mode, p, counters = enter(pointer)
    c, more = _chunk_of(p, counters)
    n_states, n_chunks = c.depth * c.width, (p.n_tokens + p.chunk - 1) // p.chunk
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, step = place(p, item)
        batch, length = row // p.n_heads, length_of(p, row // p.n_heads)
        chunk = (length + p.chunk - 1) // p.chunk - 1 - step
        if chunk < 0:
            continue
        first = chunk * p.chunk
        n = min(length - first, p.chunk)
        lanes, starts = up(n, CHANNELS), chunk == 0
        dstate, state = p.states + _BYTES * row * n_states, p.checkpoints + _BYTES * (row * n_chunks + chunk) * n_states
        matrix, beta = _take(p, c, more, row, first, n, lanes)
        _correct(c, more, matrix, beta, lanes, state, starts)
        dout = p.dout + _BYTES * (batch * p.dout_batch + first * p.dout_token + row % p.n_heads * p.d_head)
        pack(dout, p.dout_token, n, p.d_head, _ONE, c.dy, c.width, lanes)
        if not starts:
            added_gradients(c, lanes)
        wait_for(p.progress, row, step)
        gradients(c, lanes, state, dstate, starts, step == 0)
        _solve(c, matrix, c.dx, lanes, True)
        _through_matrix(c, matrix, beta, lanes)
        if not starts:
            _through_state(c, more, beta, lanes, state)
        hand_on(c, lanes, dstate, c.dstate, p.progress, row, step, starts)
        _give_gradients(p, c, more, beta, row, first, n, lanes)
    restore_mode(mode)
