"""Attention's kernels, compiled by numba: a tile of queries and keys at a time, its weights in the first-level cache.

Vectors run over queries, so that a softmax over keys is a sum of vectors and each query's largest logit a lane of one
(the online softmax of Milakov and Gimelshein, arXiv 1805.02867, by tiles as in Dao et al., arXiv 2205.14135). A thread
takes `LANES` queries of one head and row and walks over the keys that any of them sees, `KEYS` at a time. Backward
recomputes the weights from each query's largest logit and sum; a thread takes all queries of one head and row, or every
n-th block of them, and adds the gradients of keys and values up in scratch of its own. Heads of a row share cache
lines, so that threads take the same head of different rows. The key that all queries see, ``global_token``, is one of
its tile where a block reaches it, else a tile of its own. With ``silu`` weights are SiLU(q k), without a sum.

Logits are in units of log 2. Buffers are float32 and passed by address with the strides of batch, token and head;
channels are adjacent. ``lengths`` are int64 or no address.
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
    enter,
    exp2_row,
    fetch_add,
    fill,
    full_row,
    load_float,
    load_row,
    load_some,
    restore_mode,
    sigmoid,
    store_float,
    store_row,
    store_some,
    sum_channels,
)
from ftmamba.ops.tiles import (
    gemm,
    gemm_add,
    gemm_slopes,
    gemm_weights,
    keep_lanes,
    larger,
    load_long,
    max_channels,
    pack,
    transpose,
)

LANES = 64  # queries of a block
KEYS = 64  # of a tile
ONE_KEYS = 256  # at a time, where a row has one query
NOWHERE = 2**62  # the place of a global token where there is none

_BYTES = 4
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_LOWEST = np.float32(-1e30)
_LOG2E = np.float32(1.4426950408889634)
_LN2 = np.float32(0.6931471805599453)

_SHAPE = ["n_rows", "n_heads", "n_queries", "n_tokens", "d_head", "lengths", "causal", "window", "global_token", "silu"]
_STRIDED = [f"{name}{axis}" for name in ("q", "k", "v") for axis in ("", "_batch", "_token", "_head")]
_COMMON = [*_SHAPE, *_STRIDED, "out", "tops", "sums", "scratch", "scratch_stride"]
FORWARD = [*_COMMON]
BACKWARD = [*_COMMON, "dout", "dout_batch", "dout_token", "dout_head", "n_splits", "dq", "dk", "dv"]

_Tiles = namedtuple("_Tiles", "rows q_t out_t keys values weights top total factor logits")
_Grads = namedtuple("_Grads", "dout_rows dout_t slopes delta dk dv")


def _width(d_head):
    return -(-d_head // CHANNELS) * CHANNELS


def forward_floats(d_head):
    """Floats of scratch a thread needs."""
    return _width(d_head) * (3 * LANES + 2 * KEYS) + LANES * (KEYS + 3)


def backward_floats(d_head, n_tokens):
    """Floats of scratch a thread needs."""
    more = LANES * (KEYS + 1) + _width(d_head) * 2 * (LANES + n_tokens + CHANNELS)
    return forward_floats(d_head) + more


@njit(**JIT)
def _up(count, step):
    return (count + step - 1) // step * step


@njit(**JIT)
def _tiles(p, at):
    """The buffers of a block of queries from an address on, and the first address behind them."""
    width = _up(p.d_head, CHANNELS)
    size, keys = _BYTES * LANES * width, _BYTES * KEYS * width
    k = at + 3 * size
    weights = k + 2 * keys
    top = weights + _BYTES * LANES * KEYS
    line = _BYTES * LANES
    logits = weights + _BYTES * 2 * CHANNELS**2
    return _Tiles(
        at, at + size, at + 2 * size, k, k + keys, weights, top, top + line, top + 2 * line, logits
    ), top + 3 * line


@njit(**JIT)
def _span(p, row):
    """Of a row: its length, how many queries stand in it, and the position of the first."""
    if p.lengths == 0:
        return p.n_tokens, p.n_queries, max(p.n_tokens - p.n_queries, 0)
    length = min(max(load_long(p.lengths, row), 0), p.n_tokens)
    return length, min(p.n_queries, length), max(length - p.n_queries, 0)


@njit(**JIT)
def _seen(p, first, n, length):
    """The keys that any of n queries from position ``first`` on sees: from, to before."""
    last = first + n if p.causal != 0 else min(first + n + p.window, length)
    return max(first - p.window, 0), min(last, length)


@njit(**JIT)
def _global(p, length):
    """The place of the key that every query sees."""
    at = p.global_token + (length if p.global_token < 0 else 0)
    return at if at >= 0 and at < length else NOWHERE


@njit(**JIT)
def _scale(p):
    """What logits are multiplied with."""
    return np.float32(1.0 if p.silu != 0 else 1.0 / np.sqrt(p.d_head))


@njit(**JIT)
def _all_see(p, first, n, key, count):
    """Whether each of n queries sees each of the keys."""
    behind = 0 if p.causal != 0 else p.window
    return key >= first + n - 1 - p.window and key + count - 1 <= first + behind


@njit(**JIT)
def _hide(p, tile, otherwise, first, lanes, key, count, high, everywhere):
    """Replace what a query does not see in a tile (key, query)."""
    other = full_row(otherwise)
    for j in range(count):
        if key + j == everywhere and everywhere < high:
            continue
        behind = 0 if p.causal != 0 else p.window
        low, last = key + j - behind - first, key + j + p.window - first + 1
        if key + j >= high:
            last = low
        for lane in range(0, lanes, CHANNELS):
            at = j * LANES + lane
            store_row(tile, at, keep_lanes(load_row(tile, at), other, low - lane, last - lane))


@njit(**JIT)
def _softmax(b, lanes, n):
    """Logits to weights over each query's largest logit so far, and what earlier weights must be multiplied with."""
    for lane in range(0, lanes, CHANNELS):
        before = load_row(b.top, lane)
        top = before
        for j in range(n):
            top = larger(load_row(b.weights, j * LANES + lane), top)
        factor = exp2_row(before - top)
        total = load_row(b.total, lane) * factor
        for j in range(n):
            weight = exp2_row(load_row(b.weights, j * LANES + lane) - top)
            store_row(b.weights, j * LANES + lane, weight)
            total = total + weight
        store_row(b.top, lane, top)
        store_row(b.total, lane, total)
        store_row(b.factor, lane, factor)


