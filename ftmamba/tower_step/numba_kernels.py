"""A tower's step in one kernel: threads share users, and each takes a tile of them from their events to the head.

Weights stand as (inputs, outputs), so that a tile is a few small products; a layer is a record of int64, addresses of
weights and of states among them (`LAYER`), the head one more such record. States are read where they lie in a pool, and
are written there, but not by a peek. A Mamba layer's state is (user, channel, state): a row of vectors holds the states
of one channel. Attention goes through a cache a chunk of keys at a time with the softmax's running maximum.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import math

import numpy as np
from numba import njit, types

from ftmamba.ops.gemm import gemm
from ftmamba.ops.simd import (
    CHANNELS,
    INT,
    JIT,
    LONG,
    constant,
    element,
    emits,
    enter,
    exp2_row,
    fetch_add,
    fill,
    full_row,
    load,
    load_acquire,
    load_float,
    load_row,
    multiply_add,
    power_of_two,
    prefetch_read,
    restore_mode,
    row,
    sigmoid,
    softplus_and_slope,
    splat,
    store,
    store_float,
    store_part,
    store_release,
    store_row,
    sum_channels,
    wait_for,
    where_negative,
)
from ftmamba.ops.tiles import keep_lanes, larger, load_long, max_channels

TILE = 16  # users that a thread takes at a time
KEYS = 64  # keys of a chunk
BUFFERS = 7
EPS = np.float32(1e-5)  # of every norm
DAY = math.log1p(86_400)
GO, REFUSED = 1, 2  # verdicts on a call

STEP = (
    "n_items", "n_users", "tile", "keep", "who", "item", "numeric", "categorical", "time", "out", "scratch",
    "scratch_stride",  # a call's own down to here, in the order in which it gives them
    "pool", "n_events", "last_time", "d_model", "n_layers", "d_out", "width", "n_numeric", "n_categorical",
    "table_rows", "first_item", "item_table", "numeric_weight", "numeric_bias", "category_table", "first_rows",
    "last_rows", "n_positions", "position_table", "cls", "verdict",
)  # fmt: skip
LAYER = (
    "is_attention", "norm_weight", "norm_bias", "sum_weight", "sum_bias", "in_weight", "in_bias", "in_width",
    "out_weight", "out_bias", "out_width", "ffn_weight", "ffn_bias", "expand", "expand_bias", "gated", "hidden",
    "contract", "contract_bias", "conv_weight", "conv_bias", "d_conv", "d_inner", "d_state", "x_proj", "x_width",
    "rank", "B_column", "dt_proj", "dt_bias", "A", "D", "n_heads", "n_rows", "first", "second", "n_seen", "room",
    "grows",
)  # fmt: skip
(
    IS_ATTENTION, NORM_WEIGHT, NORM_BIAS, SUM_WEIGHT, SUM_BIAS, IN_WEIGHT, IN_BIAS, IN_WIDTH,
    OUT_WEIGHT, OUT_BIAS, OUT_WIDTH, FFN_WEIGHT, FFN_BIAS, EXPAND, EXPAND_BIAS, GATED, HIDDEN,
    CONTRACT, CONTRACT_BIAS, CONV_WEIGHT, CONV_BIAS, D_CONV, D_INNER, D_STATE, X_PROJ, X_WIDTH,
    RANK, B_COLUMN, DT_PROJ, DT_BIAS, RATES, SKIP, N_HEADS, N_ROWS, FIRST, SECOND, N_SEEN, ROOM, GROWS,
) = range(len(LAYER))  # fmt: skip
_SIDE = range(CHANNELS)
_BYTES, _LONGS = 4, 8
_ZERO, _ONE, _LOWEST = np.float32(0.0), np.float32(1.0), np.float32(-1e30)


def attention_floats(d_model: int, n_heads: int) -> int:
    """Floats of scratch that a thread needs for attention: masked queries, sums, logits, maxima and weights."""
    n_rows = n_heads * head_rows(d_model // n_heads)
    return 2 * n_rows * CHANNELS + n_heads * (KEYS + 2 * CHANNELS)


def head_rows(d_head: int) -> int:
    """Rows of 16 channels that a head may touch."""
    return -(-d_head // CHANNELS) + (d_head % CHANNELS > 0)


def _sum_each(builder, vector, first=0, count=CHANNELS):
    """One row from 16, lane j of it the sum of ``vector(j)``."""
    if count == 1:
        return vector(first)
    half = count // 2
    pair = [_sum_each(builder, vector, first + part * half, half) for part in (0, 1)]
    even, odd = (
        builder.shuffle_vector(*pair, constant(INT, CHANNELS, [2 * j + part for j in _SIDE])) for part in (0, 1)
    )
    return builder.fadd(even, odd)


def _make_scan(keep):
    @emits(row, *[types.int64] * 5, row, row)
    def scan(builder, states, rates, stride, dt, drive, B, C):
        """One step of 16 states of each of 16 channels; the channels' outputs."""

        def channel(j):
            at = builder.mul(stride, LONG(j))
            scalars = (builder.load(element(builder, each, LONG(j))) for each in (dt, drive))
            step, driven = (splat(builder, each, CHANNELS) for each in scalars)
            decay = power_of_two(builder, builder.fmul(step, load(builder, rates, at, CHANNELS)))
            h = multiply_add(builder, decay, load(builder, states, at, CHANNELS), builder.fmul(driven, B))
            if keep:
                store(builder, states, at, h)
            return builder.fmul(h, C)

        return _sum_each(builder, channel)

    return scan


