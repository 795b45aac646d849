"""Causal linear attention's kernels, compiled by numba: a chunk of tokens of one head of one row, in cache.

The recurrence of `ftmamba.ops.chunks` without decay, keys as B and queries as C; the sum of weights is one more channel
of the values, a column of ones. Features ``elu + 1`` are made here. Heads and rows share out the work. Forward can
leave the states at each chunk's start and the sums of weights. What stands behind a row's length is neither read nor
written. Buffers are float32 and passed by address; ``lengths`` are int64 or no address.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import numpy as np
from numba import njit

from ftmamba.ops.chunks import (
    added_gradients,
    added_states,
    chunk_at,
    gradients,
    hand_on,
    length_of,
    outputs,
    place,
    run_up,
    up,
)
from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    enter,
    exp2_row,
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
    where_negative,
)
from ftmamba.ops.tiles import keep_lanes, pack

_BYTES = 4
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_LOG2E = np.float32(1.4426950408889634)

_COMMON = ["n_rows", "n_tokens", "n_heads", "d_head", "chunk", "n_lanes", "n_items", "lengths"]
_COMMON += [f"{name}{axis}" for name in ("q", "k", "v") for axis in ("", "_batch", "_token", "_head")]
_COMMON += ["checkpoints", "sums", "states", "progress", "scratch", "scratch_stride", "out"]
FORWARD = [*_COMMON]
BACKWARD = [*_COMMON, "dout", "dout_batch", "dout_token", "dout_head", "dq", "dk", "dv"]


@njit(**JIT)
def _feature(x):
    """elu(x) + 1 of a row."""
    return where_negative(x, exp2_row(x * full_row(_LOG2E)), x + full_row(_ONE))


@njit(**JIT)
def _features(rows, row_step, n, d_head, target, width):
    for t in range(n):
        for i in range(0, width, CHANNELS):
            value = _feature(load_part(rows, t * row_step + i, d_head - i))
            store_row(target, t * width + i, keep_lanes(value, full_row(_ZERO), 0, d_head - i))


@njit(**JIT)
def _take(p, c, row, first, n, lanes):
    """Features of queries and keys, and values beside a one, of n tokens."""
    batch, head = row // p.n_heads, row % p.n_heads
    q = p.q + _BYTES * (batch * p.q_batch + first * p.q_token + head * p.q_head)
    k = p.k + _BYTES * (batch * p.k_batch + first * p.k_token + head * p.k_head)
    v = p.v + _BYTES * (batch * p.v_batch + first * p.v_token + head * p.v_head)
    _features(q, p.q_token, n, p.d_head, c.C, c.depth)
    _features(k, p.k_token, n, p.d_head, c.B, c.depth)
    for rows in (c.B, c.C):
        fill(rows, n * c.depth, (lanes - n) * c.depth)
    fill(c.x, 0, n * c.width)
    pack(v, p.v_token, n, p.d_head, _ONE, c.x, c.width, lanes)
    for t in range(n):
        store_float(c.x, t * c.width + p.d_head, _ONE)
    run_up(c, 0, lanes)


@njit(**JIT)
def _chunk_of(p, counters):
    at = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    return chunk_at(at, p.chunk, 1, up(p.d_head + 1, CHANNELS), up(p.d_head, CHANNELS))


def forward(pointer):
    """The output of all rows, and, where asked for, sums of weights and the states at each chunk's start."""
    mode, p, counters = enter(pointer)
    c = _chunk_of(p, counters)
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
        lanes, ends, state = up(n, CHANNELS), first + p.chunk >= length, c.state
        if p.checkpoints != 0:
            state = p.checkpoints + _BYTES * (row * n_chunks + step) * n_states
        _take(p, c, row, first, n, lanes)
        if not ends:
            added_states(c, lanes)
        hand_on(c, lanes, p.states + _BYTES * row * n_states, state, p.progress, row, step, ends)
        outputs(c, lanes, state, step == 0)
        for t in range(n):
            at = (row // p.n_heads * p.n_tokens + first + t) * p.n_heads + row % p.n_heads
            share = _ONE / load_float(c.y, t * c.width + p.d_head)
            if p.sums != 0:
                store_float(p.sums, at, share)
            for i in range(0, p.d_head, CHANNELS):
                value = full_row(share) * load_row(c.y, t * c.width + i)
                store_part(p.out, at * p.d_head + i, value, p.d_head - i)
    restore_mode(mode)


@njit(**JIT)
def _take_gradients(p, c, row, first, n, lanes):
    """Gradients of the weighed values and, beside them, of the sum of weights."""
    batch, head = row // p.n_heads, row % p.n_heads
    dout = p.dout + _BYTES * (batch * p.dout_batch + first * p.dout_token + head * p.dout_head)
    fill(c.dy, 0, n * c.width)
    pack(dout, p.dout_token, n, p.d_head, _ONE, c.dy, c.width, lanes)
    for t in range(n):
        at = (batch * p.n_tokens + first + t) * p.n_heads + head
        share, total = full_row(load_float(p.sums, at)), full_row(_ZERO)
        for i in range(0, p.d_head, CHANNELS):
            value = share * load_row(c.dy, t * c.width + i)
            total = total + value * load_part(p.out, at * p.d_head + i, p.d_head - i)
            store_row(c.dy, t * c.width + i, value)
        store_float(c.dy, t * c.width + p.d_head, -sum_channels(total))


@njit(**JIT)
def _give_features(p, rows, row_step, n, slopes, width, target):
    """From the gradient of features to that of what they were made of, (token, head, channel) at the target."""
    for t in range(n):
        for i in range(0, p.d_head, CHANNELS):
            x = load_part(rows, t * row_step + i, p.d_head - i)
            value = load_row(slopes, t * width + i) * where_negative(x, _feature(x), full_row(_ONE))
            store_part(target, t * p.n_heads * p.d_head + i, value, p.d_head - i)


def backward(pointer):
    """All gradients."""
    mode, p, counters = enter(pointer)
    c = _chunk_of(p, counters)
    n_states, n_chunks = c.depth * c.width, (p.n_tokens + p.chunk - 1) // p.chunk
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, step = place(p, item)
        batch, head, length = row // p.n_heads, row % p.n_heads, length_of(p, row // p.n_heads)
        chunk = (length + p.chunk - 1) // p.chunk - 1 - step
        if chunk < 0:
            continue
        first = chunk * p.chunk
        n = min(length - first, p.chunk)
        lanes = up(n, CHANNELS)
        state = p.checkpoints + _BYTES * (row * n_chunks + chunk) * n_states
        _take(p, c, row, first, n, lanes)
        _take_gradients(p, c, row, first, n, lanes)
        if chunk > 0:
            added_gradients(c, lanes)
        hand_on(c, lanes, p.states + _BYTES * row * n_states, c.dstate, p.progress, row, step, chunk == 0)
        gradients(c, lanes, state, c.dstate, chunk == 0, step == 0)
        at = _BYTES * ((batch * p.n_tokens + first) * p.n_heads + head) * p.d_head
        q = p.q + _BYTES * (batch * p.q_batch + first * p.q_token + head * p.q_head)
        k = p.k + _BYTES * (batch * p.k_batch + first * p.k_token + head * p.k_head)
        _give_features(p, q, p.q_token, n, c.dC, c.depth, p.dq + at)
        _give_features(p, k, p.k_token, n, c.dB, c.depth, p.dk + at)
        for t in range(n):
            for i in range(0, p.d_head, CHANNELS):
                value = load_row(c.dx, t * c.width + i)
                store_part(p.dv + at, t * p.n_heads * p.d_head + i, value, p.d_head - i)
    restore_mode(mode)