@njit(**JIT)
def _silu(logits, weights, slopes, lanes, n):
    """Logits to SiLU and, where there is an address for them, its slopes."""
    for j in range(n):
        for lane in range(0, lanes, CHANNELS):
            at = j * LANES + lane
            logit = load_row(logits, at) * full_row(_LN2)
            gate = sigmoid(logit)
            store_row(weights, at, logit * gate)
            if slopes != 0:
                store_row(slopes, at, gate * (full_row(_ONE) + logit * (full_row(_ONE) - gate)))


@njit(**JIT)
def _take_keys(p, b, row, head, key, n, padded):
    width = _up(p.d_head, CHANNELS)
    k = p.k + _BYTES * (row * p.k_batch + key * p.k_token + head * p.k_head)
    v = p.v + _BYTES * (row * p.v_batch + key * p.v_token + head * p.v_head)
    pack(k, p.k_token, n, p.d_head, _LOG2E, b.keys, width, padded)
    pack(v, p.v_token, n, p.d_head, _ONE, b.values, width, padded)


@njit(**JIT)
def _take_queries(p, b, row, head, query, n, lanes):
    width = _up(p.d_head, CHANNELS)
    q = p.q + _BYTES * (row * p.q_batch + query * p.q_token + head * p.q_head)
    pack(q, p.q_token, n, p.d_head, _scale(p), b.rows, width, lanes)
    transpose(b.rows, width, lanes, width, b.q_t, LANES)


@njit(**JIT)
def _give_queries(p, tile, row, head, query, n, lanes, rows, target):
    """A tile (channel, query) to memory (batch, query, head, channel)."""
    width = _up(p.d_head, CHANNELS)
    transpose(tile, LANES, width, lanes, rows, width)
    for t in range(n):
        at = ((row * p.n_queries + query + t) * p.n_heads + head) * p.d_head
        for c in range(0, p.d_head, CHANNELS):
            store_some(target, at + c, load_row(rows, t * width + c), p.d_head - c)


