"""Live systems on the page: planted costs, sizes and waits come out as the sentences and tables that a reader sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.analysis.live import live_of
from bench.plan.cell import Cell
from bench.records.record import Record
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render, sections

FIELDS = {"resident_users": 100, "device": "cpu", "dtype": "float32", "batch_size": 1}


def load(**values: Any) -> Record:
    """A thousand requests: half of them take 1 ms, 450 take 4 ms and fifty 80 ms."""
    total = np.repeat([0.001, 0.004, 0.08], [500, 450, 50]).tolist()
    cell = Cell(
        task="stream_load", mixer="mamba", backend="numba", policy="state", n_tokens=1000, n_layers=2, d_model=64,
        device="cpu", dtype="float32", bound_ms=50.0,
    )  # fmt: skip
    usual = {
        "reached": 1, "p99_allowed": 1, "rate_offered_per_s": 200.0, "rate_per_s": 199.0, "hit_rate": 0.75,
        "highest_rate_per_s": 300.0, "too_high_rate_per_s": 400.0, "closed_rate_per_s": 400.0,
    }  # fmt: skip
    notes = {name: f"planted: not {name}" for name, value in values.items() if not value}
    samples = {"total_s": total, "update_s": [0.0005] * 1000}
    return Record(
        run="r", cell_id=cell.id, round=0, cell=dict(cell), status="ok", samples=samples,
        values={**usual, **values}, notes=notes,
    )  # fmt: skip


def test_policies_stand_beside_each_other(planted_records: Any) -> None:
    """A state of 19,000 bytes at 1 ms; a cache of 1,000 bytes an event at 1 us an event: 9.999 ms at the longest."""
    records = [
        *planted_records({"mamba": lambda n: 1e-3}, policy="state", task="stream_step", **FIELDS),
        *planted_records({"attention": lambda n: 1e-6 * n}, policy="kv", task="stream_step", **FIELDS),
    ]
    planted = []
    for each in records:
        kept = 19_456 if each.cell["policy"] == "state" else 1024 * each.cell["n_tokens"]
        values = {"state_bytes": kept, "state_bytes_by_arithmetic": kept, "update_s": 2e-4, "refresh_s": 3e-4}
        planted.append(replace(each, values={**each.values, **values}))
    findings = Findings.of([Run("r", {}, planted)])
    page = render(findings)
    said = "With histories of 9,999 events a user costs 1.00 ms a request and 19.0 KiB with mamba(state); 10.0 ms a"
    assert said in page
    assert "9.77 MiB with attention(kv)" in page
    assert "up to L* = 1,000" in page  # of the answer
    assert "Bytes a user against their events" in page
    assert "live" in [section.name for section in sections(findings, terminal=True)]


def test_percentiles_of_a_load_are_told() -> None:
    (found,) = live_of([load()])
    assert [found.percentiles["total_s", percent].value for percent in (50, 95, 99)] == [0.001, 0.004, 0.08]
    page = render(Findings.of([Run("r", {}, [load()])]))
    assert "mamba(state), 999 events, at 200 requests a second: p50 1.00 ms, p95 4.00 ms, p99 80.0 ms" in page
    assert "300 requests a second hold within 50.0 ms for 99 %, 400 do not" in page
    assert "states found in memory 75%" in page


@pytest.mark.parametrize(("fault", "told"), [("p99_allowed", [50, 95]), ("reached", [])])
def test_what_the_machine_cannot_tell_is_left_out_and_said(fault: str, told: list[int]) -> None:
    (found,) = live_of([load(**{fault: 0})])
    assert [percent for part, percent in found.percentiles if part == "total_s"] == told
    assert ("update_s", 50) in found.percentiles
    page = render(Findings.of([Run("r", {}, [load(**{fault: 0})])]))
    assert f"planted: not {fault}" in page
    assert "p99 80.0 ms" not in page


def test_failures_of_a_load_are_listed() -> None:
    failed = replace(load(), status="timeout", reason="planted end", samples={}, values={})
    assert "planted end" in render(Findings.of([Run("r", {}, [failed])]))
