"""Curves with known exponents and terms are recovered; what has no number is kept as a bound."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.analysis.scaling import fit_terms, slope, summarise, upper_half
from bench.records.record import Record


def scaling_of(summary, mixer, metric="wall_s"):
    (found,) = [s for s in summary.scalings if s.curve["mixer"] == mixer and s.metric == metric]
    return found


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.37, 2.0])
def test_an_exact_power_law_gives_its_exponent(planted_records, power):
    summary = summarise(planted_records({"mamba": lambda n: 3e-5 * n**power}))
    assert scaling_of(summary, "mamba").exponent.value == pytest.approx(power, abs=1e-9)


def test_a_constant_does_not_spoil_the_exponent(planted_records):
    costs = {"mamba": lambda n: 1e-3 + 1e-5 * n, "attention": lambda n: 1e-3 + 1e-6 * n + 1e-8 * n * n}
    summary = summarise(planted_records(costs, between=0.02, within=0.02))
    assert scaling_of(summary, "mamba").exponent.value == pytest.approx(1.0, abs=0.06)
    assert scaling_of(summary, "attention").exponent.value == pytest.approx(1.98, abs=0.06)
    assert scaling_of(summary, "mamba").fitted == (1000, 3000, 10000)


def test_the_interval_of_an_exponent_holds_the_truth(planted_records):
    held = total = 0
    for seed in range(60):
        costs = {"mamba": lambda n: 1e-5 * n, "attention": lambda n: 1e-8 * n * n}
        summary = summarise(planted_records(costs, rounds=2, between=0.04, within=0.05, seed=seed))
        for mixer, truth in (("mamba", 1.0), ("attention", 2.0)):
            found = scaling_of(summary, mixer).exponent
            held += found.low <= truth <= found.high
            total += 1
            assert found.high - found.low < 0.5
    assert held / total >= 0.93


def test_upper_half():
    assert upper_half((100, 1000, 10000)) == (1000, 10000)
    assert upper_half((100, 300, 1000, 3000, 10000)) == (1000, 3000, 10000)
    assert upper_half((100, 110, 120, 10000)) == (120, 10000)  # two at least
    assert upper_half((5, 7)) == (5, 7)


def test_slope_agrees_with_numpy():
    rng = np.random.default_rng(0)
    lengths = (3, 10, 70, 900)
    logs = rng.normal(size=(7, 4))
    expected = np.polyfit(np.log(lengths), logs.T, 1)[0]
    assert slope(lengths, logs) == pytest.approx(expected)


def test_planted_terms_are_recovered():
    lengths = (100, 300, 1000, 3000, 10000)
    c0, c1, c2 = fit_terms(lengths, [2e-3 + 5e-6 * n + 7e-9 * n * n for n in lengths])
    assert (c0, c1, c2) == pytest.approx((2e-3, 5e-6, 7e-9), rel=1e-6)


def test_terms_are_the_best_that_are_not_negative():
    """By the conditions of Karush, Kuhn and Tucker, which only the least sum of squares meets."""
    rng = np.random.default_rng(0)
    met = set()
    for noise in (0, 0.02, 0.3) * 1000:
        lengths = np.unique((10 ** rng.uniform(1, 5, rng.integers(3, 9))).round())
        powers = np.stack([lengths**power for power in range(3)], axis=1)
        terms = 10 ** rng.uniform(-6, 0, 3) * (rng.random(3) < 0.6) / lengths.max() ** np.arange(3)
        values = 1e-6 * (powers @ terms + 1e-6) * np.exp(rng.normal(0, noise, len(lengths)))
        found = np.array(fit_terms(lengths, values))
        columns = powers / values[:, None]
        downhill = columns.T @ (1 - columns @ found) / np.linalg.norm(columns, axis=0)
        assert found.min() >= 0
        assert downhill.max() < 1e-7  # no term gains by growing
        assert np.abs(downhill[found > 0]).max() < 1e-7  # nor one that is there by shrinking
        met.add(tuple(found > 0))
    assert len(met) == 7  # every choice of terms but none at all


def test_cells_without_a_number_stay_in_sight(planted_records, without_number):
    records = planted_records({"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-9 * n * n})
    records = without_number(records, "oom", "memory", mixer="attention", n_tokens=10000)
    found = scaling_of(summarise(records), "attention")
    assert found.lengths == (100, 300, 1000, 3000)
    assert [(cell.n_tokens, cell.status, cell.censored_by) for cell in found.censored] == [(10000, "oom", "memory")]


def test_one_round_without_a_number_does_not_hide_the_others(planted_records):
    records = planted_records({"mamba": lambda n: 1e-6 * n}, lengths=(100, 200), rounds=2)
    lost = records[0]
    records[0] = Record(
        run=lost.run, cell_id=lost.cell_id, round=0, cell=lost.cell, status="timeout", reason="too slow"
    )
    (cell, _) = summarise(records).cells
    assert (cell.status, cell.n_rounds, cell.n_failed, cell.reason) == ("ok", 1, 1, "too slow")


def test_rows_a_second_are_batch_over_time(planted_records):
    (cell,) = summarise(planted_records({"mamba": lambda n: 0.25}, lengths=(64,), batch_size=32)).cells
    assert cell.rows_per_s.value == pytest.approx(128.0)


def test_memory_has_its_own_exponent(planted_records):
    records = planted_records({"mamba": lambda n: 1.0}, memory={"mamba": lambda n: 1000 * n})
    assert scaling_of(summarise(records), "mamba", "peak_memory_bytes").exponent.value == pytest.approx(1.0, abs=1e-9)


def test_runs_are_never_mixed(planted_records):
    slow = planted_records({"mamba": lambda n: 2e-6 * n}, run="slow")
    fast = planted_records({"mamba": lambda n: 1e-6 * n}, run="fast")
    summary = summarise(slow + fast)
    assert {s.run for s in summary.scalings} == {"slow", "fast"}
    assert {round(c.estimates["wall_s"].value * 1e6) for c in summary.cells if c.n_tokens == 100} == {100, 200}


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), -1.0, 0.0, True, "1.5", [], {}, 10**400], ids=lambda v: str(v)[:8]
)
def test_readings_that_are_no_cost_are_left_out(planted_records, value):
    (record,) = planted_records({"mamba": lambda n: 1.0}, lengths=(8,), rounds=1, n_samples=1)
    record.values["peak_memory_bytes"] = value
    record.samples["wall_s"].append(value)
    (cell,) = summarise([record]).cells
    assert "peak_memory_bytes" not in cell.estimates
    assert cell.estimates["wall_s"].value == pytest.approx(1.0)


def test_records_with_strange_cells_do_not_stop_the_rest(planted_records):
    strange = [
        Record(run="x", cell_id=f"s{i}", round=0, cell=cell, status="ok", samples={"wall_s": [1.0, 2.0]})
        for i, cell in enumerate(
            [{}, {"n_tokens": "many"}, {"n_tokens": -5}, {"task": None, "mixer": ["a"], "n_tokens": math.nan}]
        )
    ]
    summary = summarise([*strange, *planted_records({"mamba": lambda n: 1e-6 * n})])
    assert scaling_of(summary, "mamba").exponent.value == pytest.approx(1.0, abs=1e-9)
    assert len(summary.cells) == 4 + 5


def test_nothing_gives_nothing():
    summary = summarise([])
    assert (summary.cells, summary.scalings, summary.crossovers) == ((), (), ())
