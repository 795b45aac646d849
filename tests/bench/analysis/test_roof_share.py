"""Shares of a machine's limit, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.analysis.cells import summarise_cells
from bench.analysis.roof import least_s, roof_share
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render

RATES = {"roof_flops_per_s": 1e9, "roof_exps_per_s": 1e8, "roof_bytes_per_s:1000": 4e9, "roof_bytes_per_s:1000000": 1e9}


def test_the_scarcest_resource_counts() -> None:
    assert least_s(RATES, flops=2e9, exps=1e7, n_bytes=1e6) == pytest.approx(2.0)
    assert least_s(RATES, flops=1e6, exps=1e7, n_bytes=1e6) == pytest.approx(0.1)


def test_small_traffic_moves_at_the_caches_rate() -> None:
    assert least_s(RATES, n_bytes=2000) == pytest.approx(5e-7)
    assert least_s(RATES, n_bytes=2e6) == pytest.approx(2e-3)
    assert least_s(RATES, n_bytes=10) == pytest.approx(2.5e-9)


def test_what_is_not_known_sets_no_bound() -> None:
    assert least_s({}, flops=1.0, exps=1.0, n_bytes=1.0) == 0
    assert least_s({"roof_flops_per_s": None, "roof_bytes_per_s:x": 1, "roof_exps_per_s": -3}, flops=1.0) == 0


def test_a_cell_s_share_of_its_run_s_roof(planted_records) -> None:
    records = planted_records({"mamba": lambda n: 1e-3 * n}, lengths=(100, 200))
    records = [replace(record, values={"flops": 1e7, "exps": 1e6, "min_bytes": 2e6}) for record in records]
    meta = {"machine": {"roof": {"float32": RATES}}}
    short, long = summarise_cells(records)
    assert roof_share(short, meta) == pytest.approx(0.1)  # 10 ms for the arithmetic and the exponentials, of 0.1 s
    assert roof_share(long, meta) == pytest.approx(0.05)
    for other in ({}, {"machine": None}, {"machine": {"roof": {"bfloat16": RATES}}}, {"machine": {"roof": [1]}}):
        assert roof_share(short, other) is None
    assert "of roof" in render(Findings.of([Run("planted", meta, records)]))
    assert "of roof" not in render(Findings.of([Run("planted", {}, records)]))
