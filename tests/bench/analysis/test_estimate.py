"""Point estimates by hand; intervals by how often they hold a truth that was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from bench.analysis.estimate import Estimate, Spread, _inverse_trigamma, estimate, pool_spreads


def arrays(*rounds):
    return [np.array(samples, dtype=float) for samples in rounds]


def test_the_value_is_the_median_of_round_medians():
    found = estimate(arrays([1, 2, 30], [3, 4, 5], [100]), Spread(), key="a")
    assert found.value == pytest.approx(4.0)


def test_a_round_counts_once_however_many_samples_it_has():
    few = estimate(arrays([1.0], [2.0], [4.0]), Spread(), key="a")
    many = estimate(arrays([1.0], [2.0], [4.0] * 1000), Spread(), key="a")
    assert few.value == many.value == pytest.approx(2.0)


def test_two_rounds_alone_give_students_interval_on_the_log_scale():
    found = estimate(arrays([1.0], [1.1]), Spread(), key="a")
    logs = np.log([1.0, 1.1])
    half = stats.t.ppf(0.975, 1) * logs.std(ddof=1) / math.sqrt(2)
    assert math.log(found.high) - logs.mean() == pytest.approx(half, rel=0.15)  # 2,000 draws of a wide tail
    assert found.covers == "rounds"


def test_knowledge_from_other_cells_narrows_the_interval_of_two_rounds():
    alone = estimate(arrays([1.0], [1.1]), Spread(), key="a")
    helped = estimate(arrays([1.0], [1.1]), Spread(variance=0.0045, df=20), key="a")
    assert helped.high / helped.low < (alone.high / alone.low) ** 0.3


def test_one_round_covers_its_samples_only():
    rng = np.random.default_rng(0)
    held = 0
    for i in range(400):
        found = estimate([rng.exponential(1.0, 25)], Spread(), key=str(i))  # far from normal
        held += found.low <= math.log(2) <= found.high
        assert found.covers == "samples"
    assert held / 400 >= 0.93


def test_one_reading_has_no_interval():
    found = estimate(arrays([2.5]), Spread(), key="a")
    assert found.value == 2.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.covers == "nothing"


def test_draws_depend_on_nothing_but_the_readings_and_the_key():
    rounds = arrays([1.0, 1.2], [1.1, 1.3])
    assert (estimate(rounds, Spread(), key="a").draws == estimate(rounds, Spread(), key="a").draws).all()
    assert (estimate(rounds, Spread(), key="a").draws != estimate(rounds, Spread(), key="b").draws).any()


def test_the_pooled_spread_is_the_planted_one():
    rng = np.random.default_rng(0)
    cells = [[np.exp(rng.normal(0, 0.05, 1)) for _ in range(3)] for _ in range(400)]
    found = pool_spreads(cells)
    assert math.sqrt(found.variance) == pytest.approx(0.05, rel=0.05)
    assert found.df > 15  # all cells vary alike, so each may lean on the others


def test_cells_that_vary_unlike_lean_less_on_each_other():
    rng = np.random.default_rng(0)
    spreads = 0.05 * np.exp(rng.normal(0, 1.0, 400))
    cells = [[np.exp(rng.normal(0, s, 1)) for _ in range(4)] for s in spreads]
    assert 0.5 < pool_spreads(cells).df < 5


def test_too_few_cells_say_nothing_about_spread():
    cells = [[np.array([1.0]), np.array([1.1])]] * 3
    assert pool_spreads(cells) == Spread()
    assert pool_spreads([]) == Spread()


@pytest.mark.parametrize("x", [0.01, 0.5, 3.0, 100.0, 1e5])
def test_inverse_trigamma(x):
    assert _inverse_trigamma(float(special.polygamma(1, x))) == pytest.approx(x, rel=1e-4)


@pytest.mark.parametrize(("rounds", "unlike"), [(2, 0.0), (3, 0.0), (3, 0.7), (5, 0.7)])
def test_intervals_hold_the_truth(planted_records, rounds, unlike):
    """At least 93 % of 95 % intervals hold the planted median, whether cells vary alike or not."""
    from bench.analysis.cells import summarise_cells

    rng = np.random.default_rng(1)
    held = total = 0
    for repetition in range(25):
        records = []
        for batch_size in (1, 2, 4, 8):
            between = 0.03 * math.exp(rng.normal(0, unlike))
            records += planted_records(
                {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-9 * n * n},
                rounds=rounds, between=between, within=0.05, seed=1000 * repetition + batch_size,
                batch_size=batch_size,
            )  # fmt: skip
        for cell in summarise_cells(records):
            truth = 1e-6 * cell.n_tokens if cell.cell["mixer"] == "mamba" else 1e-9 * cell.n_tokens**2
            each = cell.estimates["wall_s"]
            held += each.low <= truth <= each.high
            total += 1
    assert held / total >= 0.93


def test_a_mapped_estimate_keeps_its_ends_in_order():
    each = Estimate.from_draws(2.0, np.linspace(1, 4, 101))
    inverse = each.map(8.0, -1.0)
    assert inverse.value == 4.0
    assert inverse.low < inverse.value < inverse.high
    assert (inverse.low, inverse.high) == (8 / each.high, 8 / each.low)
