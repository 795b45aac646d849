"""A linear recurrence over a chunk of tokens by matrix products that stay in cache, both ways, inside numba kernels.

For every head, with a state of ``depth`` rows and the head's channels as columns (arXiv 2405.21060, section 6)::

    h = 2**a h + B x^T,    y = C h

Heads share B and C. A kernel fills the buffers of a `Chunk` and calls, in order, `run_up`, `added_states`,
`hand_on` (which waits for the chunk before, so that threads may share a row) and `outputs`; backwards `run_up`,
`added_gradients`, `hand_on` and `gradients`. Tokens are rounded up to a multiple of 16 by zeros in x, B, C and dy, and
so are a head's channels and the state's rows. Decays' running sums are kept in two parts: a difference of large ones is
then exact. Addresses are in bytes, strides in floats.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    exp2_row,
    fill,
    full_row,
    load_float,
    load_row,
    store_float,
    store_release,
    store_row,
    sum_channels,
    wait_for,
)
from ftmamba.ops.tiles import gemm, gemm_add, keep_lanes, load_long, transpose

ROWS = 32  # of a matrix of pairs that are computed together; what lies right of its diagonal is left out
_BYTES = 4
_ZERO = np.float32(0.0)

# Of (size, width) x, xs (times what is left at the end), y, dy, dys (times what has run), dx; (size, depth) B, C, dB,
# dC; (depth, width) state, added; (n_heads, size) high, low, grown, left, da, past. The others: work space.
Chunk = namedtuple(
    "Chunk",
    "size n_heads d_head depth width x xs y B C high low grown left state added turned pairs weights "
    "dy dys dx dB dC da past dstate part dpairs dweights column",
)


def chunk_floats(size, n_heads, d_head, depth, backward):
    """Floats of a chunk's buffers."""
    tokens, states, keys = size * n_heads * d_head, depth * n_heads * d_head, size * depth
    forward = (
        3 * tokens + 2 * keys + 4 * n_heads * size + 2 * states + max(size * depth, size * d_head, states) + 2 * size**2
    )
    return forward + backward * (
        3 * tokens + 2 * keys + 2 * n_heads * size + states + size * depth + 2 * size**2 + size
    )


@njit(**JIT)
def up(count, step):
    """The count rounded up to a multiple of the step."""
    return (count + step - 1) // step * step


@njit(**JIT)
def chunk_at(at, size, n_heads, d_head, depth):
    """The buffers from an address on."""
    width = n_heads * d_head
    tokens, keys = _BYTES * size * width, _BYTES * size * depth
    lines, states, pairs = _BYTES * n_heads * size, _BYTES * depth * width, _BYTES * size * size
    B = at + 3 * tokens
    high = B + 2 * keys
    state = high + 4 * lines
    turned = state + 2 * states
    first = turned + max(_BYTES * size * depth, _BYTES * size * d_head, states)
    dy = first + 2 * pairs
    dB = dy + 3 * tokens
    da = dB + 2 * keys
    dstate = da + 2 * lines
    part = dstate + states
    dpairs = part + _BYTES * size * depth
    return Chunk(
        size, n_heads, d_head, depth, width, at, at + tokens, at + 2 * tokens, B, B + keys, high,
        high + lines, high + 2 * lines, high + 3 * lines, state, state + states, turned, first, first + pairs, dy,
        dy + tokens, dy + 2 * tokens, dB, dB + keys, da, da + lines, dstate, part, dpairs, dpairs + pairs,
        dpairs + 2 * pairs,
    )  # fmt: skip


@njit(**JIT)
def place(p, item):
    """Row and step (chunks in order of work) of an item: ``n_lanes`` rows at a time, one chunk of each in turn."""
    n_chunks = (p.n_tokens + p.chunk - 1) // p.chunk
    first = item // (p.n_lanes * n_chunks) * p.n_lanes
    n_rows = min(p.n_lanes, p.n_rows - first)
    item -= first * n_chunks
    return first + item % n_rows, item // n_rows


@njit(**JIT)
def length_of(p, row):
    """Valid tokens of a row."""
    return p.n_tokens if p.lengths == 0 else min(max(load_long(p.lengths, row), 0), p.n_tokens)


@njit(**JIT)
def run_up(c, n, lanes):
    """From each token's decay in ``high`` the running sums, what has run at a token, what is left at the end."""
    for head in range(c.n_heads):
        at, total = head * c.size, 0.0
        for t in range(lanes):
            if t < n:
                total += load_float(c.high, at + t)
            store_float(c.high, at + t, np.float32(total))
            store_float(c.low, at + t, np.float32(total - np.float32(total)))
        high, low = full_row(load_float(c.high, at + lanes - 1)), full_row(load_float(c.low, at + lanes - 1))
        for t in range(at, at + lanes, CHANNELS):
            store_row(c.grown, t, exp2_row(load_row(c.high, t)))
            store_row(c.left, t, exp2_row((high - load_row(c.high, t)) + (low - load_row(c.low, t))))


