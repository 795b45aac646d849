"""Seconds of each iteration: ``perf_counter`` on the CPU, events on the GPU."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Protocol

import torch


class Clock(Protocol):
    def read(self, step: Callable[[], object], n: int) -> list[float]:
        """Run ``n`` iterations, one straight after the other, and return the seconds of each."""
        ...


class CpuClock:
    """Wall time of the calling thread, which waits for all others of the iteration."""

    def read(self, step: Callable[[], object], n: int) -> list[float]:
        now = time.perf_counter_ns
        marks = [now()]
        for _ in range(n):
            step()
            marks.append(now())
        return [(end - start) / 1e9 for start, end in itertools.pairwise(marks)]


class CudaClock:
    """Time between events in the stream.

    Iterations are queued without waiting in between, as in a training loop; an iteration that the processor cannot
    launch as fast as the GPU finishes it is measured at the pace of its launches. Caches are left as the preceding
    iteration left them, for every backend alike.
    """

    def read(self, step: Callable[[], object], n: int) -> list[float]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        events[0].record()
        for event in events[1:]:
            step()
            event.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in itertools.pairwise(events)]


def clock_for(device: str) -> Clock:
    return CudaClock() if device == "cuda" else CpuClock()
