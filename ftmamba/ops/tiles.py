"""Products of small matrices that stay in cache, with something done to the result before it leaves the registers.

For kernels that hold a tile of two axes at a time, on the vectors of `ftmamba.ops.simd`. Addresses are in bytes,
strides in floats.
"""

# mypy: ignore-errors
# numba's extension interface is untyped.

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from ftmamba.ops.simd import (
    _CONTRACT,
    _FLOAT,
    _INT,
    _LONG,
    _ROUND,
    CHANNELS,
    JIT,
    _at_least,
    _element,
    _floats,
    _load,
    _pick,
    _scaled_exp2,
    full_row,
    row,
    store_row,
)

_SIDE = range(CHANNELS)
# Rows and columns of the sums that are held in registers: at most 24 of AVX-512's 32 with what they are made of, 13 of
# AVX2's 16. Shapes as wide as AVX-512's take twice the time where there is only AVX2.
_FEATURES = get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
_SHAPES = ((4, 64), (8, 32), (8, 16), (16, 8)) if "+avx512f" in _FEATURES else (*[(4, 16)] * 3, (8, 8))
_BITS = ir.VectorType(ir.IntType(1), CHANNELS)


def _exp2(builder, x):
    x = _at_least(builder, x, -126.0)
    shift = _floats(x.type.count, _ROUND)
    rounded = builder.fadd(x, shift)
    return _scaled_exp2(builder, rounded, builder.fsub(x, builder.fsub(rounded, shift)))


def _store(builder, value, address, index):
    builder.store(value, builder.bitcast(_element(builder, address, index), value.type.as_pointer())).align = 4


def _splat(builder, value, lanes):
    first = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    return _pick(builder, builder.insert_element(first, value, _INT(0)), [0] * lanes)


def _replace(builder, total, c, x, index, y):
    return total


def _add(builder, total, c, x, index, y):
    return builder.fadd(_load(builder, c, index, total.type.count), total)


def _weights(builder, total, c, x, index, y):
    return _exp2(builder, builder.fsub(total, _load(builder, y, _LONG(0), total.type.count)))


def _slopes(builder, total, c, x, index, y):
    lanes = total.type.count
    return builder.fmul(
        _load(builder, x, index, lanes), builder.fsub(total, _load(builder, y, _LONG(0), lanes)), flags=_CONTRACT
    )


def _make_tile(rows, lanes, finish):
    @intrinsic
    def tile(typingctx, a, a_row, a_step, n_inner, b, b_row, c, c_row, x, y):
        def codegen(context, builder, sig, args):
            a, a_row, a_step, n_inner, b, b_row, c, c_row, x, y = args
            vector = ir.VectorType(_FLOAT, lanes)
            totals = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * lanes)) for _ in range(rows)]
            with cgutils.for_range(builder, n_inner) as loop:
                values = _load(builder, b, builder.mul(loop.index, b_row), lanes)
                for i, total in enumerate(totals):
                    at = builder.add(builder.mul(loop.index, a_step), builder.mul(a_row, _LONG(i)))
                    factor = _splat(builder, builder.load(_element(builder, a, at)), lanes)
                    product = builder.fmul(factor, values, flags=_CONTRACT)
                    builder.store(builder.fadd(builder.load(total), product, flags=_CONTRACT), total)
            for i, total in enumerate(totals):
                at = builder.mul(c_row, _LONG(i))
                _store(builder, finish(builder, builder.load(total), c, x, at, y), c, at)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return tile


@functools.cache
def _make_strip(rows, lanes, finish):
    tile = _make_tile(rows, lanes, finish)

    @njit(**JIT)
    def strip(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, first, last, x, y):
        """All rows of as many strips of columns as fit from the first column on; the column behind them."""
        while last - first >= lanes:
            for i in range(0, n_rows, rows):
                at = 4 * (i * c_row + first)
                row = a + 4 * i * a_row
                tile(row, a_row, a_step, n_inner, b + 4 * first, b_row, c + at, c_row, x + at, y + 4 * first)
            first += lanes
        return first

    return strip


def _make_gemm(finish):
    widest, wide, narrow, half = (_make_strip(*shape, finish) for shape in _SHAPES)

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
gemm, gemm_add, gemm_weights, gemm_slopes = (_make_gemm(each) for each in (_replace, _add, _weights, _slopes))


