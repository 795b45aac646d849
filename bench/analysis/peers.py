"""Our kernels beside other implementations of the same layer, setting by setting, within one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.analysis.cells import MEMORY, TIME, VARIANT, CellSummary, identity, paired_ratio, without
from bench.analysis.estimate import Estimate
from bench.plan.axes import BY_FIELD
from ftmamba import mixers
from ftmamba.ops import backends_of

KERNELS = {"numba", "triton"}  # packages that our own kernels are written with
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AgainstPeers:
    """One cell of ours and everything else that was measured at its task, length and setting.

    Attributes:
        ours: our mixer with our own kernels.
        others: its layer in other libraries or on other libraries' kernels, and other mixers.
    """

    ours: CellSummary
    others: tuple[CellSummary, ...]


def beside_ours(cells: Iterable[CellSummary]) -> list[AgainstPeers]:
    """One entry a cell of ours that gave a number, mixers and operators alike."""
    groups: dict[str, list[CellSummary]] = defaultdict(list)
    for cell in cells:
        groups[identity({"run": cell.run, **without(cell.cell, *VARIANT)})].append(cell)
    return [
        AgainstPeers(ours=ours, others=tuple(cell for cell in group if cell is not ours))
        for group in groups.values()
        for ours in group
        if ours.status == "ok" and needs(ours) and KERNELS.issuperset(needs(ours))
    ]


def find_peers(cells: Iterable[CellSummary]) -> list[AgainstPeers]:
    """One entry a cell of ours; none in a run that has no other implementation of its layer to compare with."""
    return [row for row in beside_ours(cells) if any(is_peer(cell, row.ours) for cell in row.others)]


def is_peer(cell: CellSummary, ours: CellSummary) -> bool:
    """Whether it is the layer of ``ours`` in another library, or on another library's kernels."""
    mixer = cell.cell.get("mixer")
    if mixer != ours.cell["mixer"]:
        return mixer in mixers.NAMES and mixers.find(str(mixer)).peer_of == ours.cell["mixer"]
    return not KERNELS.issuperset(needs(cell))


def needs(cell: CellSummary) -> tuple[str, ...]:
    """Packages that the cell's backend needs beyond torch; none where it is not known."""
    mixer, op, backend = cell.cell.get("mixer"), cell.cell.get("op"), str(cell.cell.get("backend"))
    known = [mixers.find(str(mixer)).backends] if mixer in mixers.NAMES else []
    ops = BY_FIELD["op"].choices
    known += [backends_of(str(op))] if ops and op in tuple(ops()) else []
    return next((backends[backend].packages for backends in known if backend in backends), ())


def not_peers(by_mixer: dict[str, T]) -> dict[str, T]:
    """Entries of our own mixers, by their names, where there are two at least; else all."""
    ours = {name: each for name, each in by_mixer.items() if is_own_mixer(name)}
    return ours if len(ours) > 1 else by_mixer


def is_own_mixer(name: str) -> bool:
    """Whether it is no other library's layer; ``name`` may have parameters behind it, and one not known is none."""
    plain = name.partition("(")[0]
    return plain not in mixers.NAMES or not mixers.find(plain).is_peer()


def ratio(ours: CellSummary, other: CellSummary, metric: str) -> Estimate | None:
    """How many times as much ``other`` takes, from turns in one process where it was paired with ours.

    None where one of them gave no number.
    """
    if metric == TIME and (paired := paired_ratio(other, ours)):
        return paired
    if metric not in ours.estimates or metric not in other.estimates:
        return None
    return other.estimates[metric].over(ours.estimates[metric])


def metrics_of(rows: Sequence[AgainstPeers]) -> list[str]:
    """Those of time and peak memory that at least one ratio can be given for."""
    return [
        metric for metric in (TIME, MEMORY)
        if any(ratio(row.ours, other, metric) for row in rows for other in row.others)
    ]  # fmt: skip
