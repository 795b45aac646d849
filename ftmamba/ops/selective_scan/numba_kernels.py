"""The scan's inner loops, compiled by numba: forward, adjoint carry and backward.

A thread takes a work item: one row of the batch, a group of channels, one segment of the tokens. It walks the tokens in
short stretches, in each the channels 16 at a time, and for these the states 4 at a time, so that a block of 64 states
stays in registers over a stretch. What a token needs besides (steps, outputs, sums) lies in scratch rows that the
first-level cache holds, and the memory of the next stretch is asked for while this one is computed. At the start of
every `CHUNK` tokens the forward pass can leave a copy of the states, from which the backward pass recomputes the rest.

Buffers are float32 and passed by address. ``(batch, token)`` strides go with tensors that may be slices; states are
(batch, segment, d_state, width), checkpoints (batch, chunk, d_state, width), where width is d_inner rounded up to whole
rows. In scratch, states are (row of channels, depth, 16) with depth = d_state rounded up to whole blocks; the states
added by rounding have no decay, no input and no output. Rates are A times log2(e): the exponential is a power of two.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import numpy as np
from numba import carray, njit

from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    STATES,
    add_product,
    exp2,
    fetch_add,
    fill,
    flush_tiny,
    full_row,
    load_block,
    load_float,
    load_part,
    load_row,
    load_states,
    over_states,
    prefetch_read,
    prefetch_write,
    restore_mode,
    sigmoid,
    softplus_and_slope,
    store_block,
    store_float,
    store_part,
    store_row,
    sum_channels,
)

CHUNK = 32  # tokens between checkpoints
STRETCH = 16  # tokens that the forward pass takes at a time; divides CHUNK

_LOG2E = np.float32(1.4426950408889634)
_LN2 = np.float32(0.6931471805599453)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_BYTES = 4
_BLOCK = STATES * CHANNELS

_SHAPE = ["n_tokens", "d_inner", "d_state", "n_groups", "n_segments", "segment_tokens", "n_items", "reads"]
_INPUTS = [f"{name}{axis}" for name in ("x", "dt", "B", "C", "z") for axis in ("", "_batch", "_token")]
_COMMON = [*_SHAPE, *_INPUTS, "A", "D", "dt_bias", "scratch", "scratch_stride"]
_ADJOINTS = [*_COMMON, "dy", "dy_batch", "dy_token", "end_grad", "start_grad"]
FORWARD = [*_COMMON, "start", "end", "elapsed", "y", "checkpoints"]
ADJOINT = [*_ADJOINTS, "elapsed"]
BACKWARD = [*_ADJOINTS, "checkpoints", "n_slots", "dx", "ddt", "dB", "dC", "dz", "dA", "dD", "ddt_bias", "gated"]


def padded_width(d_inner):
    """Channels rounded up to whole rows."""
    return -(-d_inner // CHANNELS) * CHANNELS


def padded_depth(d_state):
    """States rounded up to whole blocks."""
    return -(-d_state // STATES) * STATES


def chunk_count(n_tokens):
    """Chunks that cover the tokens."""
    return -(-n_tokens // CHUNK)


_FORWARD_ROWS = 3
_BACKWARD_ROWS = 10


def forward_scratch(width, d_state):
    """Floats of scratch a thread needs, forward or adjoint: rates, states, summed steps, a chunk's B, C and rows."""
    depth = padded_depth(d_state)
    return 2 * depth * width + width + CHUNK * (2 * depth + _FORWARD_ROWS * CHANNELS)


def backward_scratch(width, d_state):
    """Floats of scratch a thread needs: rates, states, a chunk's B, C, rows, blocks of states and decays, sums."""
    depth = padded_depth(d_state)
    chunk = CHUNK * (2 * depth + _BACKWARD_ROWS * CHANNELS + 2 * _BLOCK + 2 * depth * CHANNELS)
    return 2 * depth * width + depth * CHANNELS + chunk


