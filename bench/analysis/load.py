"""What else the machine did while a run's cells ran, and what the harness took for itself."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.analysis.cells import BUSY_CORES, number
from bench.records.record import Record


@dataclass(frozen=True)
class Load:
    """Of the cells that gave a number.

    Attributes:
        n_cells: of whom it is known.
        n_disturbed: beside whom others took more than ``BUSY_CORES``.
        typical_cores, most_cores: that others took, median and maximum.
        overhead_s: median seconds of a cell outside of its measured code; None where unknown.
    """

    n_cells: int
    n_disturbed: int
    typical_cores: float
    most_cores: float
    overhead_s: float | None


def load_of(records: Iterable[Record]) -> Load | None:
    """None where nothing is known of it."""
    ran = [record.env for record in records if record.status == "ok"]
    busy, overheads = (
        [reading for env in ran if (reading := number(env.get(name))) is not None]
        for name in ("other_busy_cores", "overhead_s")
    )
    if not busy:
        return None
    n_disturbed = sum(cores > BUSY_CORES for cores in busy)
    overhead_s = statistics.median(overheads) if overheads else None
    return Load(len(busy), n_disturbed, statistics.median(busy), max(busy), overhead_s)
