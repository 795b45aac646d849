"""The layer's kernels, compiled by numba: an item is one row of the batch, a chunk of its tokens.

Everything between x and the output lives in scratch that the second-level cache holds: both halves of the input
projection, the convolution, dt, B, C and y of a chunk. Forward can leave the states at each chunk's start; backward
needs only these and x, and computes the rest again. The scan's own inner loops do the scan. Where only a row's last
token is read, its chunks before the last one only carry the state, without gate, C, output or gradients of them. What
stands behind a row's length is neither read nor written.

Threads take items in order. A row's next chunk waits for the states (backwards: their gradients) of 16 channels at a
time, just before it needs them; its projections are ready by then, so with two threads neither stands still. An item
waits only for items before it, which running threads hold: that ends whatever the number of threads. A sum over items
is the same on every run, as each slot is added to in the order of its items.

Buffers are float32 and passed by address, weights contiguous in their own layout (rows are outputs) or, with the
suffix ``_t``, transposed. d_model and d_inner are multiples of 16; ``projected`` is dt_rank + 2 * d_state and
``rank_width`` dt_rank, each rounded up to such a multiple by columns of zero weights. ``lengths`` are int64 or no
address.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import carray, njit

from ftmamba.ops.gemm import gemm
from ftmamba.ops.selective_scan.numba_kernels import (
    CHUNK,
    STRETCH,
    backward_chunk,
    backward_scratch,
    depth_of,
    forward_chunk,
    forward_scratch,
    give_states,
    pack_rates,
    padded_depth,
    take_projection,
    take_states,
)
from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    fetch_add,
    fill,
    flush_tiny,
    full_row,
    load_row,
    restore_mode,
    sigmoid,
    store_float,
    store_release,
    store_row,
    sum_channels,
    wait_for,
)
from ftmamba.ops.tiles import load_long

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_BYTES = 4

_SHAPE = ["n_rows", "n_tokens", "d_model", "d_inner", "d_state", "dt_rank", "d_conv", "projected", "rank_width"]
_COMMON = [*_SHAPE, "x", "x_batch", "x_token", "in_proj_t", "conv_weight_t", "conv_bias", "x_proj_t", "dt_proj_t"]
_COMMON += [
    "dt_bias",
    "A",
    "D",
    "checkpoints",
    "scratch",
    "scratch_stride",
    "last",
    "lengths",
    "n_items",
    "n_lanes",
    "progress",
]
FORWARD = [*_COMMON, "out_proj_t", "out", "out_tokens", "states"]
_WEIGHTS = ["in_proj", "x_proj", "dt_proj", "out_proj"]
_GRADS = ["din_proj", "dconv_weight_t", "dconv_bias", "dx_proj", "ddt_proj_t", "ddt_bias", "dA", "dD", "dout_proj"]
BACKWARD = [*_COMMON, *_WEIGHTS, *_GRADS, "n_slots", "turns", "dout", "dout_batch", "dout_token", "dx"]
BACKWARD += ["grads", "reached", "later"]

# What the scan's loops read of their arguments, for one chunk that starts at the address of each tensor.
_Scan = namedtuple(
    "_Scan",
    "d_inner d_state n_tokens reads x x_batch x_token dt dt_batch dt_token z z_batch z_token y dy dy_batch dy_token "
    "dx ddt dz gated dt_bias A D dA dD ddt_bias",
)
_Buffers = namedtuple("_Buffers", "u z v slope projected dt y B C")


def _chunk_floats(d_inner, d_state, projected, d_conv):
    tokens = CHUNK * (5 * d_inner + projected + 2 * padded_depth(d_state)) + (CHUNK + d_conv - 1) * d_inner
    return -(-tokens // CHANNELS) * CHANNELS


def forward_floats(d_inner, d_state, projected, d_conv):
    """Floats of scratch a thread needs."""
    return forward_scratch(d_inner, d_state) + _chunk_floats(d_inner, d_state, projected, d_conv)


def backward_floats(d_inner, d_state, projected, d_conv):
    """Floats of scratch a thread needs."""
    more = CHUNK * (6 * d_inner + projected) + (CHUNK + d_conv - 1) * d_inner
    scan = backward_scratch(d_inner, d_state)
    return scan + _chunk_floats(d_inner, d_state, projected, d_conv) + -(-more // CHANNELS) * CHANNELS


@njit(**JIT)
def _buffers(p, at):
    """The buffers of one chunk from an address on, and the first address behind them."""
    rows, states = _BYTES * CHUNK * p.d_inner, _BYTES * CHUNK * depth_of(p)
    u = at + 5 * rows
    projected = u + _BYTES * (CHUNK + p.d_conv - 1) * p.d_inner
    B = projected + _BYTES * CHUNK * p.projected
    return _Buffers(
        u, at, at + rows, at + 2 * rows, projected, at + 3 * rows, at + 4 * rows, B, B + states
    ), B + 2 * states


@njit(**JIT)
def _scan_of(p, b, reads, dy, dv, ddt, dz, gated, dA, dD, ddt_bias):
    width = p.d_inner
    return _Scan(
        width, p.d_state, CHUNK, reads, b.v, 0, width, b.dt, 0, width, b.z, 0, width, b.y, dy, 0, width,
        dv, ddt, dz, gated, p.dt_bias, p.A, p.D, dA, dD, ddt_bias,
    )  # fmt: skip


@njit(**JIT)
def _prepare(p, row, first, n, b, reads, with_slope):
    """Everything up to the scan for n tokens; with_slope also the derivative of the convolution's SiLU."""
    d_inner, d_model, d_conv, one = p.d_inner, p.d_model, p.d_conv, full_row(_ONE)
    before = d_conv - 1
    x = p.x + _BYTES * (row * p.x_batch + first * p.x_token)
    earlier = min(before, first)
    fill(b.u, 0, (before - earlier) * d_inner)
    u = b.u + _BYTES * (before - earlier) * d_inner
    gemm(
        x - _BYTES * earlier * p.x_token, p.x_token, 1, p.in_proj_t, 2 * d_inner, u, d_inner,
        n + earlier, d_model, d_inner, False,
    )  # fmt: skip
    if reads:
        gemm(x, p.x_token, 1, p.in_proj_t + _BYTES * d_inner, 2 * d_inner, b.z, d_inner, n, d_model, d_inner, False)
    for t in range(n):
        for channel in range(0, d_inner, CHANNELS):
            value = load_row(p.conv_bias, channel)
            for k in range(d_conv):
                tap = load_row(b.u, (t + k) * d_inner + channel)
                value = value + tap * load_row(p.conv_weight_t, k * d_inner + channel)
            open_ = sigmoid(value)
            store_row(b.v, t * d_inner + channel, value * open_)
            if with_slope:
                store_row(b.slope, t * d_inner + channel, open_ * (one + value * (one - open_)))
    gemm(b.v, d_inner, 1, p.x_proj_t, p.projected, b.projected, p.projected, n, d_inner, p.projected, False)
    gemm(b.projected, p.projected, 1, p.dt_proj_t, d_inner, b.dt, d_inner, n, p.dt_rank, d_inner, False)
    take_projection(p, b.projected, p.dt_rank, p.projected, n, b.B)
    if reads:
        take_projection(p, b.projected, p.dt_rank + p.d_state, p.projected, n, b.C)