@njit(**JIT)
def width_of(p):
    return (p.d_inner + CHANNELS - 1) // CHANNELS * CHANNELS


@njit(**JIT)
def depth_of(p):
    return (p.d_state + STATES - 1) // STATES * STATES


@njit(**JIT)
def pack_rates(p, rates):
    """A times log2(e) in the layout of the states; zero where there is no such channel or state."""
    A, d_inner, d_state, depth = p.A, p.d_inner, p.d_state, depth_of(p)
    for channel in range(width_of(p)):
        i = channel // CHANNELS * depth * CHANNELS + channel % CHANNELS
        for n in range(depth):
            rate = load_float(A, channel * d_state + n) * _LOG2E if channel < d_inner and n < d_state else _ZERO
            store_float(rates, i + n * CHANNELS, rate)


@njit(**JIT)
def take_states(p, source, index, states, channel):
    """States of 16 channels from (d_state, width) at ``index``; zero where the source has no address."""
    width, depth = width_of(p), depth_of(p)
    fill(states, 0, depth * CHANNELS)
    if source != 0:
        for n in range(p.d_state):
            store_row(states, n * CHANNELS, load_row(source, index + n * width + channel))


@njit(**JIT)
def give_states(p, states, target, index, channel):
    """States of 16 channels to (d_state, width) at ``index``."""
    width = width_of(p)
    for n in range(p.d_state):
        store_row(target, index + n * width + channel, load_row(states, n * CHANNELS))


@njit(**JIT)
def take_projection(p, source, index, token_stride, n_tokens, projection):
    """A chunk of B or C as (token, depth), zero beyond the last state."""
    d_state, depth = p.d_state, depth_of(p)
    for t in range(n_tokens):
        for n in range(depth):
            value = load_float(source, index + t * token_stride + n) if n < d_state else _ZERO
            store_float(projection, t * depth + n, value)


@njit(**JIT)
def _place(p, item):
    """Row of the batch, segment, first and last channel, first and last token of a work item."""
    n_rows = width_of(p) // CHANNELS
    segment = item % p.n_segments
    group = item // p.n_segments % p.n_groups
    batch = item // (p.n_segments * p.n_groups)
    token = segment * p.segment_tokens
    return (
        batch,
        segment,
        n_rows * group // p.n_groups * CHANNELS,
        n_rows * (group + 1) // p.n_groups * CHANNELS,
        token,
        min(p.n_tokens, token + p.segment_tokens),
    )


@njit(**JIT)
def forward_chunk(p, batch, first, n, channel, rates, states, elapsed, B, C, rows):
    """n tokens of 16 channels: updates their states and the sum of their steps, writes y."""
    depth, left = depth_of(p), p.d_inner - channel
    delta, drive, y = rows, rows + _BYTES * STRETCH * CHANNELS, rows + 2 * _BYTES * STRETCH * CHANNELS
    bias, skip, total = load_part(p.dt_bias, channel, left), load_part(p.D, channel, left), full_row(_ZERO)
    x_at = batch * p.x_batch + first * p.x_token + channel
    dt_at = batch * p.dt_batch + first * p.dt_token + channel
    for t in range(n):
        prefetch_read(p.dt, dt_at + (t + STRETCH) * p.dt_token)
        prefetch_read(p.x, x_at + (t + STRETCH) * p.x_token)
        step, _ = softplus_and_slope(load_part(p.dt, dt_at + t * p.dt_token, left) + bias)
        x = load_part(p.x, x_at + t * p.x_token, left)
        total = total + step
        store_row(delta, t * CHANNELS, step)
        store_row(drive, t * CHANNELS, step * x)
        store_row(y, t * CHANNELS, skip * x)
    store_row(elapsed, channel, load_row(elapsed, channel) + total)

    for s in range(0, depth, STATES):
        rate, h = load_block(rates, s * CHANNELS), load_block(states, s * CHANNELS)
        if p.reads:
            for t in range(n):
                i, j = t * CHANNELS, t * depth + s
                decay = exp2(over_states(load_row(delta, i)) * rate)
                h = decay * h + over_states(load_row(drive, i)) * load_states(B, j)
                store_row(y, i, add_product(load_row(y, i), h, load_states(C, j)))
        else:
            for t in range(n):
                i, j = t * CHANNELS, t * depth + s
                decay = exp2(over_states(load_row(delta, i)) * rate)
                h = decay * h + over_states(load_row(drive, i)) * load_states(B, j)
        store_block(states, s * CHANNELS, h)

    if p.reads:
        z_at = batch * p.z_batch + first * p.z_token + channel
        y_at = (batch * p.n_tokens + first) * p.d_inner + channel
        for t in range(n):
            prefetch_read(p.z, z_at + (t + STRETCH) * p.z_token)
            prefetch_write(p.y, y_at + (t + STRETCH) * p.d_inner)
            z = load_part(p.z, z_at + t * p.z_token, left)
            store_part(p.y, y_at + t * p.d_inner, load_row(y, t * CHANNELS) * z * sigmoid(z), left)


