"""How cost grows with sequence length: exponents, fitted curves, and everything else that a sweep's records say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from bench.analysis.cells import METRICS, CellSummary, identity, summarise_cells, without
from bench.analysis.crossover import Crossover, find_crossovers
from bench.analysis.estimate import Estimate, Floats, weakest
from bench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """One curve: one metric of one mixer and backend against L, all else fixed.

    Attributes:
        run: name of the run.
        curve: the cell's fields without ``n_tokens``.
        metric: ``wall_s``, ``peak_memory_bytes`` or ``energy_j``.
        cells: the cells that gave this metric, in ascending order of L.
        exponent: slope of log(metric) on log(L) over the upper half of L; None with fewer than two lengths.
        fitted: the L that the exponent was fitted on.
        terms: ``(c0, c1, c2)`` of the non-negative fit c0 + c1*L + c2*L^2; None with fewer than three lengths.
        censored: the cells of this curve that gave no number.
    """

    run: str
    curve: Mapping[str, Any]
    metric: str
    cells: tuple[CellSummary, ...]
    exponent: Estimate | None
    fitted: tuple[int, ...]
    terms: tuple[float, float, float] | None
    censored: tuple[CellSummary, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(cell.n_tokens for cell in self.cells)

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        return tuple(cell.estimates[self.metric] for cell in self.cells)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the records of a sweep say. Every number is per run: machines are never mixed."""

    cells: tuple[CellSummary, ...]
    scalings: tuple[Scaling, ...]
    crossovers: tuple[Crossover, ...]


def summarise(records: Iterable[Record]) -> Summary:
    """Medians, exponents, fits and crossovers of every cell and curve in the records, any number of runs."""
    cells = summarise_cells(records)
    return Summary(cells=tuple(cells), scalings=tuple(fit_curves(cells)), crossovers=tuple(find_crossovers(cells)))


def fit_curves(cells: Sequence[CellSummary]) -> list[Scaling]:
    """One scaling for each metric of each curve that has at least one number."""
    curves: dict[str, list[CellSummary]] = defaultdict(list)
    for cell in cells:
        curves[identity({"run": cell.run, **without(cell.cell, "n_tokens")})].append(cell)
    return [
        _fit(metric, members)
        for members in curves.values()
        for metric in METRICS
        if any(metric in cell.estimates and cell.n_tokens > 0 for cell in members)
    ]


def upper_half(lengths: Sequence[int]) -> tuple[int, ...]:
    """The longer half of the lengths, where growth dominates the constant; two at least."""
    return tuple(lengths[min(len(lengths) // 2, max(len(lengths) - 2, 0)) :])


def slope(lengths: Sequence[int], logs: Floats) -> Floats:
    """Least-squares slope of ``logs`` (..., n) on log(L)."""
    x = np.log(np.asarray(lengths, dtype=float))
    x -= x.mean()
    result: Floats = logs @ (x / (x @ x))
    return result


def fit_terms(lengths: Sequence[int], values: Sequence[float]) -> tuple[float, float, float]:
    """Non-negative c0 + c1*L + c2*L^2 with least *relative* squares, so that short L count as much as long ones."""
    n = np.asarray(lengths, dtype=float)
    y = np.asarray(values, dtype=float)
    scale = n.max()  # powers of L/max keep the columns of like size
    columns = np.stack([np.ones_like(n), n / scale, (n / scale) ** 2], axis=1) / y[:, None]
    # optimize.nnls is not always right before scipy 1.16.
    fit = optimize.lsq_linear(columns, np.ones_like(y), bounds=(0, np.inf), method="bvls")
    c = np.where(fit.active_mask == 0, fit.x, 0.0)  # a term at its bound is off zero by rounding
    return float(c[0]), float(c[1] / scale), float(c[2] / scale**2)


def _fit(metric: str, members: Sequence[CellSummary]) -> Scaling:
    measured = {cell.n_tokens: cell for cell in members if metric in cell.estimates and cell.n_tokens > 0}
    lengths = tuple(sorted(measured))
    values = [measured[n].estimates[metric].value for n in lengths]
    exponent: Estimate | None = None
    fitted: tuple[int, ...] = ()
    if len(lengths) > 1:
        fitted = upper_half(lengths)
        used = [measured[n].estimates[metric] for n in fitted]
        point = float(slope(fitted, np.log([each.value for each in used])))
        draws = slope(fitted, np.log(np.stack([each.draws for each in used], axis=1)))
        exponent = Estimate.from_draws(point, draws, weakest(used))
    return Scaling(
        run=members[0].run, curve=without(members[0].cell, "n_tokens"), metric=metric,
        cells=tuple(measured[n] for n in lengths), exponent=exponent, fitted=fitted,
        terms=fit_terms(lengths, values) if len(lengths) > 2 else None,
        censored=tuple(cell for cell in members if cell.status != "ok" and cell.n_tokens > 0),
    )  # fmt: skip
