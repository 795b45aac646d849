"""Planted crossings are found, with intervals that hold them; what was not measured is not claimed."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.crossover import best_against_best, last_crossings
from bench.analysis.scaling import summarise
from bench.render import words

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
    assert math.isnan(found.n_tokens.value)
    told = "mamba is faster than attention at every measured L (1,000 to 3,000), by 2.0x at L = 1,000 and 6.0x"
    assert words.crossover(found).startswith(told)
    found = only(planted_records(LINEAR, lengths=(50, 100)))
    assert found.cheaper.mixer == "attention"
    assert found.crossings == ()


def test_where_one_side_does_not_differ_clearly_there_is_no_crossing(planted_records):
    """Costs that are equal within noise at the longest L."""
    found = only(planted_records(LINEAR, lengths=(100, 500), between=0.1, seed=3))
    assert (found.outcome, found.cheaper.mixer, found.clear) == ("always", "attention", (100,))
    assert math.isnan(found.n_tokens.value)
    assert words.star(found) == words.NONE


def test_cheaper_at_short_lengths_and_equal_at_the_longest_is_said_so(planted_records):
    """Ten times at L = 100, 1.0 at 10,000."""
    costs = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-6 * n * math.sqrt(10_000 / n)}
    found = only(planted_records(costs, lengths=(100, 1000, 10_000), between=0.02, within=0.02, seed=1))
    told = r"mamba is faster than attention, by (\S+)x at L = 100 and (\S+)x at L = 1,000; "
    factors = re.fullmatch(told + "no clear difference at L = 10,000", words.crossover(found)).groups()
    assert [float(each) for each in factors] == pytest.approx([10, 10**0.5], rel=0.1)


def test_equal_costs_get_no_crossing_and_both_names(planted_records):
    """Two lengths that differ clearly by chance, in opposite senses, are 1 to 2 % of the cases."""
    equal, told = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-6 * n}, []
    for seed in range(60):
        found = only(planted_records(equal, between=0.05, within=0.05, seed=seed))
        told.append(words.crossover(found))
    assert sum("L*" in sentence for sentence in told) <= 4
    assert told.count("no clear difference between attention and mamba at any measured L (100 to 10,000)") > 30


def test_one_length_is_an_answer(planted_records):
    assert words.crossover(only(planted_records(LINEAR, lengths=(1000,)))) == (
        "mamba is faster than attention, by 2.0x (95 %: 2.0x to 2.0x) at L = 1,000"
    )


@pytest.mark.parametrize("lengths", [(100, 1000, 10_000), (100, 300, 1000, 3000, 10_000), (1000, 10_000)])
def test_the_interval_covers_the_interpolation_between_lengths(planted_records, lengths):
    """No noise, and costs that are not straight in log-log: 900 L + L^2 / 2 = 2000 L at L = 2,200."""
    memory = {"mamba": lambda n: 1e5 + 2000 * n, "attention": lambda n: 1e5 + 900 * n + 0.5 * n * n}
    star = only(planted_records(LINEAR, memory=memory, lengths=lengths), "peak_memory_bytes").n_tokens
    assert abs(star.value - 2200) > 100
    assert star.low < 2200 < star.high
    assert star.low <= star.value <= star.high


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


@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6), st.floats(1.5, 4), st.integers(3, 7))
def test_sums_of_powers_cross_within_the_bounds(logs, scale, n):
    """c0 + c1 L + c2 L^2 of both, and where they are equal by the formula of the quadratic equation."""
    c = 10.0 ** np.reshape(logs, (2, 3)) / 10 ** (scale * np.arange(3))
    lengths = np.unique(np.geomspace(100, 10_000, n).round()).astype(int).tolist()
    powers = np.array(lengths, dtype=float)[:, None] ** np.arange(3)
    costs = np.log(powers @ c.T).T
    roots = np.roots((c[0] - c[1])[::-1])
    (truth,) = within if len(within := [r.real for r in roots if abs(r.imag) < 1e-9 and r.real > 0]) == 1 else (0.0,)
    if not lengths[0] < truth < lengths[-1]:
        return
    order = [0, 1] if costs[0, -1] > costs[1, -1] else [1, 0]
    found = last_crossings(lengths, *costs[order][:, None], 0, len(lengths) - 1)[:, 0]
    assert found[0] * (1 - 1e-6) <= truth <= found[2] * (1 + 1e-6)
    straight = np.interp(math.log(found[1]), np.log(lengths), costs[0] - costs[1])
    assert straight == pytest.approx(0, abs=1e-9)
