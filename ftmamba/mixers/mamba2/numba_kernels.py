"""Mamba-2's kernels, compiled by numba: from the convolution's output to the gated norm, a chunk of one row at a time.

Threads take the chunks of a row in order, and wait for each other only to hand on the states, 2 multiply-adds a state.
Forward can leave the states at each chunk's start and y; backward needs these and the inputs, and computes the rest
again. What stands behind a row's length is neither read nor written. Buffers are float32 and passed by address;
``lengths`` are int64 or no address.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import numpy as np
from numba import njit

from ftmamba.mixers.mamba2 import EPS
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
    fetch_add,
    fill,
    full_row,
    load_float,
    load_part,
    load_row,
    restore_mode,
    sigmoid,
    store_float,
    store_part,
    store_row,
    sum_channels,
)
from ftmamba.ops.tiles import pack

_BYTES = 4
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_LOG2E = np.float32(1.4426950408889634)

_COMMON = ["n_rows", "n_tokens", "n_heads", "d_head", "d_state", "chunk", "n_lanes", "n_items", "lengths"]
_COMMON += ["mixed", "mixed_batch", "mixed_token", "dt", "decay", "z", "z_batch", "z_token", "D", "norm", "y"]
_COMMON += ["checkpoints", "states", "progress", "scratch", "scratch_stride"]
FORWARD = [*_COMMON, "out"]
BACKWARD = [*_COMMON, "dout", "dout_batch", "dout_token", "dmixed", "ddt", "ddecay", "dz", "partial"]


@njit(**JIT)
def _take(p, c, row, first, n, lanes):
    """x, B, C and the running decays of n tokens."""
    mixed = p.mixed + _BYTES * (row * p.mixed_batch + first * p.mixed_token)
    scalars, inner = (row * p.n_tokens + first) * p.n_heads, p.n_heads * p.d_head
    for t in range(n):
        for head in range(p.n_heads):
            at = scalars + t * p.n_heads + head
            step = full_row(load_float(p.dt, at))
            store_float(c.high, head * c.size + t, load_float(p.decay, at) * _LOG2E)
            for i in range(0, p.d_head, CHANNELS):
                u = load_part(mixed, t * p.mixed_token + head * p.d_head + i, p.d_head - i)
                store_row(c.x, t * c.width + head * c.d_head + i, step * u)
    fill(c.x, n * c.width, (lanes - n) * c.width)
    B = mixed + _BYTES * inner
    pack(B, p.mixed_token, n, p.d_state, _ONE, c.B, c.depth, lanes)
    pack(B + _BYTES * p.d_state, p.mixed_token, n, p.d_state, _ONE, c.C, c.depth, lanes)
    run_up(c, n, lanes)


@njit(**JIT)
def _give(p, c, row, first, n):
    """The gated norm of y and what goes past the states."""
    inner = p.n_heads * p.d_head
    for t in range(n):
        token = row * p.n_tokens + first + t
        u = p.mixed + _BYTES * (row * p.mixed_batch + (first + t) * p.mixed_token)
        z = p.z + _BYTES * (row * p.z_batch + (first + t) * p.z_token)
        squares = full_row(_ZERO)
        for head in range(p.n_heads):
            skip = full_row(load_float(p.D, head))
            for i in range(0, p.d_head, CHANNELS):
                at, channel, count = t * c.width + head * c.d_head + i, head * p.d_head + i, p.d_head - i
                y = load_row(c.y, at) + skip * load_part(u, channel, count)
                if p.y != 0:
                    store_part(p.y, token * inner + channel, y, count)
                gate = load_part(z, channel, count)
                gated = y * gate * sigmoid(gate)
                store_row(c.y, at, gated)
                squares = squares + gated * gated
        scale = full_row(_ONE / np.float32(np.sqrt(sum_channels(squares) / np.float32(inner) + np.float32(EPS))))
        for head in range(p.n_heads):
            for i in range(0, p.d_head, CHANNELS):
                channel, count = head * p.d_head + i, p.d_head - i
                value = scale * load_row(c.y, t * c.width + head * c.d_head + i) * load_part(p.norm, channel, count)
                store_part(p.out, token * inner + channel, value, count)


@njit(**JIT)
def _chunk_of(p, counters):
    at = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    return chunk_at(at, p.chunk, p.n_heads, up(p.d_head, CHANNELS), up(p.d_state, CHANNELS))


def forward(pointer):
    """The output of all rows, and, where asked for, y and the states at each chunk's start."""
    mode, p, counters = enter(pointer)
    c = _chunk_of(p, counters)
    n_states, n_chunks = c.depth * c.width, (p.n_tokens + p.chunk - 1) // p.chunk
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, step = place(p, item)
        first, length = step * p.chunk, length_of(p, row)
        n = min(length - first, p.chunk)
        if n <= 0:
            continue
        lanes, ends = up(n, CHANNELS), first + p.chunk >= length
        state = c.state
        if p.checkpoints != 0:
            state = p.checkpoints + _BYTES * (row * n_chunks + step) * n_states
        _take(p, c, row, first, n, lanes)
        if not ends:
            added_states(c, lanes)
        hand_on(c, lanes, p.states + _BYTES * row * n_states, state, p.progress, row, step, ends)
        outputs(c, lanes, state, step == 0)
        _give(p, c, row, first, n)
    restore_mode(mode)


