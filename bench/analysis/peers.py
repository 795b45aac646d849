"""Our Mamba beside other implementations of the same layer, setting by setting, within one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.cells import MEMORY, PAIRED_RATIO, TIME, CellSummary, identity, without
from bench.analysis.estimate import Estimate

MAMBA = "mamba"
OUR_BACKENDS = ("numba", "triton")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One cell of ours and everything else that was measured at its task, length and setting.

    Attributes:
        ours: our Mamba with our own kernels.
        others: Mamba layers of other libraries or on other libraries' kernels, and Transformers.
    """

    ours: CellSummary
    others: tuple[CellSummary, ...]


def find_peers(cells: Iterable[CellSummary]) -> list[Beside]:
    """One entry a cell of ours; none at all in a run that has no other implementation of Mamba to compare with."""
    groups: dict[str, list[CellSummary]] = defaultdict(list)
    for cell in cells:
        groups[identity({"run": cell.run, **without(cell.cell, "mixer", "backend")})].append(cell)
    found = []
    for group in groups.values():
        for ours in group:
            others = tuple(cell for cell in group if cell is not ours)
            if is_ours(ours) and ours.status == "ok" and any(is_peer(cell) for cell in others):
                found.append(Beside(ours=ours, others=others))
    return found


def is_ours(cell: CellSummary) -> bool:
    return cell.cell.get("mixer") == MAMBA and cell.cell.get("backend") in OUR_BACKENDS


def is_peer(cell: CellSummary) -> bool:
    """Whether it is a Mamba that is not on our kernels, and not our slow reference either."""
    mixer, backend = str(cell.cell.get("mixer")), cell.cell.get("backend")
    return MAMBA in mixer and not is_ours(cell) and (mixer, backend) != (MAMBA, "reference")


def ratio(ours: CellSummary, other: CellSummary, metric: str) -> Estimate | None:
    """How many times as much ``other`` takes, from turns in one process where it was paired with ours.

    None where one of them gave no number.
    """
    name = f"{ours.cell.get('mixer')}/{ours.cell.get('backend')}"
    if metric == TIME and PAIRED_RATIO in other.estimates and other.notes.get("paired_with") == name:
        return other.estimates[PAIRED_RATIO]
    if metric not in ours.estimates or metric not in other.estimates:
        return None
    return other.estimates[metric].over(ours.estimates[metric])


def metrics_of(rows: Sequence[Beside]) -> list[str]:
    """Those of time and peak memory that at least one ratio can be given for."""
    return [
        metric for metric in (TIME, MEMORY)
        if any(ratio(row.ours, other, metric) for row in rows for other in row.others)
    ]  # fmt: skip