@njit(**JIT)
def _place(p, item):
    """Row and step (chunks in order of work) of an item: ``n_lanes`` rows at a time, one chunk of each in turn."""
    n_chunks = (p.n_tokens + CHUNK - 1) // CHUNK
    first = item // (p.n_lanes * n_chunks) * p.n_lanes
    n_rows = min(p.n_lanes, p.n_rows - first)
    item -= first * n_chunks
    return first + item % n_rows, item // n_rows


@njit(**JIT)
def _span(p, row):
    """Of a row: its length, and the first token that is read."""
    length = p.n_tokens
    if p.lengths != 0:
        length = min(max(load_long(p.lengths, row), 0), length)
    return length, max(length - 1, 0) // CHUNK * CHUNK if p.last else 0


@njit(**JIT)
def _forward_item(p, row, chunk, rates, elapsed, rows, b):
    d_inner, n_states, n_chunks = p.d_inner, depth_of(p), (p.n_tokens + CHUNK - 1) // CHUNK
    first, n_groups = chunk * CHUNK, d_inner // CHANNELS
    length, first_read = _span(p, row)
    n = min(length - first, CHUNK)
    if n <= 0:
        return
    reads = first >= first_read
    scan = _scan_of(p, b, reads, 0, 0, 0, 0, 0, 0, 0, 0)
    _prepare(p, row, first, n, b, reads, False)
    for channel in range(0, d_inner, CHANNELS):
        group, offset = row * n_groups + channel // CHANNELS, _BYTES * n_states * channel
        states = p.states + _BYTES * n_states * d_inner * row + offset
        wait_for(p.progress, group, chunk)
        if chunk == 0:
            fill(states, 0, n_states * CHANNELS)
        if p.checkpoints != 0:
            give_states(p, states, p.checkpoints, (row * n_chunks + chunk) * p.d_state * d_inner, channel)
        for t in range(0, n, STRETCH):
            forward_chunk(
                scan, 0, t, min(n - t, STRETCH), channel, rates + offset, states, elapsed,
                b.B + _BYTES * t * n_states, b.C + _BYTES * t * n_states, rows,
            )  # fmt: skip
        store_release(p.progress, group, chunk + 1)
    if reads:
        out = p.out + _BYTES * (row * p.out_tokens + first - first_read) * p.d_model
        gemm(b.y, d_inner, 1, p.out_proj_t, p.d_model, out, p.d_model, n, d_inner, p.d_model, False)