@njit(**JIT)
def _take_gradients(p, c, row, first, n, lanes, partial):
    """dy and dz, from the gradient of the gated norm; to partial sums those of the norm's weight and D."""
    inner = p.n_heads * p.d_head
    fill(c.dy, n * c.width, (lanes - n) * c.width)
    for t in range(n):
        token = row * p.n_tokens + first + t
        u = p.mixed + _BYTES * (row * p.mixed_batch + (first + t) * p.mixed_token)
        z = p.z + _BYTES * (row * p.z_batch + (first + t) * p.z_token)
        dout = p.dout + _BYTES * (row * p.dout_batch + (first + t) * p.dout_token)
        squares = products = full_row(_ZERO)
        for head in range(p.n_heads):
            for i in range(0, p.d_head, CHANNELS):
                at, channel, count = t * c.width + head * c.d_head + i, head * p.d_head + i, p.d_head - i
                gate = load_part(z, channel, count)
                gated = load_part(p.y, token * inner + channel, count) * gate * sigmoid(gate)
                store_row(c.y, at, gated)
                squares = squares + gated * gated
                products = products + gated * load_part(dout, channel, count) * load_part(p.norm, channel, count)
        scale = _ONE / np.float32(np.sqrt(sum_channels(squares) / np.float32(inner) + np.float32(EPS)))
        less = full_row(scale * scale * scale * sum_channels(products) / np.float32(inner))
        factor = full_row(scale)
        for head in range(p.n_heads):
            for i in range(0, p.d_head, CHANNELS):
                at, channel, count = t * c.width + head * c.d_head + i, head * p.d_head + i, p.d_head - i
                upstream = load_part(dout, channel, count)
                gate, y = load_part(z, channel, count), load_part(p.y, token * inner + channel, count)
                open_, gated = sigmoid(gate), load_row(c.y, at)
                dgated = factor * upstream * load_part(p.norm, channel, count) - less * gated
                dy = dgated * gate * open_
                store_row(c.dy, at, dy)
                slope = open_ * (full_row(_ONE) + gate * (full_row(_ONE) - open_))
                store_part(p.dz, token * inner + channel, dgated * y * slope, count)
                dnorm = load_part(partial, channel, count) + upstream * gated * factor
                store_part(partial, channel, dnorm, count)
                dskip = load_part(partial, inner + channel, count) + dy * load_part(u, channel, count)
                store_part(partial, inner + channel, dskip, count)


@njit(**JIT)
def _give_gradients(p, c, row, first, n):
    """Gradients of what `_take` read, in the same places."""
    inner, mixed = p.n_heads * p.d_head, p.n_heads * p.d_head + 2 * p.d_state
    for t in range(n):
        token = row * p.n_tokens + first + t
        u = p.mixed + _BYTES * (row * p.mixed_batch + (first + t) * p.mixed_token)
        for head in range(p.n_heads):
            scalar = token * p.n_heads + head
            step, skip, total = full_row(load_float(p.dt, scalar)), full_row(load_float(p.D, head)), full_row(_ZERO)
            for i in range(0, p.d_head, CHANNELS):
                at, channel, count = t * c.width + head * c.d_head + i, head * p.d_head + i, p.d_head - i
                dx = load_row(c.dx, at)
                total = total + dx * load_part(u, channel, count)
                store_part(p.dmixed, token * mixed + channel, dx * step + skip * load_row(c.dy, at), count)
            store_float(p.ddt, scalar, sum_channels(total))
            store_float(p.ddecay, scalar, load_float(c.da, head * c.size + t))
        for i in range(0, p.d_state, CHANNELS):
            at, count = token * mixed + inner + i, p.d_state - i
            store_part(p.dmixed, at, load_row(c.dB, t * c.depth + i), count)
            store_part(p.dmixed, at + p.d_state, load_row(c.dC, t * c.depth + i), count)


def backward(pointer):
    """All gradients, those of D and the norm as one partial sum an item."""
    mode, p, counters = enter(pointer)
    c = _chunk_of(p, counters)
    n_states, n_chunks = c.depth * c.width, (p.n_tokens + p.chunk - 1) // p.chunk
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, step = place(p, item)
        length = length_of(p, row)
        chunk = (length + p.chunk - 1) // p.chunk - 1 - step
        if chunk < 0:
            continue
        first = chunk * p.chunk
        n = min(length - first, p.chunk)
        lanes = up(n, CHANNELS)
        state = p.checkpoints + _BYTES * (row * n_chunks + chunk) * n_states
        _take(p, c, row, first, n, lanes)
        _take_gradients(p, c, row, first, n, lanes, p.partial + _BYTES * item * 2 * p.n_heads * p.d_head)
        if chunk > 0:
            added_gradients(c, lanes)
        hand_on(c, lanes, p.states + _BYTES * row * n_states, c.dstate, p.progress, row, step, chunk == 0)
        gradients(c, lanes, state, c.dstate, chunk == 0, step == 0)
        _give_gradients(p, c, row, first, n)
    restore_mode(mode)