@njit(**JIT)
def _forward_item(p, item, rates, states, elapsed, B, C, rows):
    batch, segment, first_channel, last_channel, first_token, last_token = _place(p, item)
    width, depth = width_of(p), depth_of(p)
    n_chunks = (p.n_tokens + CHUNK - 1) // CHUNK
    place = (batch * p.n_segments + segment) * p.d_state * width
    for channel in range(first_channel, last_channel, CHANNELS):
        take_states(p, p.start, place, states + _BYTES * depth * channel, channel)
    fill(elapsed, 0, width)
    for first in range(first_token, last_token, STRETCH):
        n = min(last_token - first, STRETCH)
        take_projection(p, p.B, batch * p.B_batch + first * p.B_token, p.B_token, n, B)
        if p.reads:
            take_projection(p, p.C, batch * p.C_batch + first * p.C_token, p.C_token, n, C)
        kept = (batch * n_chunks + first // CHUNK) * p.d_state * width
        for channel in range(first_channel, last_channel, CHANNELS):
            offset = _BYTES * depth * channel
            if p.checkpoints != 0 and first % CHUNK == 0:
                give_states(p, states + offset, p.checkpoints, kept, channel)
            forward_chunk(p, batch, first, n, channel, rates + offset, states + offset, elapsed, B, C, rows)
    for channel in range(first_channel, last_channel, CHANNELS):
        give_states(p, states + _BYTES * depth * channel, p.end, place, channel)
        if p.elapsed != 0:
            store_row(p.elapsed, (batch * p.n_segments + segment) * width + channel, load_row(elapsed, channel))


def forward(pointer):
    """All tokens forward: y, the states at each segment's end, and, where asked for, checkpoints and summed steps."""
    mode = flush_tiny()
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    width, depth = width_of(p), depth_of(p)
    rates = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    states = rates + _BYTES * depth * width
    elapsed = states + _BYTES * depth * width
    rows = elapsed + _BYTES * width
    B = rows + _BYTES * CHUNK * CHANNELS * _FORWARD_ROWS
    C = B + _BYTES * CHUNK * depth
    pack_rates(p, rates)
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        _forward_item(p, item, rates, states, elapsed, B, C, rows)
    restore_mode(mode)


@njit(**JIT)
def _adjoint_chunk(p, batch, first, n, channel, rates, grads, elapsed, C, rows):
    """n tokens of 16 channels, backwards: carries the gradient of their states, sums their steps."""
    depth, left = depth_of(p), p.d_inner - channel
    delta, out = rows, rows + _BYTES * CHUNK * CHANNELS
    bias, total = load_part(p.dt_bias, channel, left), full_row(_ZERO)
    dt_at = batch * p.dt_batch + first * p.dt_token + channel
    z_at = batch * p.z_batch + first * p.z_token + channel
    dy_at = batch * p.dy_batch + first * p.dy_token + channel
    for t in range(n):
        step, _ = softplus_and_slope(load_part(p.dt, dt_at + t * p.dt_token, left) + bias)
        total = total + step
        store_row(delta, t * CHANNELS, step)
        if p.reads:
            z = load_part(p.z, z_at + t * p.z_token, left)
            store_row(out, t * CHANNELS, load_part(p.dy, dy_at + t * p.dy_token, left) * z * sigmoid(z))
    store_row(elapsed, channel, load_row(elapsed, channel) + total)
    if p.reads:
        for s in range(0, depth, STATES):
            rate, grad = load_block(rates, s * CHANNELS), load_block(grads, s * CHANNELS)
            for t in range(n - 1, -1, -1):
                grad = grad + over_states(load_row(out, t * CHANNELS)) * load_states(C, t * depth + s)
                grad = grad * exp2(over_states(load_row(delta, t * CHANNELS)) * rate)
            store_block(grads, s * CHANNELS, grad)


@njit(**JIT)
def _adjoint_item(p, item, rates, grads, elapsed, C, rows):
    batch, segment, first_channel, last_channel, first_token, last_token = _place(p, item)
    width, depth = width_of(p), depth_of(p)
    fill(grads, 0, depth * width)
    fill(elapsed, 0, width)
    for first in range((last_token - 1) // CHUNK * CHUNK, first_token - 1, -CHUNK):
        n = min(last_token - first, CHUNK)
        if p.reads:
            take_projection(p, p.C, batch * p.C_batch + first * p.C_token, p.C_token, n, C)
        for channel in range(first_channel, last_channel, CHANNELS):
            offset = _BYTES * depth * channel
            _adjoint_chunk(p, batch, first, n, channel, rates + offset, grads + offset, elapsed, C, rows)
    place = batch * p.n_segments + segment
    for channel in range(first_channel, last_channel, CHANNELS):
        give_states(p, grads + _BYTES * depth * channel, p.start_grad, place * p.d_state * width, channel)
        store_row(p.elapsed, place * width + channel, load_row(elapsed, channel))


def adjoint(pointer):
    """Each segment by itself, from no gradient at its end: the gradient of its start states, and its summed steps."""
    mode = flush_tiny()
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    width, depth = width_of(p), depth_of(p)
    rates = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    grads = rates + _BYTES * depth * width
    elapsed = grads + _BYTES * depth * width
    rows = elapsed + _BYTES * width
    C = rows + _BYTES * CHUNK * CHANNELS * _FORWARD_ROWS
    pack_rates(p, rates)
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        _adjoint_item(p, item, rates, grads, elapsed, C, rows)
    restore_mode(mode)


@njit(**JIT)
def backward_chunk(p, batch, first, n, channel, slot, kept, rates, grads, B, C, rows, h_before, decays, dB, dC):
    """n tokens of 16 channels: forward once more from their checkpoint, then backwards.

    Updates the gradient of the states, adds to the sums for dB, dC and the weights, writes dx, ddt and dz, and where it
    has an address the gated output once more.
    """
    depth, left, width = depth_of(p), p.d_inner - channel, width_of(p)
    one, zero, ln2 = full_row(_ONE), full_row(_ZERO), full_row(_LN2)
    size = _BYTES * CHUNK * CHANNELS
    delta, slope, x, drive, out = rows, rows + size, rows + 2 * size, rows + 3 * size, rows + 4 * size
    rest = rows + 5 * size
    gate_slope, y, ddrive, dlog, gate = rest, rest + size, rest + 2 * size, rest + 3 * size, rest + 4 * size
    bias, skip = load_part(p.dt_bias, channel, left), load_part(p.D, channel, left)
    x_at = batch * p.x_batch + first * p.x_token + channel
    dt_at = batch * p.dt_batch + first * p.dt_token + channel
    z_at = batch * p.z_batch + first * p.z_token + channel
    dy_at = batch * p.dy_batch + first * p.dy_token + channel
    for t in range(n):
        i = t * CHANNELS
        prefetch_read(p.dt, dt_at + (t - CHUNK) * p.dt_token)
        prefetch_read(p.x, x_at + (t - CHUNK) * p.x_token)
        step, step_slope = softplus_and_slope(load_part(p.dt, dt_at + t * p.dt_token, left) + bias)
        value = load_part(p.x, x_at + t * p.x_token, left)
        store_row(delta, i, step)
        store_row(slope, i, step_slope)
        store_row(x, i, value)
        store_row(drive, i, step * value)
        store_row(ddrive, i, zero)
        store_row(dlog, i, zero)
        if p.reads:
            prefetch_read(p.z, z_at + (t - CHUNK) * p.z_token)
            prefetch_read(p.dy, dy_at + (t - CHUNK) * p.dy_token)
            z = load_part(p.z, z_at + t * p.z_token, left)
            dy = load_part(p.dy, dy_at + t * p.dy_token, left)
            open_ = sigmoid(z)
            store_row(y, i, skip * value)
            store_row(gate, i, z * open_)
            store_row(out, i, dy * z * open_)
            store_row(gate_slope, i, dy * open_ * (one + z * (one - open_)))

    for s in range(0, depth, STATES):
        rate, h = load_block(rates, s * CHANNELS), load_block(kept, s * CHANNELS)
        for t in range(n):
            i, j, k = t * CHANNELS, t * depth + s, t * _BLOCK
            decay = exp2(over_states(load_row(delta, i)) * rate)
            store_block(decays, k, decay)
            store_block(h_before, k, h)
            h = decay * h + over_states(load_row(drive, i)) * load_states(B, j)
            if p.reads:
                store_row(y, i, add_product(load_row(y, i), h, load_states(C, j)))
                j = j * CHANNELS
                store_block(dC, j, load_block(dC, j) + h * over_states(load_row(out, i)))

        sums = (slot * width + channel) * depth + s * CHANNELS
        grad, dA = load_block(grads, s * CHANNELS), over_states(zero)
        for t in range(n - 1, -1, -1):
            i, j, k = t * CHANNELS, t * depth + s, t * _BLOCK
            if p.reads:
                grad = grad + over_states(load_row(out, i)) * load_states(C, j)
            store_row(ddrive, i, add_product(load_row(ddrive, i), grad, load_states(B, j)))
            j = j * CHANNELS
            store_block(dB, j, load_block(dB, j) + grad * over_states(load_row(drive, i)))
            grad = grad * load_block(decays, k)
            dexponent = grad * load_block(h_before, k)
            store_row(dlog, i, add_product(load_row(dlog, i), dexponent, rate))
            dA = dA + dexponent * over_states(load_row(delta, i))
        store_block(grads, s * CHANNELS, grad)
        store_block(p.dA, sums, load_block(p.dA, sums) + dA)

    sums = slot * width + channel
    dD, ddt_bias = zero, zero
    grad_at = (batch * p.n_tokens + first) * p.d_inner + channel
    for t in range(n):
        i, j = t * CHANNELS, grad_at + t * p.d_inner
        prefetch_write(p.dx, j - CHUNK * p.d_inner)
        prefetch_write(p.ddt, j - CHUNK * p.d_inner)
        prefetch_write(p.dz, j - CHUNK * p.d_inner)
        value, direct = load_row(x, i), load_row(ddrive, i)
        ddt = (load_row(dlog, i) * ln2 + direct * value) * load_row(slope, i)
        ddt_bias = ddt_bias + ddt
        store_part(p.ddt, j, ddt, left)
        dx = direct * load_row(delta, i)
        if p.reads:
            dD = dD + load_row(out, i) * value
            dx = dx + load_row(out, i) * skip
            store_part(p.dz, j, load_row(gate_slope, i) * load_row(y, i), left)
            if p.gated != 0:
                store_part(p.gated, j, load_row(gate, i) * load_row(y, i), left)
        store_part(p.dx, j, dx, left)
    store_row(p.dD, sums, load_row(p.dD, sums) + dD)
    store_row(p.ddt_bias, sums, load_row(p.ddt_bias, sums) + ddt_bias)


@njit(**JIT)
def _give_sums(p, sums, n_tokens, target, index):
    """A chunk's dB or dC: the sum over the 16 channels that (token, depth, 16) holds."""
    d_state, depth = p.d_state, depth_of(p)
    for t in range(n_tokens):
        for n in range(d_state):
            store_float(target, index + t * d_state + n, sum_channels(load_row(sums, (t * depth + n) * CHANNELS)))


@njit(**JIT)
def _backward_item(p, item, slot, rates, grads, kept, B, C, rows, h_before, decays, dB, dC):
    batch, segment, first_channel, last_channel, first_token, last_token = _place(p, item)
    width, depth = width_of(p), depth_of(p)
    n_chunks, n_batch = (p.n_tokens + CHUNK - 1) // CHUNK, p.n_items // (p.n_segments * p.n_groups)
    group = item // p.n_segments % p.n_groups
    place = (batch * p.n_segments + segment) * p.d_state * width
    for channel in range(first_channel, last_channel, CHANNELS):
        take_states(p, p.end_grad, place, grads + _BYTES * depth * channel, channel)
    for first in range((last_token - 1) // CHUNK * CHUNK, first_token - 1, -CHUNK):
        n = min(last_token - first, CHUNK)
        take_projection(p, p.B, batch * p.B_batch + first * p.B_token, p.B_token, n, B)
        fill(dB, 0, n * depth * CHANNELS)
        if p.reads:
            take_projection(p, p.C, batch * p.C_batch + first * p.C_token, p.C_token, n, C)
            fill(dC, 0, n * depth * CHANNELS)
        checkpoint = (batch * n_chunks + first // CHUNK) * p.d_state * width
        for channel in range(first_channel, last_channel, CHANNELS):
            offset = _BYTES * depth * channel
            take_states(p, p.checkpoints, checkpoint, kept, channel)
            for state in range(p.d_state):
                prefetch_read(p.checkpoints, checkpoint + (state - p.d_state) * width + channel)
            backward_chunk(
                p, batch, first, n, channel, slot, kept, rates + offset, grads + offset, B, C, rows, h_before, decays,
                dB, dC,
            )  # fmt: skip
        target = ((group * n_batch + batch) * p.n_tokens + first) * p.d_state
        _give_sums(p, dB, n, p.dB, target)
        if p.reads:
            _give_sums(p, dC, n, p.dC, target)
    for channel in range(first_channel, last_channel, CHANNELS):
        give_states(p, grads + _BYTES * depth * channel, p.start_grad, place, channel)


def backward(pointer):
    """All tokens backwards from the checkpoints: every gradient, the weights' as one partial sum a slot."""
    mode = flush_tiny()
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    width, depth = width_of(p), depth_of(p)
    rates = p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0)
    grads = rates + _BYTES * depth * width
    kept = grads + _BYTES * depth * width
    rows = kept + _BYTES * depth * CHANNELS
    h_before = rows + _BYTES * CHUNK * CHANNELS * _BACKWARD_ROWS
    decays = h_before + _BYTES * CHUNK * _BLOCK
    dB = decays + _BYTES * CHUNK * _BLOCK
    dC = dB + _BYTES * CHUNK * depth * CHANNELS
    B = dC + _BYTES * CHUNK * depth * CHANNELS
    C = B + _BYTES * CHUNK * depth
    pack_rates(p, rates)
    while True:
        slot = fetch_add(counters, 1)
        if slot >= p.n_slots:
            break
        fill(p.dA, slot * width * depth, width * depth)
        fill(p.dD, slot * width, width)
        fill(p.ddt_bias, slot * width, width)
        for item in range(slot * p.n_items // p.n_slots, (slot + 1) * p.n_items // p.n_slots):
            _backward_item(p, item, slot, rates, grads, kept, B, C, rows, h_before, decays, dB, dC)
    restore_mode(mode)