def forward(pointer):
    """The output of all rows, and, where asked for, checkpoints."""
    mode = flush_tiny()
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    rates = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    elapsed = rates + _BYTES * depth_of(p) * p.d_inner
    rows = elapsed + _BYTES * p.d_inner
    b, _ = _buffers(p, rows + _BYTES * 3 * STRETCH * CHANNELS)
    pack_rates(p, rates)
    fill(elapsed, 0, p.d_inner)
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, chunk = _place(p, item)
        _forward_item(p, row, chunk, rates, elapsed, rows, b)
    restore_mode(mode)


@njit(**JIT)
def _give_projected(p, sums, n, dprojected, column):
    """dB or dC of a chunk, from sums that still hold 16 channels each, to columns of the projection's gradient."""
    n_states = depth_of(p)
    for t in range(n):
        for state in range(p.d_state):
            value = sum_channels(load_row(sums, (t * n_states + state) * CHANNELS))
            store_float(dprojected, t * p.projected + column + state, value)


@njit(**JIT)
def _conv_backward(p, row, step, n, b, dconv, dv, du, slot):
    """From the gradient of the convolution's output to that of its input, du.

    The first d_conv - 1 tokens are left for the chunk before, as the chunk behind has left its own.
    """
    d_inner, d_conv = p.d_inner, p.d_conv
    size = (d_conv - 1) * d_inner
    for i in range(0, n * d_inner, CHANNELS):
        store_row(dconv, i, load_row(dv, i) * load_row(b.slope, i))
    wait_for(p.reached, row, step)
    later = p.later + _BYTES * size * row
    if step == 0:
        fill(later, 0, size)
    for i in range(0, size, CHANNELS):
        store_row(dconv, n * d_inner + i, load_row(later, i))
    for i in range(0, size, CHANNELS):
        store_row(later, i, load_row(dconv, i))
    store_release(p.reached, row, step + 1)
    for t in range(n):
        for channel in range(0, d_inner, CHANNELS):
            value = full_row(_ZERO)
            for ahead in range(d_conv):
                weight = load_row(p.conv_weight_t, (d_conv - 1 - ahead) * d_inner + channel)
                value = value + load_row(dconv, (t + ahead) * d_inner + channel) * weight
            store_row(du, t * d_inner + channel, value)
    for channel in range(0, d_inner, CHANNELS):
        total = full_row(_ZERO)
        for t in range(n):
            total = total + load_row(dconv, t * d_inner + channel)
        at = slot * d_inner + channel
        store_row(p.dconv_bias, at, load_row(p.dconv_bias, at) + total)
        for k in range(d_conv):
            total = full_row(_ZERO)
            for t in range(n):
                total = total + load_row(dconv, t * d_inner + channel) * load_row(b.u, (t + k) * d_inner + channel)
            at = (slot * d_conv + k) * d_inner + channel
            store_row(p.dconv_weight_t, at, load_row(p.dconv_weight_t, at) + total)


