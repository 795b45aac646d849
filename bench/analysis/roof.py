"""What a machine's measured rates allow at best: by arithmetic, by exponentials, by memory traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.cells import TIME, CellSummary, number
from bench.plan import tasks
from bench.plan.axes import ROOF_OF
from bench.plan.cell import Cell
from ftmamba import mixers

MOST_TOKENS = 10_000_000  # the columns of a longer row would fill the memory; records may name any
FLOPS, EXPS, COPY = "roof_flops_per_s", "roof_exps_per_s", "roof_bytes_per_s"


def least_s(rates: Mapping[str, Any], *, flops: float = 0.0, exps: float = 0.0, n_bytes: float = 0.0) -> float:
    """Seconds that the scarcest of three resources needs; 0 where nothing is known.

    Bytes move at the rate measured for the largest copy that is not larger than the traffic: what fits into a cache
    may move as fast as a cache. A rate that is not known sets no bound.

    Args:
        rates: ``roof_flops_per_s``, ``roof_exps_per_s``, and for several sizes N ``roof_bytes_per_s:N``.
        flops, exps, n_bytes: the work.
    """
    known = {name: rate for name, raw in rates.items() if (rate := number(raw)) is not None and rate > 0}
    copies = sorted(
        (int(size), rate)
        for name, rate in known.items()
        if name.startswith(f"{COPY}:") and (size := name.removeprefix(f"{COPY}:")).isdigit()
    )
    work = ((flops, known.get(FLOPS, 0.0)), (exps, known.get(EXPS, 0.0)), (n_bytes, _copy_rate(n_bytes, copies)))
    return max(amount / rate if rate > 0 else 0.0 for amount, rate in work)


def rates_of(meta: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rates that a run measured for a cell's dtype, or what its products are in; empty where it has none."""
    machine = meta.get("machine")
    roofs = machine.get("roof") if isinstance(machine, dict) else None
    dtype = fields.get("dtype")
    key = ROOF_OF.get(str(fields.get("precision")), dtype)
    rates = roofs.get(key) if isinstance(roofs, dict) else None
    return rates if isinstance(rates, dict) else {}


def roof_share(cell: CellSummary, meta: Mapping[str, Any]) -> float | None:
    """The least time of a cell over its median, by the rates that its run measured; None where either is missing."""
    rates, time = rates_of(meta, cell.cell), cell.estimates.get(TIME)
    if time is None:
        return None
    flops, exps, n_bytes = (cell.values.get(name, 0.0) for name in ("flops", "exps", "min_bytes"))
    return least_s(rates, flops=flops, exps=exps, n_bytes=n_bytes) / time.value or None


def cell_least_s(fields: Mapping[str, Any], rates: Mapping[str, Any]) -> float | None:
    """The least time of a cell that need not have been measured, by the cost model; None where it has none."""
    known = fields.get("task") in tasks.names() and fields.get("mixer") in mixers.NAMES
    if not known or (number(fields.get("n_tokens")) or 0) > MOST_TOKENS:
        return None
    model = tasks.find(str(fields["task"])).cost
    try:
        cost = model(Cell(**fields)) if model else None
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):  # records may hold cells that cannot be
        return None
    return least_s(rates, flops=cost.flops, exps=cost.exps, n_bytes=cost.min_bytes) or None if cost else None


def _copy_rate(n_bytes: float, copies: Sequence[tuple[int, float]]) -> float:
    fitting = [rate for size, rate in copies if size <= n_bytes] or [rate for _, rate in copies[:1]]
    return fitting[-1] if fitting else 0.0
