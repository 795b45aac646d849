"""Cold starts: planted seconds come out as medians and maxima, by task and variant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.analysis.cold_start import cold_starts
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render, sections


def test_medians_and_the_longest_call(planted_records: Any) -> None:
    records = planted_records({"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-6 * n}, lengths=(100, 1000))
    assert cold_starts(records) == []
    calls = {0: 5.0, 1: 0.5, 2: 0.7}
    planted = [
        replace(r, values={**r.values, "import_s": 1.5, "first_call_s": calls[r.round] + (r.cell["mixer"] == "mamba")})
        for r in records
    ]
    mamba, attention = sorted(cold_starts(planted), key=lambda each: -each.longest_s)
    assert (mamba.variant.mixer, attention.variant.mixer) == ("mamba", "attention")
    assert (mamba.import_s, mamba.first_call_s, mamba.longest_s, mamba.n) == (1.5, 1.7, 6.0, 6)
    findings = Findings.of([Run("r", {}, planted)])
    assert "A first call takes up to 6.00 s (mamba/numba, forward), beside 1.50 s of imports." in render(findings)
    assert "cold-start" in [section.name for section in sections(findings, terminal=True)]


def test_precision_is_shown_where_it_differs(planted_records: Any) -> None:
    records = planted_records({"mamba": lambda n: 1e-6 * n}, lengths=(100,))
    for told in ({False: "no"}, {False: "no", True: "yes"}):
        states = [*told]
        planted = [
            replace(r, env={"precision": {"flush_denormal": states[r.round % len(states)]}}) for r in records
        ]  # fmt: skip
        page = render(Findings.of([Run("r", {}, planted)]))
        assert f"<dt>flush denormal</dt><dd>{' or '.join(told.values())}</dd>" in page