@intrinsic
def exp2_row(typingctx, x):
    """As `simd.exp2`, of a row."""

    def codegen(context, builder, sig, args):
        return _exp2(builder, args[0])

    return row(row), codegen


@intrinsic
def larger(typingctx, a, b):
    """Channel by channel the larger one; not a number where a is not."""

    def codegen(context, builder, sig, args):
        a, b = args
        return builder.select(builder.fcmp_ordered("<", a, b), b, a)

    return row(row, row), codegen


@intrinsic
def max_channels(typingctx, channels):
    """The largest channel of a row."""

    def codegen(context, builder, sig, args):
        (vector,) = args
        half = CHANNELS // 2
        while half:
            a, b = _pick(builder, vector, range(half)), _pick(builder, vector, range(half, 2 * half))
            vector = builder.select(builder.fcmp_ordered("<", a, b), b, a)
            half //= 2
        return builder.extract_element(vector, _INT(0))

    return types.float32(row), codegen


@intrinsic
def keep_lanes(typingctx, x, otherwise, first, last):
    """The channels of x from ``first`` to before ``last``, the others of ``otherwise``."""

    def codegen(context, builder, sig, args):
        x, otherwise, first, last = args
        lanes = ir.Constant(ir.VectorType(_LONG, CHANNELS), list(_SIDE))
        first, last = (_splat(builder, bound, CHANNELS) for bound in (first, last))
        inside = builder.and_(builder.icmp_signed(">=", lanes, first), builder.icmp_signed("<", lanes, last))
        return builder.select(inside, x, otherwise)

    return row(row, row, types.int64, types.int64), codegen


def _first_lanes(builder, count):
    lanes = ir.Constant(ir.VectorType(_LONG, CHANNELS), list(_SIDE))
    return builder.icmp_signed("<", lanes, _splat(builder, count, CHANNELS))


@intrinsic
def load_some(typingctx, address, index, count):
    """As `simd.load_part`, by the masks of the machine."""

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(_FLOAT, CHANNELS)
        pointer = builder.bitcast(_element(builder, *args[:2]), vector.as_pointer())
        kind = ir.FunctionType(vector, [pointer.type, _INT, _BITS, vector])
        suffix = "p0" if str(pointer.type) == "ptr" else f"p0v{CHANNELS}f32"
        load = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{CHANNELS}f32.{suffix}")
        return builder.call(load, [pointer, _INT(4), _first_lanes(builder, args[2]), _floats(CHANNELS, 0.0)])

    return row(types.int64, types.int64, types.int64), codegen


@intrinsic
def store_some(typingctx, address, index, channels, count):
    """As `simd.store_part`, by the masks of the machine."""

    def codegen(context, builder, sig, args):
        address, index, value, count = args
        pointer = builder.bitcast(_element(builder, address, index), value.type.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _INT, _BITS])
        suffix = "p0" if str(pointer.type) == "ptr" else f"p0v{CHANNELS}f32"
        store = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{CHANNELS}f32.{suffix}")
        builder.call(store, [value, pointer, _INT(4), _first_lanes(builder, count)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, row, types.int64), codegen


@intrinsic
def load_long(typingctx, address, index):
    """The int64 at ``address + 8 * index``."""

    def codegen(context, builder, sig, args):
        return builder.load(_element(builder, *args, _LONG))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _transpose_square(typingctx, source, source_row, target, target_row):
    def codegen(context, builder, sig, args):
        source, source_row, target, target_row = args
        rows = [_load(builder, source, builder.mul(source_row, _LONG(i)), CHANNELS) for i in _SIDE]
        half = CHANNELS // 2
        for _ in range(half.bit_length()):  # each round interleaves rows half the matrix apart
            rows = [
                builder.shuffle_vector(
                    rows[i], rows[i + half],
                    ir.Constant(
                        ir.VectorType(_INT, CHANNELS), [part * half + j // 2 + j % 2 * CHANNELS for j in _SIDE]
                    ),
                )
                for i in range(half)
                for part in (0, 1)
            ]  # fmt: skip
        for i, value in enumerate(rows):
            _store(builder, value, target, builder.mul(target_row, _LONG(i)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


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
