"""Cells that cannot succeed are told beforehand, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.records.record import Record
from bench.records.store import load_run
from bench.run.forecast import Forecast, Refusal, expected_s
from bench.run.runner import cost_of
from ftmamba.cost import Cost

CELL = Cell(task="forward", mixer="attention", backend="sdpa", n_tokens=1000, batch_size=4, n_layers=2, d_model=64)
PLENTY = 2**40


def record(cell: Cell, status: str = "ok", *, wall_s: float = 0.0, flops: int = 0) -> Record:
    fields: dict[str, Any] = {"run": "r", "cell_id": cell.id, "round": 0, "cell": dict(cell), "status": status}
    if status == "ok":
        return Record(**fields, samples={"wall_s": [wall_s] * 3}, values={"flops": flops})
    return Record(**fields, reason="why")


def refusal(cell: Cell, *known: Record, skip_ahead: bool = True, flops: int = 1, free: int = PLENTY) -> Refusal | None:
    forecast = Forecast(60.0, skip_ahead=skip_ahead, records=known)
    return forecast.refusal(cell, Cost(params=1, flops=flops, exps=0, min_bytes=1, peak_bytes=2**30), free)


def test_memory_that_is_not_there() -> None:
    assert refusal(CELL, free=2**30) is None
    refused = refusal(CELL, free=2**29)
    assert refused == Refusal("needs at least 1 GiB by arithmetic, and 0.5 GiB are free", "memory")


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, True),
        ({"n_tokens": 2000}, True),
        ({"n_tokens": 2000, "batch_size": 8}, True),
        ({"batch_size": 8}, True),
        ({"n_tokens": 500}, False),
        ({"n_tokens": 2000, "batch_size": 2}, False),
        ({"n_tokens": 2000, "task": "train_step"}, False),
        ({"n_tokens": 2000, "mixer": "mamba"}, False),
        ({"n_tokens": 2000, "backend": "sdpa_math"}, False),
        ({"n_tokens": 2000, "n_layers": 3}, False),
        ({"n_tokens": 2000, "dtype": "bfloat16"}, False),
    ],
)
@pytest.mark.parametrize(("status", "limit"), [("oom", "memory"), ("timeout", "time")])
def test_a_failure_speaks_for_what_is_at_least_as_large(
    change: dict[str, Any], refused: bool, status: str, limit: str
) -> None:
    found = refusal(CELL.but(**change), record(CELL, status))
    assert (found is not None) == refused
    assert refusal(CELL.but(**change), record(CELL, status), skip_ahead=False) is None
    if found:
        assert found.limit == limit
        assert found.reason == f"{status} at n_tokens 1000, batch_size 4 in round 0, so not tried here"


@pytest.mark.parametrize("status", ["error", "skipped"])
def test_other_failures_speak_for_nothing(status: str) -> None:
    assert refusal(CELL.but(n_tokens=2000), record(CELL, status)) is None


def test_time_is_foretold_from_the_best_rate_seen() -> None:
    slow, fast = record(CELL, wall_s=1.0, flops=10**9), record(CELL, wall_s=1.0, flops=2 * 10**9)
    longer = CELL.but(n_tokens=100_000)
    assert refusal(longer, slow, fast, flops=119 * 10**9) is None
    refused = refusal(longer, fast, slow, flops=122 * 10**9)
    assert refused is not None
    assert refused.limit == "time"
    assert "one iteration would take about 61 s at the best rate seen (2 GFLOP/s)" in refused.reason
    assert refusal(longer.but(mixer="mamba"), fast, flops=10**15) is None


def test_a_rate_seen_in_short_iterations_tells_nothing() -> None:
    """They are bound by what every iteration costs to start, and would foretell far too much."""
    assert refusal(CELL.but(n_tokens=100_000), record(CELL, wall_s=0.001, flops=10**6), flops=10**15) is None


def test_the_expected_time_of_a_run_is_of_the_size_of_what_it_took() -> None:
    """Held against what the committed sweep's processes took on two cores; it is told beside --list."""
    run = load_run(Path(__file__).resolve().parents[3] / "results" / "cpu-sweep")
    plan = Plan(run.meta["spec"])
    cells = {cell.id: cell for cell in plan.cells()}
    pairs = [
        (expected_s(cells[record.cell_id], cost_of(cells[record.cell_id]), plan.budget_s, 2), record.env["process_s"])
        for record in run.records
        if record.cell_id in cells
    ]
    assert len(pairs) == len(run.records)
    assert 0.5 < sum(expected or 0.0 for expected, _ in pairs) / sum(took for _, took in pairs) < 2
    paired = [cell.but(paired_with="mamba/numba") for cell in cells.values() if cell.mixer == "attention"]
    longer = [expected_s(cell, cost_of(cell), plan.budget_s, 2) for cell in (paired[0], paired[0].but(paired_with=""))]
    assert (longer[0] or 0) > (longer[1] or 0)
    assert expected_s(paired[0], None, 1.0, 2) is None