_scan_keep, _scan_peek = _make_scan(True), _make_scan(False)


@emits(row, row, types.int64, types.int64)
def _dots(builder, q, keys, stride):
    """Products of a row with 16 keys."""
    return _sum_each(builder, lambda j: builder.fmul(q, load(builder, keys, builder.mul(stride, LONG(j)), CHANNELS)))


@njit(**JIT)
def _get(layer, field):
    return load_long(layer, field)


@njit(**JIT)
def _user(p, i):
    return load_long(p.who, i) if p.who != 0 else i


@njit(**JIT)
def _norm(x, n, d, weight, bias, out):
    """Layer norm of n rows; a copy where there is no weight."""
    for i in range(n):
        total, squares = full_row(_ZERO), full_row(_ZERO)
        for c in range(i * d, (i + 1) * d, CHANNELS):
            total = total + load_row(x, c)
        mean = full_row(sum_channels(total) / np.float32(d))
        for c in range(i * d, (i + 1) * d, CHANNELS):
            off = load_row(x, c) - mean
            squares = squares + off * off
        scale = full_row(_ONE / np.sqrt(sum_channels(squares) / np.float32(d) + EPS))
        for c in range(0, d, CHANNELS):
            value = load_row(x, i * d + c)
            if weight != 0:
                value = (value - mean) * scale * load_row(weight, c) + load_row(bias, c)
            store_row(out, i * d + c, value)


@njit(**JIT)
def _linear(x, n, d, weight, bias, out, width):
    """``x weight + bias`` of n rows of a width that is a multiple of 16."""
    for i in range(n if bias != 0 else 0):
        for c in range(0, width, CHANNELS):
            store_row(out, i * width + c, load_row(bias, c))
    gemm(x, d, 1, weight, width, out, width, n, d, width, bias != 0)


@njit(**JIT)
def _relu(x):
    return where_negative(x, full_row(_ZERO), x)


@njit(**JIT)
def _feed_forward(layer, x, n, d, added, wide):
    """``added`` plus the layer's feed-forward layer of x, in place of ``added``."""
    hidden, gated = _get(layer, HIDDEN), _get(layer, GATED)
    width = (1 + gated) * hidden
    _linear(x, n, d, _get(layer, EXPAND), _get(layer, EXPAND_BIAS), wide, width)
    for i in range(n):
        for c in range(i * width, i * width + hidden, CHANNELS):
            value = load_row(wide, c)
            store_row(wide, c, value * _relu(load_row(wide, c + hidden)) if gated else _relu(value))
    gemm(wide, width, 1, _get(layer, CONTRACT), d, added, d, n, hidden, d, True)
    _add_bias(added, n, d, _get(layer, CONTRACT_BIAS))


