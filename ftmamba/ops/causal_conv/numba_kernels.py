"""The filter's inner loops, compiled by numba: an item is one row of the batch, `STRETCH` tokens of it.

Tokens are read in order, all channels of one before the next, as they lie in memory.

Buffers are float32 and passed by address. ``(batch, token)`` strides go with tensors that may be slices; weights are
(d_conv, d_inner), so that a tap's weights of adjacent channels are adjacent.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import numpy as np
from numba import njit

from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    enter,
    fetch_add,
    full_row,
    load_part,
    load_row,
    prefetch_read,
    prefetch_write,
    restore_mode,
    sigmoid,
    store_part,
    store_row,
)

STRETCH = 32
_AHEAD = 8  # tokens between asking for memory and using it

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

_COMMON = ["n_tokens", "d_inner", "d_conv", "n_items", "x", "x_batch", "x_token", "weight", "bias"]
FORWARD = [*_COMMON, "y"]
BACKWARD = [*_COMMON, "dy", "dy_batch", "dy_token", "dx", "partial", "n_slots", "scratch", "scratch_stride"]


def padded_width(d_inner):
    """Channels rounded up to whole rows."""
    return -(-d_inner // CHANNELS) * CHANNELS


def backward_scratch(d_inner, d_conv):
    """Floats of scratch a thread needs: the gradient before SiLU of a stretch and the tokens it reaches."""
    return (STRETCH + d_conv - 1) * padded_width(d_inner)


@njit(forceinline=True, **JIT)
def _filtered(p, d_conv, x_at, t, channel, left):
    """The convolution before SiLU at token t, 16 channels from ``channel`` on; x_at is token t's."""
    value = load_part(p.bias, channel, left)
    for k in range(max(0, d_conv - 1 - t), d_conv):
        tap = load_part(p.x, x_at + (k - (d_conv - 1)) * p.x_token, left)
        value = value + tap * load_part(p.weight, k * p.d_inner + channel, left)
    return value


@njit(forceinline=True, **JIT)
def _forward_item(p, item, d_conv):
    n_stretches = (p.n_tokens + STRETCH - 1) // STRETCH
    batch, first = item // n_stretches, item % n_stretches * STRETCH
    for t in range(first, min(p.n_tokens, first + STRETCH)):
        x_at, y_at = batch * p.x_batch + t * p.x_token, (batch * p.n_tokens + t) * p.d_inner
        for channel in range(0, p.d_inner, CHANNELS):
            left = p.d_inner - channel
            prefetch_read(p.x, x_at + _AHEAD * p.x_token + channel)
            prefetch_write(p.y, y_at + _AHEAD * p.d_inner + channel)
            value = _filtered(p, d_conv, x_at + channel, t, channel, left)
            store_part(p.y, y_at + channel, value * sigmoid(value), left)


def forward(pointer):
    """y for all tokens."""
    mode, p, counters = enter(pointer)
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        if p.d_conv == 4:  # the usual count, unrolled
            _forward_item(p, item, 4)
        else:
            _forward_item(p, item, p.d_conv)
    restore_mode(mode)


@njit(forceinline=True, **JIT)
def _backward_item(p, item, slot, d_conv, grads):
    """dx of a stretch. Its tokens reach d_conv - 1 further ones, whose gradient before SiLU is computed too."""
    width, one = (p.d_inner + CHANNELS - 1) // CHANNELS * CHANNELS, full_row(_ONE)
    n_stretches = (p.n_tokens + STRETCH - 1) // STRETCH
    batch, first = item // n_stretches, item % n_stretches * STRETCH
    last = min(p.n_tokens, first + STRETCH)
    reached = min(p.n_tokens, last + d_conv - 1)
    for t in range(first, reached):
        x_at, dy_at = batch * p.x_batch + t * p.x_token, batch * p.dy_batch + t * p.dy_token
        for channel in range(0, p.d_inner, CHANNELS):
            left = p.d_inner - channel
            prefetch_read(p.x, x_at + _AHEAD * p.x_token + channel)
            prefetch_read(p.dy, dy_at + _AHEAD * p.dy_token + channel)
            prefetch_write(p.dx, (batch * p.n_tokens + t) * p.d_inner + channel)
            value = _filtered(p, d_conv, x_at + channel, t, channel, left)
            open_ = sigmoid(value)
            slope = open_ * (one + value * (one - open_))
            store_row(grads, (t - first) * width + channel, load_part(p.dy, dy_at + channel, left) * slope)
    for t in range(first, last):
        dx_at = (batch * p.n_tokens + t) * p.d_inner
        for channel in range(0, p.d_inner, CHANNELS):
            left = p.d_inner - channel
            value = full_row(_ZERO)
            for ahead in range(min(d_conv, p.n_tokens - t)):
                tap = load_part(p.weight, (d_conv - 1 - ahead) * p.d_inner + channel, left)
                value = value + load_row(grads, (t + ahead - first) * width + channel) * tap
            store_part(p.dx, dx_at + channel, value, left)
    for channel in range(0, p.d_inner, CHANNELS):
        left = p.d_inner - channel
        sums, x_at = slot * (d_conv + 1) * p.d_inner + channel, batch * p.x_batch + channel
        for k in range(d_conv):
            back = d_conv - 1 - k
            total = full_row(_ZERO)
            for t in range(max(first, back), last):
                tap = load_part(p.x, x_at + (t - back) * p.x_token, left)
                total = total + load_row(grads, (t - first) * width + channel) * tap
            before = load_part(p.partial, sums + k * p.d_inner, left)
            store_part(p.partial, sums + k * p.d_inner, before + total, left)
        total = full_row(_ZERO)
        for t in range(first, last):
            total = total + load_row(grads, (t - first) * width + channel)
        before = load_part(p.partial, sums + d_conv * p.d_inner, left)
        store_part(p.partial, sums + d_conv * p.d_inner, before + total, left)


def backward(pointer):
    """dx for all tokens; the gradients of weight and bias as one partial sum a slot."""
    mode, p, counters = enter(pointer)
    grads = p.scratch + 4 * p.scratch_stride * fetch_add(counters, 0)
    size = (p.d_conv + 1) * p.d_inner
    while True:
        slot = fetch_add(counters, 1)
        if slot >= p.n_slots:
            break
        for i in range(0, size, CHANNELS):
            store_part(p.partial, slot * size + i, full_row(_ZERO), size - i)
        for item in range(slot * p.n_items // p.n_slots, (slot + 1) * p.n_items // p.n_slots):
            if p.d_conv == 4:
                _backward_item(p, item, slot, 4, grads)
            else:
                _backward_item(p, item, slot, p.d_conv, grads)
    restore_mode(mode)
