"""The rate of fused multiply-adds that this machine reaches from registers alone: a roof for the CPU kernels.

Runs on the kernels' own threads, with the vectors they use, and touches no memory but for its end result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray, njit

from ftmamba.ops.simd import JIT, compile_entry, fetch_add, full_row, store_row
from ftmamba.threads import Kernel, get_threads

FIELDS = ["n_items", "n_steps", "result"]
_CHAINS = 6  # independent sums: enough to hide the latency, few enough for the registers of AVX2


@njit(**JIT)
def _item(n_steps, result, item):  # type: ignore[no-untyped-def]
    factor = full_row(np.float32(0.999))
    a, b, c, d, e, f = factor, factor, factor, factor, factor, factor
    for _ in range(n_steps):
        a, b, c = a * factor + factor, b * factor + factor, c * factor + factor
        d, e, f = d * factor + factor, e * factor + factor, f * factor + factor
    store_row(result, 16 * item, a + b + c + d + e + f)


def _entry(pointer: Any) -> None:
    record = carray(pointer, 1)
    p = record[0]
    counters = np.int64(record.ctypes.data) + record.itemsize - 16
    while True:
        item = fetch_add(counters, 1)
        if item >= p.n_items:
            break
        _item(p.n_steps, p.result, item)


_kernel = Kernel(lambda: compile_entry(_entry, FIELDS), FIELDS)


def multiply_adds(count: int) -> None:
    """Perform ``count`` fused multiply-adds of single numbers (rounded to whole vectors) on all threads."""
    n_items = 8 * get_threads()
    n_steps = count // (16 * _CHAINS * n_items)
    _kernel(n_threads=get_threads(), n_items=n_items, n_steps=n_steps, result=torch.empty(16 * n_items))