@njit(**JIT)
def _add_bias(x, n, d, bias):
    for i in range(n):
        for c in range(0, d, CHANNELS):
            store_row(x, i * d + c, load_row(x, i * d + c) + load_row(bias, c))


@njit(**JIT)
def _convolve(p, layer, first, n, wide, v):
    d_inner, before, width = _get(layer, D_INNER), _get(layer, D_CONV) - 1, _get(layer, IN_WIDTH)
    weight, bias = _get(layer, CONV_WEIGHT), _get(layer, CONV_BIAS)
    for i in range(n):
        seen = _get(layer, FIRST) + _BYTES * _user(p, first + i) * before * d_inner
        for c in range(0, d_inner, CHANNELS):
            u = load_row(wide, i * width + c)
            value = load_row(bias, c) + u * load_row(weight, before * d_inner + c)
            for k in range(before):
                tap = load_row(seen, k * d_inner + c)
                value = value + tap * load_row(weight, k * d_inner + c)
                if p.keep and k > 0:
                    store_row(seen, (k - 1) * d_inner + c, tap)
            if p.keep and before > 0:
                store_row(seen, (before - 1) * d_inner + c, u)
            store_row(v, i * d_inner + c, value * sigmoid(value))


@njit(**JIT)
def _mamba(p, layer, first, n, normed, added, wide, v, projected, dt, drive):
    """``added`` plus a Mamba layer of the normed tokens of n users."""
    d, d_inner, d_state = p.d_model, _get(layer, D_INNER), _get(layer, D_STATE)
    width, x_width, B_column = _get(layer, IN_WIDTH), _get(layer, X_WIDTH), _get(layer, B_COLUMN)
    gemm(normed, d, 1, _get(layer, IN_WEIGHT), width, wide, width, n, d, width, False)
    _convolve(p, layer, first, n, wide, v)
    gemm(v, d_inner, 1, _get(layer, X_PROJ), x_width, projected, x_width, n, d_inner, x_width, False)
    gemm(projected, x_width, 1, _get(layer, DT_PROJ), d_inner, dt, d_inner, n, _get(layer, RANK), d_inner, False)
    dt_bias, A, D = _get(layer, DT_BIAS), _get(layer, RATES), _get(layer, SKIP)
    for i in range(n):
        states = _get(layer, SECOND) + _BYTES * _user(p, first + i) * d_inner * d_state
        for c in range(0, d_inner, CHANNELS):
            at = i * d_inner + c
            step, _ = softplus_and_slope(load_row(dt, at) + load_row(dt_bias, c))
            u = load_row(v, at)
            store_row(dt, at, step)
            store_row(drive, at, step * u)
            y = load_row(D, c) * u
            for s in range(0, d_state, CHANNELS):
                B = load_row(projected, i * x_width + B_column + s)
                C = load_row(projected, i * x_width + B_column + d_state + s)
                h, rates = states + _BYTES * (c * d_state + s), A + _BYTES * (c * d_state + s)
                if p.keep:
                    y = y + _scan_keep(h, rates, d_state, dt + _BYTES * at, drive + _BYTES * at, B, C)
                else:
                    y = y + _scan_peek(h, rates, d_state, dt + _BYTES * at, drive + _BYTES * at, B, C)
            z = load_row(wide, i * width + d_inner + c)
            store_row(v, at, y * z * sigmoid(z))
    gemm(v, d_inner, 1, _get(layer, OUT_WEIGHT), d, added, d, n, d_inner, d, True)