@njit(**JIT)
def _clear_queries(p, row, head, first, last, target):
    for t in range(first, last):
        at = ((row * p.n_queries + t) * p.n_heads + head) * p.d_head
        for c in range(0, p.d_head, CHANNELS):
            store_some(target, at + c, full_row(_ZERO), p.d_head - c)


@njit(**JIT)
def _forward_tile(p, row, head, first, n, lanes, key, high, everywhere, b):
    """Add what queries from position ``first`` on see of the keys from ``key`` to before ``high``, one tile at most."""
    width, depth, count = _up(p.d_head, CHANNELS), _up(p.d_head, 8), min(KEYS, high - key)
    padded, whole = _up(count, 8), _all_see(p, first, n, key, count)
    _take_keys(p, b, row, head, key, count, padded)
    gemm(b.keys, width, 1, p.d_head, b.q_t, LANES, b.weights, LANES, padded, lanes, 0, 0)
    if p.silu != 0:
        _silu(b.weights, b.weights, 0, lanes, count)
    else:
        if not whole:
            _hide(p, b.weights, _LOWEST, first, lanes, key, count, high, everywhere)
        _softmax(b, lanes, count)
        for c in range(depth):
            for lane in range(0, lanes, CHANNELS):
                at = c * LANES + lane
                store_row(b.out_t, at, load_row(b.out_t, at) * load_row(b.factor, lane))
    if not whole:
        _hide(p, b.weights, _ZERO, first, lanes, key, count, high, everywhere)
    gemm_add(b.values, 1, width, count, b.weights, LANES, b.out_t, LANES, depth, lanes, 0, 0)


@njit(**JIT)
def _forward_block(p, row, head, query, b):
    width, depth = _up(p.d_head, CHANNELS), _up(p.d_head, 8)
    length, n_valid, offset = _span(p, row)
    end = min(query + LANES, p.n_queries)
    n = min(end, n_valid) - query
    _clear_queries(p, row, head, max(query, n_valid), end, p.out)
    if n <= 0:
        return
    lanes, first = _up(n, CHANNELS), query + offset
    _take_queries(p, b, row, head, query, n, lanes)
    fill(b.out_t, 0, width * LANES)
    fill(b.total, 0, LANES)
    for lane in range(0, LANES, CHANNELS):
        store_row(b.top, lane, full_row(_LOWEST))
    low, high = _seen(p, first, n, length)
    everywhere = _global(p, length)
    for key in range(low, high, KEYS):
        _forward_tile(p, row, head, first, n, lanes, key, high, everywhere, b)
    if everywhere != NOWHERE and (everywhere < low or everywhere >= high):
        _forward_tile(p, row, head, first, n, lanes, everywhere, everywhere + 1, everywhere, b)
    for lane in range(0, lanes if p.silu == 0 else 0, CHANNELS):
        share = full_row(_ONE) / load_row(b.total, lane)
        for c in range(depth):
            at = c * LANES + lane
            store_row(b.out_t, at, load_row(b.out_t, at) * share)
        if p.tops != 0:
            at = (row * p.n_heads + head) * p.n_queries + query + lane
            store_some(p.tops, at, load_row(b.top, lane), n - lane)
            store_some(p.sums, at, share, n - lane)
    _give_queries(p, b.out_t, row, head, query, n, lanes, b.rows, p.out)


@njit(**JIT)
def _products(rows, row_step, n, d_head, factors, b, results):
    """The product of each of n rows with one vector; behind them zeros up to a multiple of 16."""
    parts, turned = b.weights, b.weights + _BYTES * CHANNELS * CHANNELS
    for i in range(0, n, CHANNELS):
        for j in range(CHANNELS):
            total = full_row(_ZERO)
            if i + j < n:
                for c in range(0, d_head, CHANNELS):
                    channels = load_some(rows, (i + j) * row_step + c, d_head - c)
                    total = total + channels * load_row(factors, c)
            store_row(parts, j * CHANNELS, total)
        transpose(parts, CHANNELS, CHANNELS, CHANNELS, turned, CHANNELS)
        total = full_row(_ZERO)
        for j in range(CHANNELS):
            total = total + load_row(turned, j * CHANNELS)
        store_row(results, i, total)


