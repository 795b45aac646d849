"""Planted crossings are found, with intervals that hold them; what was not measured is not claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.crossover import best_against_best, last_zeros
from bench.analysis.scaling import summarise

LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}  # equal at L = 500, straight in log-log


def only(records, metric="wall_s"):
    (found,) = [c for c in summarise(records).crossovers if c.metric == metric]
    return found


def test_a_planted_crossing_is_found_exactly(planted_records):
    found = only(planted_records(LINEAR))
    assert found.outcome == "crosses"
    assert found.n_tokens.value == pytest.approx(500.0)
    assert (found.cheaper.mixer, found.dearer.mixer) == ("mamba", "attention")
    assert found.crossings == pytest.approx((500.0,))
    assert found.ratios[-1].value == pytest.approx(20.0)


@pytest.mark.parametrize(("rounds", "between"), [(2, 0.03), (3, 0.1)])
def test_the_interval_holds_the_crossing(planted_records, rounds, between):
    held = 0
    for seed in range(100):
        star = only(planted_records(LINEAR, rounds=rounds, between=between, within=0.05, seed=seed)).n_tokens
        held += star.low <= 500.0 <= star.high
    assert held >= 93


def test_no_crossing_in_range_is_said_and_not_extrapolated(planted_records):
    found = only(planted_records(LINEAR, lengths=(1000, 3000)))
    assert found.outcome == "always"
    assert found.cheaper.mixer == "mamba"
    assert found.n_tokens.value == 0.0
    found = only(planted_records(LINEAR, lengths=(50, 100)))
    assert found.cheaper.mixer == "attention"
    assert found.crossings == ()


def test_an_end_outside_the_range_is_left_open(planted_records):
    """Costs that are equal within noise at the longest L: the interval must not stop inside the range."""
    found = only(planted_records(LINEAR, lengths=(100, 500), between=0.1, seed=3))
    assert math.isinf(found.n_tokens.high) or found.n_tokens.low == 0.0
    assert found.undecided


def test_several_crossings_are_all_told_and_the_last_is_the_one(planted_records):
    costs = {"mamba": lambda n: 1.0, "attention": lambda n: {10: 2.0, 100: 0.5, 1000: 0.5, 10000: 2.0}[n]}
    found = only(planted_records(costs, lengths=(10, 100, 1000, 10000)))
    assert found.crossings == pytest.approx((10**1.5, 10**3.5))
    assert found.n_tokens.value == pytest.approx(10**3.5)
    assert found.cheaper.mixer == "mamba"


@pytest.mark.parametrize(("status", "limit"), [("timeout", ""), ("skipped", "time")])
def test_a_length_out_of_time_bounds_the_crossing_in_time(planted_records, without_number, status, limit):
    costs = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-10 * n * n}  # equal at L = 10,000
    records = planted_records(costs, lengths=(100, 1000, 3000, 30000))
    found = only(without_number(records, status, limit, mixer="attention", n_tokens=30000))
    assert found.outcome == "bounded"
    assert (found.n_tokens.low, found.n_tokens.high) == (3000, 30000)
    assert math.isnan(found.n_tokens.value)
    assert (found.cheaper.mixer, found.dearer.mixer) == ("mamba", "attention")


def test_a_length_out_of_memory_says_nothing_about_time(planted_records, without_number):
    costs = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-10 * n * n}
    memory = {"mamba": lambda n: 2e6 * n, "attention": lambda n: 1e6 * n}
    records = planted_records(costs, memory=memory, lengths=(100, 1000, 30000))
    records = without_number(records, "oom", mixer="attention", n_tokens=30000)
    assert only(records).outcome == "always"
    assert only(records, "peak_memory_bytes").outcome == "bounded"


def test_a_mixer_that_never_ran_is_told(planted_records, without_number):
    records = without_number(planted_records(LINEAR), "error", mixer="attention")
    found = only(records)
    assert found.outcome == "alone"
    assert found.cheaper.mixer == "mamba"


def test_every_setting_and_task_has_its_own(planted_records):
    records = [
        record
        for task in ("forward", "train_step")
        for batch_size in (1, 32)
        for record in planted_records(LINEAR, task=task, batch_size=batch_size)
    ]
    found = summarise(records).crossovers
    assert {(c.setting["task"], c.setting["batch_size"]) for c in found} == {
        ("forward", 1), ("forward", 32), ("train_step", 1), ("train_step", 32),
    }  # fmt: skip


def test_backends_of_one_mixer_are_not_set_against_each_other(planted_records):
    records = planted_records(LINEAR)
    slower = [
        type(r)(**{**r.to_dict(), "cell_id": f"{r.cell_id}-slow", "cell": {**r.cell, "backend": "reference"},
                   "samples": {"wall_s": [x * 3 for x in r.samples["wall_s"]]}})
        for r in records
    ]  # fmt: skip
    summary = summarise(records + slower)
    assert len(summary.crossovers) == 4
    (best,) = best_against_best(summary.crossovers, summary.cells)
    assert (best.cheaper.backend, best.dearer.backend) == ("numba", "sdpa")


@given(st.lists(st.floats(-3, 3).filter(lambda x: abs(x) > 1e-2), min_size=2, max_size=6))
def test_the_last_zero_is_where_the_interpolated_line_last_changes_sign(logs):
    # Values too near zero would change sign between two points of the grid.
    lengths = [10 * 3**i for i in range(len(logs))]
    (found,) = last_zeros(lengths, np.array([logs]))
    x = np.linspace(math.log(lengths[0]), math.log(lengths[-1]), 20001)
    signs = np.interp(x, np.log(lengths), logs) > 0
    changes = np.flatnonzero(signs[1:] != signs[:-1])
    if not signs[-1]:
        assert found == math.inf
    elif not len(changes):
        assert found == 0
    else:
        assert math.log(found) == pytest.approx(x[changes[-1]], abs=x[1] - x[0] + 1e-9)
