"""Peak memory of one iteration, above what was in use before it."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import psutil  # type: ignore[import-untyped]
import torch
from torch._C import _autograd as autograd
from torch._C._profiler import ProfilerActivity, ProfilerConfig, ProfilerState, RecordScope, _ExperimentalConfig

from bench.run.probes import Reading
from bench.run.probes.nvml import Nvml

T = TypeVar("T")
KEEP_HEAP = {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD as high as can be; M_MMAP_MAX: no block is mapped by itself


def peak_of(step: Callable[[], T], device: str) -> tuple[T, Reading]:
    """Run ``step`` once.

    Returns:
        Its result, and ``peak_memory_bytes``: what torch's tensors held at most, above what they held before. What an
        allocator adds, keeps or hides is not in it, nor what libraries take for themselves; on the CPU, tensors from
        before that are freed meanwhile make no room. ``baseline_memory_bytes`` is what was in use before: by tensors
        on CUDA, by the whole process on the CPU. On CUDA ``peak_reserved_bytes`` (allocator) and
        ``process_memory_bytes`` (driver) are totals.
    """
    gc.collect()
    return _cuda_peak(step) if device == "cuda" else _cpu_peak(step)


def _cpu_peak(step: Callable[[], T]) -> tuple[T, Reading]:
    baseline = psutil.Process().memory_info().rss
    config = ProfilerConfig(ProfilerState.KINETO, False, True, False, False, False, _ExperimentalConfig())
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler tells of every start on standard error
    # The public interface would note every op as well, which for a loop over tokens is three times as much.
    autograd._prepare_profiler(config, {ProfilerActivity.CPU})
    autograd._enable_profiler(config, {ProfilerActivity.CPU}, {RecordScope.USER_SCOPE})  # type: ignore[call-arg]
    try:
        result = step()
    finally:
        events = autograd._disable_profiler().events()
    changes = sorted((event.start_ns(), i, event.nbytes()) for i, event in enumerate(events))  # type: ignore[attr-defined]
    peak = max(itertools.accumulate((n_bytes for *_, n_bytes in changes), initial=0))
    return result, Reading({"peak_memory_bytes": peak, "baseline_memory_bytes": baseline})


def _cuda_peak(step: Callable[[], T]) -> tuple[T, Reading]:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_stats().get("requested_bytes.all.current", 0)  # before an allocator rounds up
    result = step()
    torch.cuda.synchronize()
    peak = torch.cuda.memory_stats().get("requested_bytes.all.peak", 0)
    values: dict[str, float | int | None] = {
        "peak_memory_bytes": peak - baseline if peak else None,
        "baseline_memory_bytes": baseline,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
    notes = {} if peak else {"peak_memory_bytes": "torch's caching allocator is off or replaced, and counts nothing"}
    return result, Reading(values, notes) + Nvml.current().process_memory()


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