@njit(**JIT)
def times(c, source, factors, target, lanes):
    """Each head's channels of a token times its factor."""
    for t in range(lanes):
        for head in range(c.n_heads):
            factor = full_row(load_float(factors, head * c.size + t))
            for i in range(t * c.width + head * c.d_head, t * c.width + (head + 1) * c.d_head, CHANNELS):
                store_row(target, i, load_row(source, i) * factor)


@njit(**JIT)
def states_of(c, keys, rows, lanes):
    """``added = keys^T rows``."""
    gemm(keys, 1, c.depth, lanes, rows, c.width, c.added, c.width, c.depth, c.width, 0, 0)


@njit(**JIT)
def read_states(c, keys, state, rows, lanes):
    """``rows = keys state``."""
    gemm(keys, c.depth, 1, c.depth, state, c.width, rows, c.width, lanes, c.width, 0, 0)


@njit(**JIT)
def added_states(c, lanes):
    """What the chunk adds to the states, before those at its start are known."""
    times(c, c.x, c.left, c.xs, lanes)
    states_of(c, c.B, c.xs, lanes)


@njit(**JIT)
def added_gradients(c, lanes):
    """What the chunk adds to the states' gradients, before those at its end are known."""
    times(c, c.dy, c.grown, c.dys, lanes)
    states_of(c, c.C, c.dys, lanes)


@njit(**JIT)
def hand_on(c, lanes, states, kept, progress, row, step, ends):
    """The states (their gradients) that the chunk starts from, and on to the next with what it keeps and adds.

    The first step finds zeros, of which nothing is kept; where the row ``ends`` nothing is handed on.
    """
    wait_for(progress, row, step)
    for depth in range(c.depth):
        for head in range(c.n_heads):
            share = full_row(load_float(c.grown, head * c.size + lanes - 1))
            for i in range(depth * c.width + head * c.d_head, depth * c.width + (head + 1) * c.d_head, CHANNELS):
                if step > 0:
                    value = load_row(states, i)
                    store_row(kept, i, value)
                    if not ends:
                        store_row(states, i, share * value + load_row(c.added, i))
                elif not ends:
                    store_row(states, i, load_row(c.added, i))
    store_release(progress, row, step + 1)


@njit(**JIT)
def pairs_of(c, C, lanes):
    """``C B^T`` up to the diagonal."""
    transpose(c.B, c.depth, lanes, c.depth, c.turned, c.size)
    for i in range(0, lanes, ROWS):
        n, at = min(ROWS, lanes - i), _BYTES * i
        gemm(
            C + at * c.depth, c.depth, 1, c.depth, c.turned, c.size, c.pairs + at * c.size, c.size, n, i + n, 0, 0
        )  # fmt: skip


@njit(**JIT)
def share_of(c, head, t, column):
    """What is left at a token of those from ``column`` on, none of later ones."""
    at = head * c.size
    high = full_row(load_float(c.high, at + t)) - load_row(c.high, at + column)
    low = full_row(load_float(c.low, at + t)) - load_row(c.low, at + column)
    return keep_lanes(exp2_row(high + low), full_row(_ZERO), 0, t + 1 - column)


@njit(**JIT)
def outputs(c, lanes, state, starts):
    """y; where the row ``starts`` with the chunk, its state is not looked at."""
    if starts:
        fill(c.y, 0, lanes * c.width)
    else:
        read_states(c, c.C, state, c.y, lanes)
        times(c, c.y, c.grown, c.y, lanes)
    pairs_of(c, c.C, lanes)
    for head in range(c.n_heads):
        at = _BYTES * head * c.d_head
        for i in range(0, lanes, ROWS):
            n = min(ROWS, lanes - i)
            for t in range(i, i + n):
                for column in range(0, i + n, CHANNELS):
                    pair = load_row(c.pairs, t * c.size + column)
                    store_row(c.weights, t * c.size + column, pair * share_of(c, head, t, column))
            gemm_add(
                c.weights + _BYTES * i * c.size, c.size, 1, i + n, c.x + at, c.width,
                c.y + _BYTES * i * c.width + at, c.width, n, c.d_head, 0, 0,
            )  # fmt: skip


@njit(**JIT)
def gradients(c, lanes, state, dstate, starts, ends):
    """dx, dB, dC and da (of the natural logarithm of what is kept), from dy and dys, and dstate where the row goes on.

    ``starts`` and ``ends`` say whether the chunk is the row's first and last.
    """
    if ends:
        fill(c.dx, 0, lanes * c.width)
        fill(c.dB, 0, lanes * c.depth)
    else:
        _through_last_states(c, lanes, dstate)
    for head in range(c.n_heads):
        _past(c, head, lanes, state, dstate, starts, ends)
    if starts:
        fill(c.dC, 0, lanes * c.depth)
        fill(c.da, 0, c.n_heads * c.size)
    else:
        _through_first_states(c, lanes, state)
    pairs_of(c, c.C, lanes)
    fill(c.dpairs, 0, lanes * c.size)
    for head in range(c.n_heads):
        _through_pairs(c, head, lanes)
    _give_pairs(c, lanes)
    for line in range(0, c.n_heads * c.size, c.size):
        total = 0.0
        for t in range(line + lanes - 1, line - 1, -1):
            total += load_float(c.da, t)
            store_float(c.da, t, np.float32(total + load_float(c.past, t)))


