"""Matrix products of small, cache-resident matrices inside numba kernels, for any number of rows.

For matrices in memory use torch; this is for kernels that hold a few dozen tokens at a time.
"""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

from numba import njit

from ftmamba.ops.simd import CHANNELS, JIT, STATES
from ftmamba.ops.tiles import add, make_strips, replace

_wide, _narrow, _wide_add, _narrow_add = (
    make_strips(4, lanes, finish, rest=True) for finish in (replace, add) for lanes in (STATES * CHANNELS, CHANNELS)
)


@njit(**JIT)
def gemm(a, a_row, a_step, b, b_row, c, c_row, n_rows, n_inner, n_columns, added):
    """``c[i, j] = sum_k a[i, k] * b[k, j]``, added to what c holds where ``added``.

    Addresses in bytes, strides in floats: a has any two (rows, inner), b and c have adjacent columns, whose count is a
    multiple of 16.
    """
    if added:
        j = _wide_add(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, 0, n_columns, 0, 0)
        _narrow_add(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, j, n_columns, 0, 0)
    else:
        j = _wide(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, 0, n_columns, 0, 0)
        _narrow(a, a_row, a_step, n_inner, b, b_row, c, c_row, n_rows, j, n_columns, 0, 0)
