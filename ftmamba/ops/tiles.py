"""Products of small matrices that stay in cache, with something done to the result before it leaves the registers.

For kernels that hold a tile of two axes at a time, on the vectors of `ftmamba.ops.simd`. Addresses are in bytes,
strides in floats.
"""

# mypy: ignore-errors
# numba's extension interface is untyped.

from __future__ import annotations

import functools

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils, config

from ftmamba.ops.simd import (
    CHANNELS,
    CONTRACT,
    INT,
    JIT,
    LONG,
    constant,
    element,
    emits,
    floats,
    fold,
    full_row,
    load,
    load_some,
    multiply_add,
    power_of_two,
    row,
    smaller,
    splat,
    store,
    store_row,
)

_SIDE = range(CHANNELS)
# Rows and columns of the sums that are held in registers: at most 24 of AVX-512's 32 with what they are made of, 13 of
# AVX2's 16. Shapes as wide as AVX-512's take twice the time where there is only AVX2.
_FEATURES = get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
_SHAPES = ((4, 64), (8, 32), (8, 16), (16, 8)) if "+avx512f" in _FEATURES else (*[(4, 16)] * 3, (8, 8))


def replace(builder, total, c, x, index, y):
    return total


def add(builder, total, c, x, index, y):
    return builder.fadd(load(builder, c, index, total.type.count), total)


def _less(builder, total, y):
    return builder.fsub(total, load(builder, y, LONG(0), total.type.count))


def _weights(builder, total, c, x, index, y):
    return power_of_two(builder, _less(builder, total, y))


def _slopes(builder, total, c, x, index, y):
    return builder.fmul(load(builder, x, index, total.type.count), _less(builder, total, y), flags=CONTRACT)


def _make_tile(rows, lanes, finish):
    @emits(types.void, *[types.int64] * 10)
    def tile(builder, a, a_row, a_step, n_inner, b, b_row, c, c_row, x, y):
        zero = floats(lanes, 0.0)
        totals = [cgutils.alloca_once_value(builder, zero) for _ in range(rows)]
        with cgutils.for_range(builder, n_inner) as loop:
            values = load(builder, b, builder.mul(loop.index, b_row), lanes)
            for i, total in enumerate(totals):
                at = builder.add(builder.mul(loop.index, a_step), builder.mul(a_row, LONG(i)))
                factor = splat(builder, builder.load(element(builder, a, at)), lanes)
                builder.store(multiply_add(builder, factor, values, builder.load(total)), total)
        for i, total in enumerate(totals):
            at = builder.mul(c_row, LONG(i))
            store(builder, c, at, finish(builder, builder.load(total), c, x, at, y))

    return tile


@functools.cache
def make_strips(rows, lanes, finish, rest=False):
    """Strips of ``lanes`` columns, in tiles of so many rows; where there may be a ``rest`` of rows, one by one."""
    tile, one = _make_tile(rows, lanes, finish), _make_tile(1, lanes, finish) if rest else None

    @njit(**JIT)
    def strips(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, first, last, x, y):
        """As many strips as fit from the first column on; the column behind them."""
        whole = n_rows // rows * rows if rest else n_rows
        while last - first >= lanes:
            for i in range(0, whole, rows):
                at = 4 * (i * c_row + first)
                row = a + 4 * i * a_row
                tile(row, a_row, a_step, n_inner, b + 4 * first, b_row, c + at, c_row, x + at, y + 4 * first)
            if rest:
                for i in range(whole, n_rows):
                    at = 4 * (i * c_row + first)
                    row = a + 4 * i * a_row
                    one(row, a_row, a_step, n_inner, b + 4 * first, b_row, c + at, c_row, x + at, y + 4 * first)
            first += lanes
        return first

    return strips


def _make_gemm(finish):
    widest, wide, narrow, half = (make_strips(*shape, finish) for shape in _SHAPES)

    @njit(**JIT)
    def gemm(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, n_columns, x, y):
        j = widest(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, 0, n_columns, x, y)
        j = wide(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, j, n_columns, x, y)
        j = narrow(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, j, n_columns, x, y)
        half(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, j, n_columns, x, y)

    return gemm


# ``c[i, j] = finish(sum_k a[i, k] * b[k, j])`` with adjacent columns in b, c and x. n_rows is a multiple of 8 and
# n_columns of 16; or n_rows of 16 and n_columns of 8. What becomes of a sum: it replaces c; is added to c;
# ``exp2(sum - y[j])``; ``x[i, j] * (sum - y[j])``.
gemm, gemm_add, gemm_weights, gemm_slopes = (_make_gemm(each) for each in (replace, add, _weights, _slopes))


def _larger(builder, a, b):
    return smaller(builder, a, b, b, a)


larger = emits(row, row, row)(_larger)  # channel by channel the larger one; not a number where a is not


@emits(types.float32, row)
def max_channels(builder, channels):
    """The largest channel of a row."""
    return fold(builder, channels, functools.partial(_larger, builder))


@emits(row, row, row, types.int64, types.int64)
def keep_lanes(builder, x, otherwise, first, last):
    """The channels of x from ``first`` to before ``last``, the others of ``otherwise``."""
    lanes = constant(LONG, CHANNELS, [*_SIDE])
    first, last = (splat(builder, bound, CHANNELS) for bound in (first, last))
    inside = builder.and_(builder.icmp_signed(">=", lanes, first), builder.icmp_signed("<", lanes, last))
    return builder.select(inside, x, otherwise)


@emits(types.int64, types.int64, types.int64)
def load_long(builder, address, index):
    """The int64 at ``address + 8 * index``."""
    return builder.load(element(builder, address, index, LONG))


@emits(types.void, *[types.int64] * 4)
def _transpose_square(builder, source, source_row, target, target_row):
    rows = [load(builder, source, builder.mul(source_row, LONG(i)), CHANNELS) for i in _SIDE]
    half = CHANNELS // 2
    orders = [constant(INT, CHANNELS, [part * half + j // 2 + j % 2 * CHANNELS for j in _SIDE]) for part in (0, 1)]
    for _ in range(half.bit_length()):  # each round interleaves rows half the matrix apart
        pairs = zip(rows[:half], rows[half:], strict=True)
        rows = [builder.shuffle_vector(*pair, order) for pair in pairs for order in orders]
    for i, value in enumerate(rows):
        store(builder, target, builder.mul(target_row, LONG(i)), value)


@njit(**JIT)
def transpose(source, source_row, n_rows, n_columns, target, target_row):
    """``target[j, i] = source[i, j]``, both counts rounded up to multiples of 16."""
    for i in range(0, n_rows, CHANNELS):
        for j in range(0, n_columns, CHANNELS):
            _transpose_square(
                source + 4 * (i * source_row + j), source_row, target + 4 * (j * target_row + i), target_row
            )


@njit(**JIT)
def pack(source, source_row, n_rows, n_columns, factor, target, target_row, n_padded):
    """Rows times a factor, to rows of a multiple of 16; zeros behind the columns and in rows up to ``n_padded``."""
    times = full_row(factor)
    for i in range(n_rows):
        for j in range(0, n_columns, CHANNELS):
            store_row(target, i * target_row + j, times * load_some(source, i * source_row + j, n_columns - j))
    for i in range(n_rows, n_padded):
        for j in range(0, target_row, CHANNELS):
            store_row(target, i * target_row + j, full_row(np.float32(0.0)))
