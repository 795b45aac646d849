"""What this machine can do at best: matrix product, copy, exponential. A region's roof follows from these rates."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

import torch

from bench.records.text import printable
from bench.run.probes import Reading, wall

BUDGET_S = 0.2  # for each rate
SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices
EXP = {"cpu": "numba_exp", "cuda": "triton_exp"}
# Read and written together: what the caches near a core hold, what a large cache holds, what none holds.
COPY_BYTES = {"cpu": (2**20, 2**24, 2**28), "cuda": (2**22, 2**26, 2**30)}


def measure(device: str, dtype: torch.dtype) -> Reading:
    """``roof_flops_per_s`` (multiply and add are two), and for several sizes N ``roof_bytes_per_s:N``.

    Each is the best of the readings that fit in the budget: a roof is what is possible, not what is usual.
    ``roof_exps_per_s`` counts float32 exponentials; where their kernel cannot run it is None, with the reason.
    """
    side = SIDE[device]
    a = torch.randn(side, side, device=device).to(dtype)
    b, product = a.clone(), torch.empty_like(a)
    values: dict[str, float | int | None] = {
        "roof_flops_per_s": 2 * side**3 / _best_s(device, lambda: torch.mm(a, b, out=product))
    }
    for n_bytes in COPY_BYTES[device]:
        source = torch.ones(n_bytes // 8, device=device)
        target = torch.empty_like(source)
        values[f"roof_bytes_per_s:{n_bytes}"] = n_bytes / _best_s(device, lambda t=target, s=source: t.copy_(s))  # type: ignore[misc]
    try:
        exponentials, n_exps = importlib.import_module(f"{__name__}.{EXP[device]}").work()
        values["roof_exps_per_s"] = n_exps / _best_s(device, exponentials)
    except Exception as error:  # whatever is wrong with a compiler, the other rates hold
        reason = f"{type(error).__name__}: {printable(str(error))[:300]}"
        return Reading({**values, "roof_exps_per_s": None}, {"roof_exps_per_s": reason})
    return Reading(values)


def highest(*readings: Reading) -> Reading:
    """The best of several measurements: what disturbs one of them need not disturb the next."""
    best = Reading()
    for reading in readings:
        better = {
            name: rate for name, rate in reading.values.items() if (rate or 0.0) >= (best.values.get(name) or 0.0)
        }
        best += Reading(better, reading.notes)
    return best


def _best_s(device: str, work: Callable[[], object]) -> float:
    clock = wall.clock_for(device)
    clock.read(work, 3)
    end = time.perf_counter() + BUDGET_S
    readings = clock.read(work, 5)
    while time.perf_counter() < end:
        readings += clock.read(work, 5)
    return min(readings)
