"""Matrix products of small, cache-resident matrices inside numba kernels, on the vectors of `ftmamba.ops.simd`.

For matrices in memory use torch; this is for kernels that hold a few dozen tokens at a time.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

import numpy as np
from numba import njit

from ftmamba.ops.simd import (
    CHANNELS,
    JIT,
    STATES,
    full_row,
    load_block,
    load_float,
    load_row,
    over_states,
    store_block,
    store_row,
)

_ZERO = np.float32(0.0)
_BLOCK = STATES * CHANNELS


@njit(**JIT)
def _four_by_block(a, a_row, a_step, b, b_row, c, c_row, n_inner, add):
    c0 = c1 = c2 = c3 = over_states(full_row(_ZERO))
    if add:
        c0, c1 = load_block(c, 0), load_block(c, c_row)
        c2, c3 = load_block(c, 2 * c_row), load_block(c, 3 * c_row)
    for k in range(n_inner):
        i, value = k * a_step, load_block(b, k * b_row)
        c0 = c0 + over_states(full_row(load_float(a, i))) * value
        c1 = c1 + over_states(full_row(load_float(a, i + a_row))) * value
        c2 = c2 + over_states(full_row(load_float(a, i + 2 * a_row))) * value
        c3 = c3 + over_states(full_row(load_float(a, i + 3 * a_row))) * value
    store_block(c, 0, c0)
    store_block(c, c_row, c1)
    store_block(c, 2 * c_row, c2)
    store_block(c, 3 * c_row, c3)


@njit(**JIT)
def _one_by_block(a, a_step, b, b_row, c, n_inner, add):
    value = load_block(c, 0) if add else over_states(full_row(_ZERO))
    for k in range(n_inner):
        value = value + over_states(full_row(load_float(a, k * a_step))) * load_block(b, k * b_row)
    store_block(c, 0, value)


@njit(**JIT)
def _four_by_row(a, a_row, a_step, b, b_row, c, c_row, n_inner, add):
    c0 = c1 = c2 = c3 = full_row(_ZERO)
    if add:
        c0, c1, c2, c3 = load_row(c, 0), load_row(c, c_row), load_row(c, 2 * c_row), load_row(c, 3 * c_row)
    for k in range(n_inner):
        i, value = k * a_step, load_row(b, k * b_row)
        c0 = c0 + full_row(load_float(a, i)) * value
        c1 = c1 + full_row(load_float(a, i + a_row)) * value
        c2 = c2 + full_row(load_float(a, i + 2 * a_row)) * value
        c3 = c3 + full_row(load_float(a, i + 3 * a_row)) * value
    store_row(c, 0, c0)
    store_row(c, c_row, c1)
    store_row(c, 2 * c_row, c2)
    store_row(c, 3 * c_row, c3)


@njit(**JIT)
def _one_by_row(a, a_step, b, b_row, c, n_inner, add):
    value = load_row(c, 0) if add else full_row(_ZERO)
    for k in range(n_inner):
        value = value + full_row(load_float(a, k * a_step)) * load_row(b, k * b_row)
    store_row(c, 0, value)


@njit(**JIT)
def gemm(a, a_row, a_step, b, b_row, c, c_row, n_rows, n_inner, n_columns, add):
    """``c[i, j] = sum_k a[i, k] * b[k, j]``, added to what c holds where ``add``.

    Addresses in bytes, strides in floats: a has any two (rows, inner), b and c have adjacent columns, whose count is a
    multiple of 16.
    """
    blocks = n_columns // _BLOCK * _BLOCK
    fours = n_rows // 4 * 4
    for j in range(0, blocks, _BLOCK):
        for i in range(0, fours, 4):
            _four_by_block(
                a + 4 * i * a_row, a_row, a_step, b + 4 * j, b_row, c + 4 * (i * c_row + j), c_row, n_inner, add
            )
        for i in range(fours, n_rows):
            _one_by_block(a + 4 * i * a_row, a_step, b + 4 * j, b_row, c + 4 * (i * c_row + j), n_inner, add)
    for j in range(blocks, n_columns, CHANNELS):
        for i in range(0, fours, 4):
            _four_by_row(
                a + 4 * i * a_row, a_row, a_step, b + 4 * j, b_row, c + 4 * (i * c_row + j), c_row, n_inner, add
            )
        for i in range(fours, n_rows):
            _one_by_row(a + 4 * i * a_row, a_step, b + 4 * j, b_row, c + 4 * (i * c_row + j), n_inner, add)
