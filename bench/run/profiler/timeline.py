"""Seconds of each region of a step. A step's time is divided among its regions without a rest."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from bench.records.region import Region
from bench.run.profiler.instrument import OVERHEAD, Instrument

Split = dict[Region, float]


class Timeline:
    """Made once for all steps of a model, so that the instrument looks through its modules but once.

    Args:
        outside: what the code of a step outside its model counts as.
    """

    def __init__(self, outside: Region) -> None:
        self._marks: list[tuple[Any, Region]] = []
        self._instrument = Instrument(self._mark, outside)

    def read(self, step: Callable[[], object], n: int) -> list[Split]:
        """Run ``n`` steps and return the seconds of each region of each, without the instrument's own."""
        raise NotImplementedError

    def _mark(self, region: Region) -> None:
        raise NotImplementedError

    def _marks_of(self, step: Callable[[], object], n: int) -> list[list[tuple[Any, Region]]]:
        """The marks of each step; one step straight after the other, with the caches as a step leaves them."""
        steps = []
        with self._instrument as instrument:
            for _ in range(n):
                self._marks = []
                instrument.run(step)
                self._mark(OVERHEAD)
                steps.append(self._marks)
        return steps


class CpuTimeline(Timeline):
    """Wall time between marks, which is what all threads together needed."""

    def read(self, step: Callable[[], object], n: int) -> list[Split]:
        return [_split([(at / 1e9, region) for at, region in marks]) for marks in self._marks_of(step, n)]

    def _mark(self, region: Region) -> None:
        self._marks.append((time.perf_counter_ns(), region))


class CudaTimeline(Timeline):
    """Time between events in the stream: what the GPU spends on a region, and what it waits for the region's launches.

    Steps are queued without waiting in between, as ``CudaClock`` does. The same names are given to Nsight as NVTX
    ranges.
    """

    _range: Any = None

    def read(self, step: Callable[[], object], n: int) -> list[Split]:
        torch.cuda.synchronize()
        steps = self._marks_of(step, n)
        torch.cuda.nvtx.range_end(self._range)
        self._range = None
        torch.cuda.synchronize()
        return [_split([(marks[0][0].elapsed_time(event) / 1e3, region) for event, region in marks]) for marks in steps]

    def _mark(self, region: Region) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._marks.append((event, region))
        if self._range is not None:
            torch.cuda.nvtx.range_end(self._range)
        self._range = torch.cuda.nvtx.range_start(str(region))


def timeline_for(device: str, outside: Region) -> Timeline:
    return CudaTimeline(outside) if device == "cuda" else CpuTimeline(outside)


def _split(marks: list[tuple[float, Region]]) -> Split:
    seconds: Split = defaultdict(float)
    for (start, region), (end, _) in itertools.pairwise(marks):
        seconds[region] += end - start
    seconds.pop(OVERHEAD, None)
    return seconds
