"""Peak memory of one iteration, above what was in use before it."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from bench.run.probes import Reading
from bench.run.probes.nvml import Nvml

T = TypeVar("T")
PROCESS = Path("/proc/self")
KEEP_HEAP = {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD as high as can be; M_MMAP_MAX: no block is mapped by itself


def peak_of(step: Callable[[], T], device: str) -> tuple[T, Reading]:
    """Run ``step`` once.

    Returns:
        Its result, and ``peak_memory_bytes`` (above the baseline) with ``baseline_memory_bytes``. On CUDA these are
        bytes that tensors occupy; ``peak_reserved_bytes`` (allocator) and ``process_memory_bytes`` (driver) are totals.
        On the CPU they are resident bytes of the process.
    """
    gc.collect()
    return _cuda_peak(step) if device == "cuda" else _cpu_peak(step)


def _cpu_peak(step: Callable[[], T], process: Path = PROCESS) -> tuple[T, Reading]:
    trim_heap()
    resettable = _reset_high_water(process)
    baseline, mark = _status_bytes(process, "VmRSS"), _status_bytes(process, "VmHWM")
    result = step()
    peak = _status_bytes(process, "VmHWM")
    if baseline is None or mark is None or peak is None:
        reason = f"{process}/status gives no resident set"
        return result, Reading(
            {"peak_memory_bytes": None, "baseline_memory_bytes": None}, {"peak_memory_bytes": reason}
        )
    if not resettable and peak <= mark:
        reason = "the high-water mark cannot be reset here, and was higher before the iteration"
        return result, Reading(
            {"peak_memory_bytes": None, "baseline_memory_bytes": baseline}, {"peak_memory_bytes": reason}
        )
    return result, Reading({"peak_memory_bytes": max(0, peak - baseline), "baseline_memory_bytes": baseline})


def _cuda_peak(step: Callable[[], T]) -> tuple[T, Reading]:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    result = step()
    torch.cuda.synchronize()
    values: dict[str, float | int | None] = {
        "peak_memory_bytes": torch.cuda.max_memory_allocated() - baseline,
        "baseline_memory_bytes": baseline,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
    return result, Reading(values) + Nvml.current().process_memory()


def trim_heap() -> None:
    """Give freed memory back to the system, so that an iteration cannot hide its need in what was used before."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


def keep_heap() -> None:
    """From now on keep freed memory, as allocators made for serving do.

    By default glibc gives large blocks back at once, or not, as the process' history has it; the next step then waits
    for the system to map fresh pages. That made equal processes differ by a factor of two.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
        if set_option is not None:
            for option, value in KEEP_HEAP.items():
                set_option(option, value)


def _reset_high_water(process: Path) -> bool:
    try:
        (process / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(process: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