@njit(**JIT)
def _add_rows(rows, row_step, n, d_head, factors, total):
    """``total += sum_i factors[i] * rows[i]``, from four sums that do not wait for each other."""
    for c in range(0, d_head, CHANNELS):
        count, s0 = d_head - c, load_row(total, c)
        s1 = s2 = s3 = full_row(_ZERO)
        for i in range(0, n // 4 * 4, 4):
            at = i * row_step + c
            s0 = s0 + full_row(load_float(factors, i)) * load_some(rows, at, count)
            s1 = s1 + full_row(load_float(factors, i + 1)) * load_some(rows, at + row_step, count)
            s2 = s2 + full_row(load_float(factors, i + 2)) * load_some(rows, at + 2 * row_step, count)
            s3 = s3 + full_row(load_float(factors, i + 3)) * load_some(rows, at + 3 * row_step, count)
        for i in range(n // 4 * 4, n):
            s0 = s0 + full_row(load_float(factors, i)) * load_some(rows, i * row_step + c, count)
        store_row(total, c, (s0 + s1) + (s2 + s3))


@njit(**JIT)
def _is_one(p):
    """Whether a row has one query, and that sees a stretch of keys."""
    return p.n_queries == 1 and p.global_token == NOWHERE and p.silu == 0


@njit(**JIT)
def _take_one(p, b, row, head):
    """The only query of a row, in units of log 2, and the keys that it sees: a stretch of them, whatever the mask."""
    length, n_valid, first = _span(p, row)
    low, high = _seen(p, first, n_valid, length)
    q = p.q + _BYTES * (row * p.q_batch + head * p.q_head)
    pack(q, 0, n_valid, p.d_head, _LOG2E / np.float32(np.sqrt(p.d_head)), b.rows, _up(p.d_head, CHANNELS), 1)
    return n_valid, low, high


@njit(**JIT)
def _forward_one(p, row, head, b):
    n_valid, low, high = _take_one(p, b, row, head)
    top, total = full_row(_LOWEST), full_row(_ZERO)
    fill(b.out_t, 0, _up(p.d_head, CHANNELS))
    for key in range(low, high, ONE_KEYS):
        n = min(ONE_KEYS, high - key)
        k = p.k + _BYTES * (row * p.k_batch + key * p.k_token + head * p.k_head)
        v = p.v + _BYTES * (row * p.v_batch + key * p.v_token + head * p.v_head)
        _products(k, p.k_token, n, p.d_head, b.rows, b, b.logits)
        before = top
        for i in range(0, n, CHANNELS):
            top = larger(keep_lanes(load_row(b.logits, i), top, 0, n - i), top)
        top = full_row(max_channels(top))
        factor = exp2_row(before - top)
        total = total * factor
        for i in range(0, n, CHANNELS):
            weight = keep_lanes(exp2_row(load_row(b.logits, i) - top), full_row(_ZERO), 0, n - i)
            store_row(b.logits, i, weight)
            total = total + weight
        for c in range(0, p.d_head, CHANNELS):
            store_row(b.out_t, c, load_row(b.out_t, c) * factor)
        _add_rows(v, p.v_token, n, p.d_head, b.logits, b.out_t)
    share = _ONE / sum_channels(total) if n_valid > 0 else _ZERO
    at = row * p.n_heads + head
    for c in range(0, p.d_head, CHANNELS):
        store_some(p.out, at * p.d_head + c, load_row(b.out_t, c) * full_row(share), p.d_head - c)
    if p.tops != 0:
        store_float(p.tops, at, max_channels(top))
        store_float(p.sums, at, share)


def forward(pointer):
    """The output of all rows, and, where asked for, each query's largest logit and one over its sum of weights."""
    mode, p, counters = enter(pointer)
    b, _ = _tiles(p, p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0))
    n_blocks = (p.n_queries + LANES - 1) // LANES
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_rows * p.n_heads * n_blocks:
            break
        row, head = item // n_blocks % p.n_rows, item // n_blocks // p.n_rows
        if _is_one(p):
            _forward_one(p, row, head, b)
        else:
            _forward_block(p, row, head, item % n_blocks * LANES, b)
    restore_mode(mode)


@njit(**JIT)
def _take_gradients(p, b, g, row, head, query, n, lanes):
    """Gradients of outputs over the sum of weights, by rows and by channels, and their products with the outputs."""
    width, soft = _up(p.d_head, CHANNELS), p.silu == 0
    fill(g.delta, 0, LANES)
    for t in range(n):
        at = (row * p.n_heads + head) * p.n_queries + query + t
        dout = p.dout + _BYTES * (row * p.dout_batch + (query + t) * p.dout_token + head * p.dout_head)
        rows = g.dout_rows + _BYTES * t * width
        pack(dout, 0, 1, p.d_head, load_float(p.sums, at) if soft else _ONE, rows, width, 1)
        at = ((row * p.n_queries + query + t) * p.n_heads + head) * p.d_head
        total = full_row(_ZERO)
        for c in range(0, p.d_head if soft else 0, CHANNELS):
            total = total + load_some(p.out, at + c, p.d_head - c) * load_row(rows, c)
        store_float(g.delta, t, sum_channels(total))
    fill(g.dout_rows, n * width, (lanes - n) * width)
    transpose(g.dout_rows, width, lanes, width, g.dout_t, LANES)
    for lane in range(0, lanes if soft else 0, CHANNELS):
        at = (row * p.n_heads + head) * p.n_queries + query + lane
        store_row(b.top, lane, load_some(p.tops, at, n - lane))


@njit(**JIT)
def _backward_tile(p, row, head, first, n, lanes, key, high, everywhere, b, g):
    """Add the gradients that come of queries and a tile of keys."""
    width, depth, count = _up(p.d_head, CHANNELS), _up(p.d_head, 8), min(KEYS, high - key)
    padded = _up(count, CHANNELS)
    at, slopes = _BYTES * key * width, b.weights
    _take_keys(p, b, row, head, key, count, padded)
    if p.silu != 0:
        gemm(b.keys, width, 1, p.d_head, b.q_t, LANES, b.weights, LANES, padded, lanes, 0, 0)
        slopes = g.slopes
        _silu(b.weights, b.weights, slopes, lanes, padded)
    else:
        gemm_weights(b.keys, width, 1, p.d_head, b.q_t, LANES, b.weights, LANES, padded, lanes, 0, b.top)
    if padded > count or not _all_see(p, first, n, key, count):
        _hide(p, b.weights, _ZERO, first, lanes, key, padded, high, everywhere)
        if p.silu != 0:
            _hide(p, slopes, _ZERO, first, lanes, key, padded, high, everywhere)
    gemm_slopes(b.values, width, 1, p.d_head, g.dout_t, LANES, g.slopes, LANES, padded, lanes, slopes, g.delta)
    gemm_add(b.keys, 1, width, count, g.slopes, LANES, b.out_t, LANES, depth, lanes, 0, 0)
    gemm_add(b.weights, LANES, 1, n, g.dout_rows, width, g.dv + at, width, padded, depth, 0, 0)
    gemm_add(g.slopes, LANES, 1, n, b.rows, width, g.dk + at, width, padded, depth, 0, 0)


@njit(**JIT)
def _backward_block(p, row, head, query, b, g):
    width, depth = _up(p.d_head, CHANNELS), _up(p.d_head, 8)
    length, n_valid, offset = _span(p, row)
    end = min(query + LANES, p.n_queries)
    n = min(end, n_valid) - query
    _clear_queries(p, row, head, max(query, n_valid), end, p.dq)
    if n <= 0:
        return
    lanes, first = _up(n, CHANNELS), query + offset
    _take_queries(p, b, row, head, query, n, lanes)
    _take_gradients(p, b, g, row, head, query, n, lanes)
    fill(b.out_t, 0, width * LANES)
    low, high = _seen(p, first, n, length)
    everywhere = _global(p, length)
    for key in range(low, high, KEYS):
        _backward_tile(p, row, head, first, n, lanes, key, high, everywhere, b, g)
    if everywhere != NOWHERE and (everywhere < low or everywhere >= high):
        _backward_tile(p, row, head, first, n, lanes, everywhere, everywhere + 1, everywhere, b, g)
    factor = full_row(_LN2 * _scale(p))
    for i in range(0, depth * LANES, CHANNELS):
        store_row(b.out_t, i, load_row(b.out_t, i) * factor)
    _give_queries(p, b.out_t, row, head, query, n, lanes, b.rows, p.dq)


@njit(**JIT)
def _backward_one(p, row, head, b, g):
    """All gradients of a row and head with one query: each key's belong to it alone."""
    width, pair = _up(p.d_head, CHANNELS), row * p.n_heads + head
    n_valid, low, high = _take_one(p, b, row, head)
    _take_gradients(p, b, g, row, head, 0, n_valid, 1)
    top, delta = full_row(load_float(p.tops, pair)), full_row(load_float(g.delta, 0))
    fill(b.out_t, 0, width)
    for key in range(0, p.n_tokens, ONE_KEYS):
        start, end = max(key, low), min(key + ONE_KEYS, high)
        n = max(end - start, 0)
        k = p.k + _BYTES * (row * p.k_batch + start * p.k_token + head * p.k_head)
        v = p.v + _BYTES * (row * p.v_batch + start * p.v_token + head * p.v_head)
        _products(k, p.k_token, n, p.d_head, b.rows, b, b.logits)
        _products(v, p.v_token, n, p.d_head, g.dout_rows, b, g.slopes)
        for i in range(0, n, CHANNELS):
            weight = exp2_row(load_row(b.logits, i) - top)
            store_row(b.logits, i, weight)
            store_row(g.slopes, i, weight * (load_row(g.slopes, i) - delta))
        _add_rows(k, p.k_token, n, p.d_head, g.slopes, b.out_t)
        for i in range(key, min(key + ONE_KEYS, p.n_tokens)):
            seen = start <= i and i < end
            weight = full_row(load_float(b.logits, i - start) if seen else _ZERO)
            slope = full_row(load_float(g.slopes, i - start) * _LN2 if seen else _ZERO)
            at = ((row * p.n_tokens + i) * p.n_heads + head) * p.d_head
            for c in range(0, p.d_head, CHANNELS):
                store_some(p.dk, at + c, slope * load_row(b.rows, c), p.d_head - c)
                store_some(p.dv, at + c, weight * load_row(g.dout_rows, c), p.d_head - c)
    factor = full_row(_ONE / np.float32(np.sqrt(p.d_head)))
    for c in range(0, p.d_head, CHANNELS):
        store_some(p.dq, pair * p.d_head + c, load_row(b.out_t, c) * factor, p.d_head - c)


def backward(pointer):
    """Gradients of q, k and v, those of k and v as one partial sum a split of the queries."""
    mode, p, counters = enter(pointer)
    width = _up(p.d_head, CHANNELS)
    b, at = _tiles(p, p.scratch + _BYTES * p.scratch_stride * fetch_add(counters, 0))
    rows, weights, room = _BYTES * LANES * width, _BYTES * LANES * KEYS, (p.n_tokens + CHANNELS) * width
    dk = at + 2 * rows + weights + _BYTES * LANES
    g = _Grads(at, at + rows, at + 2 * rows, at + 2 * rows + weights, dk, dk + _BYTES * room)
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_rows * p.n_heads * p.n_splits:
            break
        row, head, split = item // p.n_splits % p.n_rows, item // p.n_splits // p.n_rows, item % p.n_splits
        if _is_one(p):
            _backward_one(p, row, head, b, g)
            continue
        fill(g.dk, 0, 2 * room)
        for query in range(split * LANES, p.n_queries, p.n_splits * LANES):
            _backward_block(p, row, head, query, b, g)
        for t in range(p.n_tokens):
            at = (((split * p.n_rows + row) * p.n_tokens + t) * p.n_heads + head) * p.d_head
            for c in range(0, p.d_head, CHANNELS):
                store_some(p.dk, at + c, load_row(g.dk, t * width + c), p.d_head - c)
                store_some(p.dv, at + c, load_row(g.dv, t * width + c), p.d_head - c)
    restore_mode(mode)
