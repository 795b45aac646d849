"""Exponentials on the CPU as our scan computes them, in registers, with nothing around them."""

# mypy: ignore-errors
# Kernels are compiled by numba, whose decorators and vector types mypy cannot follow.

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import carray

from ftmamba.ops.cpu import kernel
from ftmamba.ops.simd import CHANNELS, STATES, add_product, exp2, fetch_add, full_row, over_states, store_row
from ftmamba.threads import get_threads

ROUNDS = 4096
CHAINS = 2  # of dependent exponentials, so that the latency of one hides behind the other
FIELDS = ["n_rounds", "out"]
_ZERO, _QUARTER, _HALF = np.float32(0.0), np.float32(0.25), np.float32(0.5)


def exponentials(pointer):
    """Each thread takes exponentials of numbers in [-1, 0] over and over."""
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    thread = fetch_add(counters, 0)
    zero = over_states(full_row(_ZERO))
    a, b = over_states(full_row(_QUARTER)), over_states(full_row(_HALF))
    for _ in range(p.n_rounds):
        a, b = exp2(zero - a), exp2(zero - b)
    store_row(p.out, thread * CHANNELS, add_product(full_row(_ZERO), a, b))


_kernel = kernel(exponentials, FIELDS)


def work() -> tuple[Callable[[], None], int]:
    """What to time, and how many exponentials it takes."""
    n_threads = get_threads()
    out = torch.empty(n_threads * CHANNELS)
    return lambda: _kernel(
        n_threads=n_threads, n_rounds=ROUNDS, out=out
    ), n_threads * ROUNDS * CHAINS * STATES * CHANNELS
