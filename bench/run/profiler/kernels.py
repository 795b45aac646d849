"""What torch's profiler sees of a step: time of every op and GPU kernel, memory by region, and a trace.

The profiler slows short ops down by about a microsecond each, so these times are for comparing ops with each other;
the regions' times come from ``timeline``.
"""

from __future__ import annotations

import bisect
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from bench.records.region import Region
from bench.run.profiler.instrument import OVERHEAD, Instrument

RegionOf = Callable[[int], Region | None]

STEP = "step"
ENGINE = "autograd::engine::evaluate_function"
MOST_EVENTS = 40_000  # in all; beyond, the profiler's own tables take minutes
MOST_STEPS = 5


@dataclass(frozen=True)
class Kernels:
    """Readings of one step, median over the profiled ones.

    Attributes:
        op_s: by region and op: processor seconds of the op itself, without the ops it calls; on CUDA by region and
            kernel: seconds that it ran.
        op_calls: how often, a step.
        step_s: seconds of a profiled step, without the instrument's own.
        kernel_s: seconds in which a kernel ran; None on the CPU.
        live_bytes: by region: bytes it had allocated and that were in use when most were, above the step's start.
        recorded: for the trace.
        region_of: the region of an autograd node by its sequence number.
    """

    op_s: dict[tuple[Region, str], float]
    op_calls: dict[tuple[Region, str], float]
    step_s: float
    kernel_s: float | None
    live_bytes: dict[Region, int]
    recorded: profile = field(repr=False)
    region_of: RegionOf = field(repr=False)


class Ranges:
    """Gives each forward region a range in the trace; backward regions are told from their nodes' numbers."""

    def __init__(self) -> None:
        self._open: record_function | None = None

    def switch(self, region: Region) -> None:
        self.close()
        if region.phase != "backward":
            self._open = record_function(str(region))
            self._open.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def profile_step(step: Callable[[], object], outside: Region, device: str, n: int) -> Kernels:
    """Profile ``n`` steps after one that is thrown away."""
    cuda = device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    ranges = Ranges()
    instrument = Instrument(ranges.switch, outside, remember=True)
    with profile(activities=activities, profile_memory=True) as found, instrument:
        for _ in range(n + 1):
            with record_function(STEP):
                instrument.run(step)
                ranges.close()
                if cuda:
                    torch.cuda.synchronize()
    events = sorted(
        (event for event in found.events() if event.device_type.name == "CPU"),
        key=lambda event: (event.time_range.start, -event.time_range.end),
    )
    times, calls, step_s, kernel_s = op_times(events, instrument.region_of, cuda=cuda)
    assert found.profiler is not None
    tree = found.profiler.kineto_results.experimental_event_tree()
    live = live_at_peak(tree, instrument.region_of, outside, device)
    return Kernels(times, calls, step_s, kernel_s, live, found, instrument.region_of)


def op_times(
    events: list[Any], region_of: RegionOf, *, cuda: bool
) -> tuple[dict[tuple[Region, str], float], dict[tuple[Region, str], float], float, float | None]:
    """Readings of `Kernels` from the profiler's events: ``op_s``, ``op_calls``, ``step_s`` and ``kernel_s``.

    Args:
        events: on the processor, in order of time; the first step's do not count.
        region_of: the region of an autograd node by its sequence number.
        cuda: whether to count the kernels that an op launched instead of the op.
    """
    steps = [event for event in events if event.name == STEP]
    starts = [event.time_range.start for event in steps]
    n = len(steps) - 1
    step_s = [event.time_range.elapsed_us() / 1e6 for event in steps[1:]]
    seconds: dict[tuple[Region, str], list[float]] = defaultdict(lambda: [0.0] * n)
    counts: dict[tuple[Region, str], int] = defaultdict(int)
    kernel_s = [0.0] * n
    for event, region in zip(events, regions_of_events(events, region_of), strict=True):
        at = bisect.bisect_right(starts, event.time_range.start) - 2  # the first step is thrown away
        if region is None or at < 0 or event.name == "[memory]":
            continue
        if region == OVERHEAD:
            step_s[at] -= event.self_cpu_time_total / 1e6
        elif cuda:
            for kernel in () if event.is_user_annotation else event.kernels:
                seconds[region, kernel.name][at] += kernel.duration / 1e6
                counts[region, kernel.name] += 1
                kernel_s[at] += kernel.duration / 1e6
        else:
            name = "Python" if event.name == str(region) else event.name.removeprefix(f"{ENGINE}: ")
            seconds[region, name][at] += event.self_cpu_time_total / 1e6
            counts[region, name] += 1
    times = {key: statistics.median(each) for key, each in seconds.items()}
    calls = {key: count / n for key, count in counts.items()}
    return times, calls, statistics.median(step_s), statistics.median(kernel_s) if cuda else None