@njit(**JIT)
def _backward_item(p, row, step, slot, rates, kept, rows, h_before, decays, dB, dC, b, more):
    d_inner, d_model, n_states, r = p.d_inner, p.d_model, depth_of(p), p.dt_rank
    n_chunks, size = (p.n_tokens + CHUNK - 1) // CHUNK, _BYTES * CHUNK * d_inner
    dy, dv, ddt, dz, gated, du = more, more + size, more + 2 * size, more + 3 * size, more + 4 * size, more + 5 * size
    dprojected = more + 6 * size
    dconv = dprojected + _BYTES * CHUNK * p.projected
    n_projected, n_groups = r + 2 * p.d_state, d_inner // CHANNELS
    din_proj = p.din_proj + _BYTES * slot * 2 * d_inner * d_model
    dx_proj = p.dx_proj + _BYTES * slot * n_projected * d_inner
    ddt_proj_t = p.ddt_proj_t + _BYTES * slot * r * d_inner
    dout_proj = p.dout_proj + _BYTES * slot * d_model * d_inner

    length, first_read = _span(p, row)
    chunk = (length + CHUNK - 1) // CHUNK - 1 - step
    if chunk < 0:
        return
    first = chunk * CHUNK
    n = min(length - first, CHUNK)
    x = p.x + _BYTES * (row * p.x_batch + first * p.x_token)
    dout = p.dout + _BYTES * (row * p.dout_batch + (first - first_read) * p.dout_token)
    reads = first >= first_read
    scan = _scan_of(p, b, reads, dy, dv, ddt, dz, gated, p.dA, p.dD, p.ddt_bias)
    _prepare(p, row, first, n, b, reads, True)
    if reads:
        gemm(dout, p.dout_token, 1, p.out_proj, d_inner, dy, d_inner, n, d_model, d_inner, False)

    fill(dB, 0, n * n_states * CHANNELS)
    fill(dC, 0, n * n_states * CHANNELS)
    for channel in range(0, d_inner, CHANNELS):
        group, offset = row * n_groups + channel // CHANNELS, _BYTES * n_states * channel
        grads = p.grads + _BYTES * n_states * d_inner * row + offset
        take_states(p, p.checkpoints, (row * n_chunks + chunk) * p.d_state * d_inner, kept, channel)
        wait_for(p.progress, group, step)
        if step == 0:
            fill(grads, 0, n_states * CHANNELS)
        backward_chunk(
            scan, 0, 0, n, channel, slot, kept, rates + offset, grads, b.B, b.C, rows, h_before, decays, dB, dC,
        )  # fmt: skip
        store_release(p.progress, group, step + 1)

    fill(dprojected, 0, n * p.projected)
    gemm(ddt, d_inner, 1, p.dt_proj, p.rank_width, dprojected, p.projected, n, d_inner, p.rank_width, False)
    _give_projected(p, dB, n, dprojected, r)
    if reads:
        _give_projected(p, dC, n, dprojected, r + p.d_state)
    gemm(b.projected, 1, p.projected, ddt, d_inner, ddt_proj_t, d_inner, r, n, d_inner, True)
    gemm(dprojected, 1, p.projected, b.v, d_inner, dx_proj, d_inner, n_projected, n, d_inner, True)
    gemm(dprojected, p.projected, 1, p.x_proj, d_inner, dv, d_inner, n, n_projected, d_inner, True)

    _conv_backward(p, row, step, n, b, dconv, dv, du, slot)
    gemm(du, 1, d_inner, x, p.x_token, din_proj, d_model, d_inner, n, d_model, True)
    dx = p.dx + _BYTES * (row * p.n_tokens + first) * d_model
    gemm(du, d_inner, 1, p.in_proj, d_model, dx, d_model, n, d_inner, d_model, False)
    if reads:
        gate_rows = _BYTES * d_inner * d_model
        gemm(dout, 1, p.dout_token, gated, d_inner, dout_proj, d_inner, d_model, n, d_inner, True)
        gemm(dz, 1, d_inner, x, p.x_token, din_proj + gate_rows, d_model, d_inner, n, d_model, True)
        gemm(dz, d_inner, 1, p.in_proj + gate_rows, d_model, dx, d_model, n, d_inner, d_model, True)


@njit(**JIT)
def _clear_slot(p, slot):
    d_inner, n_states, n_projected = p.d_inner, depth_of(p), p.dt_rank + 2 * p.d_state
    fill(p.din_proj, slot * 2 * d_inner * p.d_model, 2 * d_inner * p.d_model)
    fill(p.dconv_weight_t, slot * p.d_conv * d_inner, p.d_conv * d_inner)
    fill(p.dx_proj, slot * n_projected * d_inner, n_projected * d_inner)
    fill(p.ddt_proj_t, slot * p.dt_rank * d_inner, p.dt_rank * d_inner)
    fill(p.dA, slot * n_states * d_inner, n_states * d_inner)
    fill(p.dout_proj, slot * p.d_model * d_inner, p.d_model * d_inner)
    fill(p.dconv_bias, slot * d_inner, d_inner)
    fill(p.ddt_bias, slot * d_inner, d_inner)
    fill(p.dD, slot * d_inner, d_inner)


def backward(pointer):
    """All gradients, those of the weights as one partial sum a slot: items take turns in the slots, in order."""
    mode = flush_tiny()
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    n_states = depth_of(p)
    rates = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    kept = rates + _BYTES * n_states * p.d_inner
    rows = kept + _BYTES * n_states * CHANNELS
    h_before = rows + _BYTES * 10 * CHUNK * CHANNELS
    decays = h_before + _BYTES * CHUNK * 4 * CHANNELS
    dB = decays + _BYTES * CHUNK * 4 * CHANNELS
    dC = dB + _BYTES * CHUNK * n_states * CHANNELS
    b, more = _buffers(p, dC + _BYTES * CHUNK * n_states * CHANNELS)
    pack_rates(p, rates)
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        row, step = _place(p, item)
        slot, turn = item % p.n_slots, item // p.n_slots
        wait_for(p.turns, slot, turn)
        if turn == 0:
            _clear_slot(p, slot)
        _backward_item(p, row, step, slot, rates, kept, rows, h_before, decays, dB, dC, b, more)
        store_release(p.turns, slot, turn + 1)
    restore_mode(mode)
