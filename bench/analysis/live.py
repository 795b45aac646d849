"""What users of a live system wait for: percentiles of an open loop, as far as the machine can tell them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.cells import LOAD, number, variant_of
from bench.analysis.estimate import Estimate
from bench.analysis.groups import grouped
from bench.analysis.percentiles import percentile
from bench.analysis.quality import medians
from bench.records.record import Record

TOLD = (50, 95, 99)
PARTS = ("queue_s", "update_s", "refresh_s", "top_k_s", "total_s", "closed_s", "late_s")


@dataclass(frozen=True, kw_only=True)
class Live:
    """One cell of ``stream_load``, its rounds together.

    Attributes:
        run, fields: which one.
        label: its mixer and policy.
        values: median over rounds.
        percentiles: by part and percent; none of a total that grew with a rate that was not reached, and no 99th where
            an empty server's own was too long.
        why: what is not told, and why.
        failures: of rounds without a number.
    """

    run: str
    fields: Mapping[str, Any]
    label: str
    values: Mapping[str, float]
    percentiles: Mapping[tuple[str, int], Estimate]
    why: Sequence[str]
    failures: Sequence[str]


def live_of(records: Iterable[Record]) -> list[Live]:
    """One a run and cell, in their order."""
    groups = grouped(
        [record for record in records if record.cell.get("task") == LOAD], lambda each: f"{each.run}/{each.cell_id}"
    )
    return [_live(group) for group in groups.values()]


def _live(group: Sequence[Record]) -> Live:
    good = [record for record in group if record.status == "ok"]
    values = medians(good)
    reached, allowed = (all(record.values.get(name) for record in good) for name in ("reached", "p99_allowed"))
    found = {}
    for part in PARTS:
        waits = part in ("queue_s", "total_s")
        readings = [x for record in good for raw in record.samples.get(part, ()) if (x := number(raw)) is not None]
        for percent in TOLD:
            told = (reached or not waits) and (allowed or percent < 99)
            if told and (each := percentile(readings, percent)):
                found[part, percent] = each
    return Live(
        run=group[0].run, fields=group[0].cell, label=variant_of(group[0].cell).mixer, values=values,
        percentiles=found,
        why=[*dict.fromkeys(each.notes[n] for each in good for n in ("reached", "p99_allowed") if n in each.notes)],
        failures=[f"{record.status}: {record.reason}" for record in group if record.status != "ok"],
    )  # fmt: skip