@njit(**JIT)
def _attend(q, sums, tops, logits, k, v, n_keys, d, n_heads, n_rows):
    """Take keys and values, rows of d channels, into the heads' weighted sums.

    ``tops`` holds a row of each head's largest logit and one of its sums of weights; logits are those of base 2.
    """
    d_head = d // n_heads
    for first in range(0, n_keys, KEYS):
        n = min(n_keys - first, KEYS)
        for i in range(0, n * d if first + KEYS < n_keys else 0, CHANNELS):
            prefetch_read(k, (first + KEYS) * d + i)
            prefetch_read(v, (first + KEYS) * d + i)
        for head in range(n_heads):
            lead = head * d_head // CHANNELS
            rows = (head * d_head + d_head - 1) // CHANNELS + 1 - lead
            chunk = first * d + lead * CHANNELS
            top = load_row(tops, 2 * head * CHANNELS)
            best, whole = top, n // CHANNELS * CHANNELS
            for key in range(0, whole, CHANNELS):
                logit = full_row(_ZERO)
                for r in range(rows):
                    at = k + _BYTES * (chunk + key * d + r * CHANNELS)
                    logit = logit + _dots(load_row(q, (head * n_rows + r) * CHANNELS), at, d)
                store_row(logits, key, logit)
                best = larger(best, logit)
            if whole < n:
                store_row(logits, whole, full_row(_LOWEST))
                for key in range(whole, n):
                    logit = full_row(_ZERO)
                    for r in range(rows):
                        channels = load_row(k, chunk + key * d + r * CHANNELS)
                        logit = logit + load_row(q, (head * n_rows + r) * CHANNELS) * channels
                    store_float(logits, key, sum_channels(logit))
                best = larger(best, load_row(logits, whole))
            best = full_row(max_channels(best))
            scale = exp2_row(top - best)
            total = load_row(tops, (2 * head + 1) * CHANNELS) * scale
            for key in range(0, n, CHANNELS):
                weights = exp2_row(load_row(logits, key) - best)
                store_row(logits, key, weights)
                total = total + weights
            store_row(tops, 2 * head * CHANNELS, best)
            store_row(tops, (2 * head + 1) * CHANNELS, total)
            for r in range(rows):
                at, place = (head * n_rows + r) * CHANNELS, chunk + r * CHANNELS
                a, b, fours = scale * load_row(sums, at), full_row(_ZERO), n // 4 * 4
                c, e = full_row(_ZERO), full_row(_ZERO)
                for key in range(0, fours, 4):
                    a = a + full_row(load_float(logits, key)) * load_row(v, place + key * d)
                    b = b + full_row(load_float(logits, key + 1)) * load_row(v, place + (key + 1) * d)
                    c = c + full_row(load_float(logits, key + 2)) * load_row(v, place + (key + 2) * d)
                    e = e + full_row(load_float(logits, key + 3)) * load_row(v, place + (key + 3) * d)
                for key in range(fours, n):
                    a = a + full_row(load_float(logits, key)) * load_row(v, place + key * d)
                store_row(sums, at, (a + b) + (c + e))


