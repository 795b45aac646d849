"""Operators on the page: ours beside others at the same size, and errors against what is allowed."""

from __future__ import annotations

from typing import Any

from bench.plan.cell import Cell
from bench.records.record import Record
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import sections

MACHINE = {"machine": {"roof": {"float32": {"roof_bytes_per_s:1000": 1e9}}}}


def record(task: str, backend: str, n_tokens: int = 64, **fields: Any) -> Record:
    cell = Cell(task=task, op="selective_scan", backend=backend, n_tokens=n_tokens, batch_size=2, width=8)
    return Record(run="r", cell_id=cell.id, round=0, cell=dict(cell), **{"status": "ok", **fields})


def tables(*records: Record) -> dict[str, list[list[str]]]:
    (section,) = (each for each in sections(Findings.of([Run("r", MACHINE, list(records))])) if each.name == "ops")
    return {block.name: [[cell.text for cell in row] for row in block.rows] for block in section.blocks}


def test_ours_stands_beside_every_other_at_the_same_size() -> None:
    timed = [
        record("op", backend, n_tokens, samples={"wall_s": [seconds * n_tokens] * 5}, values={"min_bytes": 1000})
        for n_tokens in (64, 128)
        for backend, seconds in (("numba", 1e-6), ("reference", 40e-6), ("mambapy", 10e-6))
    ]
    rows = tables(*timed)["ops"]
    assert [(row[0], row[2], row[6], row[8]) for row in rows] == [
        ("selective_scan/numba", "64", "mambapy", "10x"),
        ("selective_scan/numba", "64", "reference", "40x"),
        ("selective_scan/numba", "128", "mambapy", "10x"),
        ("selective_scan/numba", "128", "reference", "40x"),
    ]
    assert rows[0][3:5] == ["64.0 µs", "1.6%"]  # 1,000 bytes at 1 GB/s take a microsecond
    assert Findings.of([Run("r", MACHINE, timed)]).summary.cells == ()


def test_errors_are_told_against_what_is_allowed() -> None:
    right = record("op_check", "numba", values={"error:y": 1e-7, "allowed:y": 4e-7, "error:z": 0.0, "allowed:z": 1e-7})
    wrong = record(
        "op_check", "numba", 128, status="error", reason="y is off", values={"error:y": 3.0, "allowed:y": 2.0}
    )
    assert tables(right, wrong)["op-errors"] == [["selective_scan/numba", "float32", "2", "1", "1.50"]]
    assert tables(right)["op-errors"] == [["selective_scan/numba", "float32", "1", "1", "0.250"]]