def regions_of_events(events: Iterable[Any], region_of: RegionOf) -> list[Region | None]:
    """The region of each event; None outside all of them.

    Args:
        events: on the processor, in order of time.
        region_of: the region of an autograd node by its sequence number.
    """
    regions: dict[int, Region | None] = {}
    backward: Region | None = None
    result = []
    for event in events:
        if event.name.startswith(ENGINE):
            # The node that adds up a weight's gradient has no number and runs straight after the one that made it.
            backward = backward_region(region_of, event.sequence_nr) or backward
            region = backward
        elif event.is_user_annotation:
            region = range_region(event.name)
        else:
            region = regions.get(id(event.cpu_parent))
        regions[id(event)] = region
        result.append(region)
    return result


def live_at_peak(roots: Iterable[Any], region_of: RegionOf, outside: Region, device: str) -> dict[Region, int]:
    """Bytes in use when most were, by the region that allocated them; what was there before is left out.

    Args:
        roots: of the profiler's event tree.
        region_of: the region of an autograd node by its sequence number.
        outside: what memory counts as that no region asked for.
        device: whose memory.
    """
    live: dict[int, tuple[Region, int]] = {}
    in_use: dict[Region, int] = defaultdict(int)
    peak: dict[Region, int] = {}
    total = highest = 0
    for _, region, fields in sorted(_allocations(roots, region_of, outside), key=lambda found: found[0]):
        if fields.device.type != device:
            continue
        if fields.alloc_size >= 0:
            live[fields.ptr] = (region, fields.alloc_size)
            size = fields.alloc_size
        else:
            region, size = live.pop(fields.ptr, (region, 0))
            size = -size
        in_use[region] += size
        total += size
        if total > highest:
            highest, peak = total, dict(in_use)
    return {region: size for region, size in peak.items() if size}


def _allocations(roots: Iterable[Any], region_of: RegionOf, outside: Region) -> Iterator[tuple[int, Region, Any]]:
    """Moment, region and fields of each allocation."""
    backward = outside.backward
    waiting = [(root, outside) for root in sorted(roots, key=lambda node: -int(node.start_time_ns))]
    while waiting:
        node, region = waiting.pop()
        if node.tag == torch._C._profiler._EventType.Allocation:
            yield node.start_time_ns, region, node.extra_fields
        elif node.name.startswith(ENGINE):
            backward = backward_region(region_of, node.extra_fields.sequence_number) or backward
            region = backward
        else:
            region = range_region(node.name) or region
        waiting += [(child, region) for child in reversed(node.children)]


def backward_region(region_of: RegionOf, sequence_nr: int) -> Region | None:
    """The region that an autograd node runs in; None for a node without a number."""
    region = region_of(sequence_nr) if sequence_nr >= 0 else None
    return None if region is None else region.backward


def range_region(name: str) -> Region | None:
    """The region whose range in the trace has this name; None of any other range."""
    try:
        return Region.parse(name)
    except ValueError:
        return None


def count_events(step: Callable[[], object]) -> int:
    """How many events torch's profiler sees in a step, without making its tables."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    assert found.profiler is not None
    return len(found.profiler.kineto_results.events())
