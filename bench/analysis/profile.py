"""Where the time and the memory of a step go: the records of a profile, region by region and op by op.

A region's time is its mean over the faster half of the marked steps. Unlike medians of single regions, such means add
up to the step's. The slower half is left out because what disturbs a step from outside only ever makes it slower.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.cells import PROFILE, identity, number, without
from bench.analysis.estimate import Floats
from bench.analysis.roof import least_s
from bench.records.record import Record
from bench.records.region import GROUPS, Region
from bench.records.store import Run


@dataclass(frozen=True, kw_only=True)
class Share:
    """Cost of one region, or of several together.

    Attributes:
        name: of the region, or of what they have in common.
        seconds: a step, the optimizer's update included.
        forward_s, backward_s: of these, in the forward and in the backward pass.
        share: of the step's time.
        live_bytes: in use at the moment when most memory was, by whoever allocated it; None where unknown.
        roof_share: least possible time on this machine over the measured; None where there is no least work.
    """

    name: str
    seconds: float
    forward_s: float
    backward_s: float
    share: float
    live_bytes: float | None
    roof_share: float | None


@dataclass(frozen=True, kw_only=True)
class Op:
    """One op, or on CUDA one kernel, in one region.

    Attributes:
        region: where.
        name: of the op.
        seconds: a step, without the ops that it calls.
        calls: a step.
    """

    region: Region
    name: str
    seconds: float
    calls: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Of one cell.

    Attributes:
        run: name of the run.
        cell: the fields of the cell whose step it is.
        content_tokens: of the content tower; 0 where there is one tower.
        status, reason: of the record.
        plain_s: seconds of a step without the instrument.
        marked_s: seconds of a step with it, its own work left out; what the regions add up to.
        n_steps: plain steps, marked steps.
        regions: seconds of each, in the order in which a step meets them.
        live_bytes: by region.
        roof_s: by region: least possible time on this machine.
        ops: the most expensive first.
        profiled_s: seconds of a step under torch's profiler, which the ops' times are of; None where it did not run.
        kernel_s: seconds in which a GPU's kernel ran; None on the CPU.
        peak_bytes: peak memory of a step, as the sweep measures it; None where unknown.
        notes: what is missing and why.
    """

    run: str
    cell: Mapping[str, Any]
    content_tokens: int
    status: str
    reason: str
    plain_s: float
    marked_s: float
    n_steps: tuple[int, int]
    regions: Mapping[Region, float]
    live_bytes: Mapping[Region, float]
    roof_s: Mapping[Region, float]
    ops: Sequence[Op]
    profiled_s: float | None
    kernel_s: float | None
    peak_bytes: float | None
    notes: Mapping[str, str]

    @property
    def n_tokens(self) -> int:
        return int(number(self.cell.get("n_tokens")) or 0)

    @property
    def overhead(self) -> float:
        """How much longer a marked step takes than a plain one, as a share of the plain one."""
        return self.marked_s / self.plain_s - 1

    @property
    def launch_bound(self) -> float | None:
        """Share of a plain step in which the GPU runs no kernel; None on the CPU."""
        return None if self.kernel_s is None else max(0.0, 1 - self.kernel_s / self.plain_s)

    def groups(self) -> list[Share]:
        """Blocks and projections together, in the order of a step."""
        order = list(dict.fromkeys(GROUPS.values()))
        found = self._together(lambda region: region.group)
        return sorted(found, key=lambda share: order.index(share.name) if share.name in order else len(order))

    def parts(self) -> list[Share]:
        """Every region of every block, its passes together."""
        return self._together(lambda region: str(region).partition("/")[2])

    def towers(self) -> list[Share]:
        """User tower, content tower, scoring, loss, optimizer; empty for one tower."""
        if not self.content_tokens:
            return []
        found = self._together(lambda region: f"{region.tower} tower" if region.tower else region.group)
        return sorted(found, key=lambda share: not share.name.endswith("tower"))

    def whole(self) -> Share:
        """The whole step."""
        return self._share("step", list(self.regions))

    def _together(self, name: Callable[[Region], str]) -> list[Share]:
        members: dict[str, list[Region]] = defaultdict(list)
        for region in self.regions:
            members[name(region)].append(region)
        return [self._share(label, regions) for label, regions in members.items()]

    def _share(self, name: str, regions: Sequence[Region]) -> Share:
        passes: dict[str, float] = defaultdict(float)
        for region in regions:
            passes[region.phase] += self.regions[region]
        total = sum(passes.values())
        bounded = [region for region in regions if region in self.roof_s]
        bounded_s = sum(self.regions[region] for region in bounded)
        roof_s = sum(self.roof_s[region] for region in bounded)
        return Share(
            name=name, seconds=total, forward_s=passes["forward"], backward_s=passes["backward"],
            share=total / self.marked_s,
            live_bytes=sum(self.live_bytes.get(region, 0.0) for region in regions) if self.live_bytes else None,
            roof_share=roof_s / bounded_s if bounded_s > 0 else None,
        )  # fmt: skip