@njit(**JIT)
def _attention(p, layer, first, n, normed, added, wide, mixed, q):
    """``added`` plus causal attention of the normed tokens of n users to their caches and themselves."""
    d, n_heads, n_rows, room = p.d_model, _get(layer, N_HEADS), _get(layer, N_ROWS), _get(layer, ROOM)
    d_head, width, zero = d // n_heads, _get(layer, IN_WIDTH), full_row(_ZERO)
    sums = q + _BYTES * n_heads * n_rows * CHANNELS
    tops = sums + _BYTES * n_heads * n_rows * CHANNELS
    logits = tops + _BYTES * 2 * n_heads * CHANNELS
    _linear(normed, n, d, _get(layer, IN_WEIGHT), _get(layer, IN_BIAS), wide, width)
    for i in range(n):
        user, own = _user(p, first + i), wide + _BYTES * i * width
        n_seen = load_long(_get(layer, N_SEEN), user)
        at, n_keys = n_seen if _get(layer, GROWS) else n_seen % room, min(n_seen, room)
        cache = _BYTES * user * room * d
        k, v = _get(layer, FIRST) + cache, _get(layer, SECOND) + cache
        fill(sums, 0, n_heads * n_rows * CHANNELS)
        for head in range(n_heads):
            for r in range(n_rows):
                channel = (head * d_head // CHANNELS + r) * CHANNELS
                if channel < d:
                    inside = keep_lanes(
                        load_row(own, channel), zero, head * d_head - channel, (head + 1) * d_head - channel
                    )
                    store_row(q, (head * n_rows + r) * CHANNELS, inside)
            store_row(tops, 2 * head * CHANNELS, full_row(_LOWEST))
            store_row(tops, (2 * head + 1) * CHANNELS, zero)
        _attend(q, sums, tops, logits, k, v, min(at, n_keys), d, n_heads, n_rows)
        later = _BYTES * (at + 1) * d
        _attend(q, sums, tops, logits, k + later, v + later, n_keys - at - 1, d, n_heads, n_rows)
        _attend(q, sums, tops, logits, own + _BYTES * d, own + _BYTES * 2 * d, 1, d, n_heads, n_rows)
        fill(mixed, i * d, d)
        for head in range(n_heads):
            scale = full_row(_ONE / sum_channels(load_row(tops, (2 * head + 1) * CHANNELS)))
            for r in range(n_rows):
                channel = (head * d_head // CHANNELS + r) * CHANNELS
                if channel < min((head + 1) * d_head, d):
                    before = load_row(mixed, i * d + channel)
                    value = scale * load_row(sums, (head * n_rows + r) * CHANNELS)
                    low, high = head * d_head - channel, (head + 1) * d_head - channel
                    store_row(mixed, i * d + channel, keep_lanes(value, before, low, high))
        if p.keep:
            for c in range(0, d, CHANNELS):
                store_row(k, at * d + c, load_row(own, d + c))
                store_row(v, at * d + c, load_row(own, 2 * d + c))
            store_release(_get(layer, N_SEEN), user, n_seen + 1)
    gemm(mixed, d, 1, _get(layer, OUT_WEIGHT), d, added, d, n, d, d, True)
    _add_bias(added, n, d, _get(layer, OUT_BIAS))


@njit(**JIT)
def _token(p, i, x):
    """The token of event i, of [CLS] where there is none."""
    d, user = p.d_model, _user(p, i)
    if p.item == 0:
        for c in range(0, d, CHANNELS):
            store_row(x, c, load_row(p.cls, c))
        return
    n_events, gap = load_long(p.n_events, user), 0
    if n_events > 0:
        gap = max(load_long(p.time, i) - load_long(p.last_time, user), 0)
    numbers = full_row(np.float32(math.log1p(gap) / DAY))
    item = p.item_table + _BYTES * (p.first_item + load_long(p.item, i)) * d
    for c in range(0, d, CHANNELS):
        value = load_row(p.numeric_bias, c) + numbers * load_row(p.numeric_weight, c) + load_row(item, c)
        for j in range(p.n_numeric):
            number = full_row(load_float(p.numeric, i * p.n_numeric + j))
            value = value + number * load_row(p.numeric_weight, (j + 1) * d + c)
        for j in range(p.n_categorical):
            at = load_long(p.first_rows, j) + load_long(p.categorical, i * p.n_categorical + j)
            value = value + load_row(p.category_table, at * d + c)
        if p.n_positions > 0:
            value = value + load_row(p.position_table, n_events * d + c)
        store_row(x, c, value)


@njit(**JIT)
def _block(p, layer, first, n, x, normed, b, size, more):
    """A block of the tower, in place of x."""
    d = p.d_model
    post = _get(layer, SUM_WEIGHT) != 0
    _norm(x, n, d, _get(layer, NORM_WEIGHT), _get(layer, NORM_BIAS), normed)
    if post:
        _norm(normed, n, d, 0, 0, x)
    if _get(layer, IS_ATTENTION):
        _attention(p, layer, first, n, normed, x, b, b + size, more)
    else:
        _mamba(p, layer, first, n, normed, x, b, b + size, b + 2 * size, b + 3 * size, b + 4 * size)
    if post:
        _norm(x, n, d, _get(layer, SUM_WEIGHT), _get(layer, SUM_BIAS), x)
    if _get(layer, EXPAND) != 0:
        if post:
            _norm(x, n, d, 0, 0, normed)
            _feed_forward(layer, normed, n, d, x, b)
            _norm(x, n, d, _get(layer, FFN_WEIGHT), _get(layer, FFN_BIAS), x)
        else:
            _norm(x, n, d, _get(layer, FFN_WEIGHT), _get(layer, FFN_BIAS), normed)
            _feed_forward(layer, normed, n, d, x, b)


@njit(**JIT)
def _head(p, layer, first, n, x, normed, b):
    d, width = p.d_model, _get(layer, OUT_WIDTH)
    if _get(layer, EXPAND) != 0:
        _norm(x, n, d, _get(layer, FFN_WEIGHT), _get(layer, FFN_BIAS), normed)
        _feed_forward(layer, normed, n, d, x, b)
    _norm(x, n, d, _get(layer, NORM_WEIGHT), _get(layer, NORM_BIAS), normed)
    for c in range(0, n * d, CHANNELS):
        store_row(normed, c, _relu(load_row(normed, c)))
    _linear(normed, n, d, _get(layer, OUT_WEIGHT), _get(layer, OUT_BIAS), b, width)
    for i in range(n):
        for c in range(0, p.d_out, CHANNELS):
            store_part(p.out, (first + i) * p.d_out + c, load_row(b, i * width + c), p.d_out - c)


@njit(**JIT)
def _refused(p, i, n_events):
    """Whether an event has no place, item or category in the tower's tables."""
    if n_events >= p.n_positions > 0 or not 0 <= load_long(p.item, i) < p.table_rows:
        return True
    for j in range(p.n_categorical):
        last = load_long(p.last_rows, j) - load_long(p.first_rows, j)
        if not 0 <= load_long(p.categorical, i * p.n_categorical + j) <= last:
            return True
    return False


@njit(**JIT)
def _judge(p, layers, size):
    """The verdict on a call, before anything changes; a user who comes twice is found by a mark on the first one."""
    verdict, n_marked = GO, 0
    for i in range(p.n_users):
        user = _user(p, i)
        n_events = load_long(p.n_events, user) if 0 <= user < p.pool else -1
        if n_events < 0 or (p.keep and _refused(p, i, n_events)):
            verdict = REFUSED
            break
        if p.keep:
            for index in range(p.n_layers):
                layer = layers + _LONGS * index * size
                if _get(layer, GROWS) and load_long(_get(layer, N_SEEN), user) >= _get(layer, ROOM):
                    verdict = REFUSED
            store_release(p.n_events, user, -1 - n_events)
            n_marked += 1
    for i in range(n_marked):
        store_release(p.n_events, _user(p, i), -1 - load_long(p.n_events, _user(p, i)))
    return verdict


def step(pointer):
    """Outputs of all users' events, or of [CLS], and with ``keep`` the states behind them."""
    mode, p, counters = enter(pointer)
    layers, slot = counters + 2 * _LONGS, fetch_add(counters, 0)
    if slot == 0:
        store_release(counters, -1, _judge(p, layers, len(LAYER)))
    wait_for(counters, -1, GO)
    d, size = p.d_model, _BYTES * p.tile * p.width
    x = p.scratch + _BYTES * p.scratch_stride * slot
    normed, b, more = x + size, x + 2 * size, x + BUFFERS * size
    while load_acquire(counters, -1) == GO:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        first = item * p.tile
        n = min(p.n_users - first, p.tile)
        for i in range(n):
            _token(p, first + i, x + _BYTES * i * d)
        for index in range(p.n_layers):
            _block(p, layers + _LONGS * index * len(LAYER), first, n, x, normed, b, size, more)
        _head(p, layers + _LONGS * p.n_layers * len(LAYER), first, n, x, normed, b)
        for i in range(n if p.keep else 0):
            user = _user(p, first + i)
            store_release(p.n_events, user, load_long(p.n_events, user) + 1)
            store_release(p.last_time, user, load_long(p.time, first + i))
    restore_mode(mode)