@njit(**JIT)
def _through_last_states(c, lanes, dstate):
    """To dx and dB from the states at the chunk's end."""
    times(c, c.x, c.left, c.xs, lanes)
    read_states(c, c.B, dstate, c.dx, lanes)
    times(c, c.dx, c.left, c.dx, lanes)
    transpose(dstate, c.width, c.depth, c.width, c.turned, c.depth)
    gemm(c.xs, c.width, 1, c.width, c.turned, c.depth, c.dB, c.depth, lanes, c.depth, 0, 0)


@njit(**JIT)
def _past(c, head, lanes, state, dstate, starts, ends):
    """What a token's decay does, to the states at the end, of what was there before it."""
    total = 0.0
    if not (starts or ends):
        carried = full_row(_ZERO)
        for row in range(0, c.depth * c.width, c.width):
            for i in range(row + head * c.d_head, row + (head + 1) * c.d_head, CHANNELS):
                carried = carried + load_row(state, i) * load_row(dstate, i)
        total += load_float(c.grown, head * c.size + lanes - 1) * sum_channels(carried)
    for t in range(lanes):
        store_float(c.past, head * c.size + t, np.float32(total))
        added = full_row(_ZERO)
        for i in range(t * c.width + head * c.d_head, t * c.width + (head + 1) * c.d_head, CHANNELS):
            added = added + load_row(c.x, i) * load_row(c.dx, i)
        total += sum_channels(added)


@njit(**JIT)
def _through_first_states(c, lanes, state):
    """To dC and da from what is read of the states at the chunk's start."""
    transpose(state, c.width, c.depth, c.width, c.turned, c.depth)
    for head in range(c.n_heads):
        at = _BYTES * head * c.d_head
        gemm(
            c.dys + at, c.width, 1, c.d_head, c.turned + at * c.depth, c.depth, c.part, c.depth, lanes, c.depth, 0, 0
        )  # fmt: skip
        for t in range(lanes):
            total = full_row(_ZERO)
            for i in range(0, c.depth, CHANNELS):
                key = t * c.depth + i
                value = load_row(c.part, key)
                total = total + value * load_row(c.C, key)
                store_row(c.dC, key, value if head == 0 else value + load_row(c.dC, key))
            store_float(c.da, head * c.size + t, sum_channels(total))


@njit(**JIT)
def _through_pairs(c, head, lanes):
    """To dx, da and the gradient of the pairs from the tokens of the chunk."""
    at, line = _BYTES * head * c.d_head, head * c.size
    transpose(c.x + at, c.width, lanes, c.d_head, c.turned, c.size)
    fill(c.column, 0, lanes)
    for i in range(0, lanes, ROWS):
        n = min(ROWS, lanes - i)
        gemm(
            c.dy + at + _BYTES * i * c.width, c.width, 1, c.d_head, c.turned, c.size,
            c.dweights + _BYTES * i * c.size, c.size, n, i + n, 0, 0,
        )  # fmt: skip
        for t in range(i, i + n):
            total = full_row(_ZERO)
            for column in range(0, i + n, CHANNELS):
                pair = t * c.size + column
                share = share_of(c, head, t, column)
                weight, slope = share * load_row(c.pairs, pair), load_row(c.dweights, pair)
                store_row(c.weights, pair, weight)
                store_row(c.dpairs, pair, load_row(c.dpairs, pair) + share * slope)
                earlier = keep_lanes(weight * slope, full_row(_ZERO), 0, t - column)
                total = total + earlier
                store_row(c.column, column, load_row(c.column, column) + earlier)
            store_float(c.da, line + t, load_float(c.da, line + t) + sum_channels(total))
    for t in range(0, lanes, CHANNELS):
        store_row(c.da, line + t, load_row(c.da, line + t) - load_row(c.column, t))
    for i in range(0, lanes, ROWS):
        gemm_add(
            c.weights + _BYTES * i * (c.size + 1), 1, c.size, lanes - i, c.dy + at + _BYTES * i * c.width, c.width,
            c.dx + at + _BYTES * i * c.width, c.width, min(ROWS, lanes - i), c.d_head, 0, 0,
        )  # fmt: skip


@njit(**JIT)
def _give_pairs(c, lanes):
    """To dB and dC from the gradient of the pairs."""
    for i in range(0, lanes, ROWS):
        n, row, pairs = min(ROWS, lanes - i), _BYTES * i * c.depth, c.dpairs + _BYTES * i * c.size
        gemm_add(pairs, c.size, 1, i + n, c.B, c.depth, c.dC + row, c.depth, n, c.depth, 0, 0)
        gemm_add(
            pairs + _BYTES * i, 1, c.size, lanes - i, c.C + row, c.depth, c.dB + row, c.depth, n, c.depth, 0, 0
        )  # fmt: skip