def profiles_of(runs: Iterable[Run]) -> list[Profile]:
    """Of every profiled cell, each curve in ascending order of L."""
    found: list[Profile] = []
    for run in runs:
        own = [profile_of(record) for record in run.records if record.cell.get("task") == PROFILE]
        found += sorted(own, key=lambda profile: (identity(without(profile.cell, "n_tokens")), profile.n_tokens))
    return found


def profile_of(record: Record) -> Profile:
    """What one record says; without numbers where its status is not ok."""
    values = {name: value for name, raw in record.values.items() if (value := number(raw)) is not None}
    marked = _readings(record.samples.get("marked_wall_s"))
    kept = faster_half(marked)
    seconds = {
        region: float(np.mean(readings[kept]))
        for region, raw in _by_region(record.samples, "region_s").items()
        if len(readings := _readings(raw)) == len(marked) > 0
    }
    plain = _readings(record.samples.get("wall_s"))
    return Profile(
        run=record.run,
        cell={**without(record.cell, "profiled", "content_tokens"), "task": record.cell.get("profiled")},
        content_tokens=int(number(record.cell.get("content_tokens")) or 0), status=record.status,
        reason=record.reason, plain_s=float(np.mean(plain[faster_half(plain)])) if len(plain) else math.nan,
        marked_s=sum(seconds.values()) or math.nan, n_steps=(len(plain), len(marked)), regions=seconds,
        live_bytes=_by_region(values, "live_bytes"), roof_s=roof_times(values),
        ops=sorted(_ops(values), key=lambda op: -op.seconds), profiled_s=values.get("profiled_s"),
        kernel_s=values.get("kernel_s"), peak_bytes=values.get("peak_memory_bytes"), notes=record.notes,
    )  # fmt: skip


def faster_half(seconds: Floats) -> NDArray[np.intp]:
    """Indices of the steps that took at most the median."""
    return np.argsort(seconds, kind="stable")[: (len(seconds) + 1) // 2]


def roof_times(values: Mapping[str, float]) -> dict[Region, float]:
    """Least seconds of each region on this machine; regions without least work are left out."""
    work: dict[Region, dict[str, float]] = {}
    for prefix, name in (("flops", "flops"), ("exps", "exps"), ("min_bytes", "n_bytes")):
        for region, amount in _by_region(values, prefix).items():
            work.setdefault(region, {})[name] = amount
    found = {region: least_s(values, **amounts) for region, amounts in work.items()}
    return {region: seconds for region, seconds in found.items() if seconds > 0}


def _ops(values: Mapping[str, float]) -> Iterable[Op]:
    calls = _suffixed(values, "op_calls")
    for key, seconds in _suffixed(values, "op_s").items():
        where, _, name = key.partition(":")
        region = _region(where)
        if region is not None and name:
            yield Op(region=region, name=name, seconds=seconds, calls=calls.get(key, math.nan))


def _by_region(named: Mapping[str, Any], prefix: str) -> dict[Region, Any]:
    found = {_region(key): value for key, value in _suffixed(named, prefix).items()}
    return {region: value for region, value in found.items() if region is not None}


def _suffixed(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}:"): value for name, value in named.items() if name.startswith(f"{prefix}:")}


def _region(text: str) -> Region | None:
    try:
        return Region.parse(text)
    except ValueError:
        return None


def _readings(raw: object) -> Floats:
    values = [number(each) for each in raw] if isinstance(raw, list) else []
    return np.array([] if None in values else values, dtype=float)
