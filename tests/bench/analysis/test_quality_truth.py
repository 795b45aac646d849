"""Means, intervals and verdicts over seeds and users, against planted truth and independent tests."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.analysis import means
from bench.analysis.means import holm, mean_of, mean_share, permutation_p
from bench.analysis.quality import ModelQuality, compared, quality_of
from bench.baselines import BASELINES
from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import Record
from bench.records.store import Run

METRICS = ("ndcg@10", "recall@10")


def planted(rng, mean, *, n_seeds, n_users, user_sd=0.0, seed_sd=0.0, noise=0.05, users=None):
    """Values (seeds, users) whose true mean is ``mean``; ``users`` is a user effect shared between models."""
    users = rng.normal(0, user_sd, n_users) if users is None else users
    return mean + users + rng.normal(0, seed_sd, (n_seeds, 1)) + rng.normal(0, noise, (n_seeds, n_users))


def run_of(folder, models, **fields):
    """A run with one record and one per-user file a model and seed."""
    records = []
    for model, values in models.items():
        for seed, row in enumerate(values):
            cell = {
                "task": "rank_quality",
                "dataset": "toy",
                "baseline" if model in BASELINES else "mixer": model,
                "protocol": "full",
                "seed": seed,
                **fields,
            }
            cell_id = f"rank_quality-{model}-{seed}"
            table = pd.DataFrame({"user": [f"u{i}" for i in range(len(row))], **dict.fromkeys(METRICS, row)})
            write_per_user(per_user_path(folder, cell_id), table)
            figures = {**dict.fromkeys(METRICS, float(row.mean())), "train_steps_per_s": 10.0 + seed}
            records.append(
                Record(
                    run="r", cell_id=cell_id, round=0, cell=cell, status="ok", values=figures, samples={"step": [1.0]}
                )
            )
    return Run("r", {}, records, folder=folder)


def test_one_seed_gives_students_interval_over_users():
    values = np.random.default_rng(0).normal(0.3, 0.1, (1, 50))
    found = mean_of(values)
    expected = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert not found.covers_seeds


@pytest.mark.parametrize("shares", [[[0.0, 0.0, 0.2]], [[0.8, 1.0, 1.0]], [[0.0, 0.0, 0.1], [0.0, 0.9, 0.8]]])
def test_the_interval_of_a_share_stays_a_share(shares):
    found = mean_share(np.array(shares))
    assert 0 <= found.low < found.value < found.high <= 1
    assert mean_share(1 - np.array(shares)).high == pytest.approx(1 - found.low)


@pytest.mark.parametrize(
    ("user_sd", "seed_sd", "n_seeds"), [(0.2, 0.0, 3), (0.0, 0.03, 3), (0.2, 0.01, 3), (0.1, 0.02, 5), (0.2, 0.0, 1)]
)
def test_intervals_hold_the_truth(user_sd, seed_sd, n_seeds):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1500):
        found = mean_of(planted(rng, 0.3, n_seeds=n_seeds, n_users=200, user_sd=user_sd, seed_sd=seed_sd))
        held += found.low <= 0.3 <= found.high
    assert held / 1500 >= 0.93


def comparison(quality, first, second):
    """The one of these two, whichever comes first in the list."""
    (found,) = [c for c in quality.comparisons if {c.first, c.second} == {first, second}]
    return found


def test_with_one_seed_the_p_value_agrees_with_an_independent_permutation_test(tmp_path):
    rng = np.random.default_rng(1)
    users = rng.normal(0, 0.2, 60)
    mamba, attention = (planted(rng, m, n_seeds=1, n_users=60, users=users) for m in (0.33, 0.31))
    found = comparison(quality_of(run_of(tmp_path, {"mamba": mamba, "attention": attention})), "attention", "mamba")
    differences = attention[0] - mamba[0]
    shuffled = rng.choice([-1, 1], (20_000, 60)) @ differences
    assert found.p_value == pytest.approx(np.mean(np.abs(shuffled) >= abs(differences.sum())), abs=0.01)
    assert abs(found.difference.value) == pytest.approx(mamba.mean() - attention.mean())


def test_what_is_beyond_doubt_is_found_among_any_number_of_tests():
    """With 10,000 flips the smallest p there can be, times 600 tests, would be 0.06."""
    p_values = [float(permutation_p(np.ones((1, 100)), str(i), 600)[0]) for i in range(2)] + [1.0] * 598
    assert holm(p_values)[0] < 0.02


def test_pairing_takes_out_what_makes_a_user_hard(tmp_path):
    """Users differ ten times more than the models do; user by user the difference shows."""
    rng = np.random.default_rng(0)
    users = rng.normal(0, 0.3, 300)
    values = {
        name: planted(rng, mean, n_seeds=3, n_users=300, users=users, noise=0.03)
        for name, mean in (("mamba", 0.33), ("attention", 0.30), ("popularity", 0.2))
    }
    values["popularity"] = values["popularity"][:1]
    quality = quality_of(run_of(tmp_path, values))
    found = comparison(quality, "mamba", "attention")
    assert (found.first, found.verdict) == ("mamba", "better")
    assert comparison(quality, "mamba", "popularity").verdict == "better"
    means = {model.label: model.metrics["ndcg@10"] for model in quality.models}
    assert means["mamba"].low < means["attention"].high  # the unpaired intervals overlap


@pytest.mark.parametrize("seed_sd", [0.0, 0.01])
def test_no_difference_is_found_where_there_is_none(tmp_path, seed_sd):
    """At most 5 % of true null hypotheses get a verdict, whether or not seeds vary."""
    rng = np.random.default_rng(0)
    wrong = 0
    for i in range(40):
        users = rng.normal(0, 0.2, 100)
        values = {
            name: planted(rng, 0.3, n_seeds=3, n_users=100, users=users, seed_sd=seed_sd)
            for name in ("mamba", "attention")
        }
        quality = quality_of(run_of(tmp_path / str(i), values))
        wrong += any(c.verdict != "no difference found" for c in quality.comparisons)
    assert wrong <= 5


def model_of(dataset, label, values):
    """What ``quality_of`` makes of a model's records."""
    return ModelQuality(
        run="r", dataset=dataset, label=label, cell={"mixer": label}, n_seeds=len(values), failures=[], odd="",
        split="", candidates="",
        metrics={"ndcg@10": mean_of(values)}, values={}, curves=[], segments={}, per_user={"ndcg@10": values},
        users=[str(i) for i in range(values.shape[1])],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seed_sd", "n_seeds"), [((0, 0, 0, 0), 3), ((0.01,) * 4, 3), ((0.02,) * 4, 5), ((0.002, 0.002, 0.02, 0.02), 3)]
)
def test_a_page_of_many_comparisons_claims_nothing_where_there_is_nothing(monkeypatch, seed_sd, n_seeds):
    """80 pages of 3 data sets and 4 models, 18 pairs: at 5 % a page, 10 and more false ones happen once in 150."""
    monkeypatch.setattr(means, "N_FLIPS", 300)
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(80):
        pairs = []
        for dataset in "abc":
            users = rng.normal(0, 0.2, 60)
            values = [planted(rng, 0.3, n_seeds=n_seeds, n_users=60, users=users, seed_sd=sd) for sd in seed_sd]
            pairs += itertools.combinations([model_of(dataset, f"m{i}", each) for i, each in enumerate(values)], 2)
        found = compared(pairs)
        assert len(found) == 18
        wrong += any(each.verdict != "no difference found" for each in found)
    assert wrong < 10


def test_differences_are_found_among_many_that_are_none(tmp_path):
    """However many comparisons there are, the least p-value that flips can give is low enough."""
    rng = np.random.default_rng(0)
    models = {f"m{i}": planted(rng, 0.3 + 0.1 * (i == 0), n_seeds=3, n_users=60) for i in range(26)}
    found = quality_of(run_of(tmp_path, models)).comparisons
    assert [each.first for each in found] == ["m0"] * 25  # of 325 pairs those with the best
    assert {each.verdict for each in found} == {"better"}
    assert min(each.p_value for each in found) >= 301 / 32_501  # corrected for all pairs, not for those that are shown


def test_all_data_sets_of_a_page_are_corrected_together(tmp_path):
    rng = np.random.default_rng(0)
    users = rng.normal(0, 0.2, 100)
    values = {n: planted(rng, m, n_seeds=1, n_users=100, users=users) for n, m in (("mamba", 0.315), ("hstu", 0.3))}
    one, other = (run_of(tmp_path / name, values, dataset=name) for name in "ab")
    ((alone,), (first, second)) = (quality_of(*runs).comparisons for runs in ((one,), (one, other)))
    assert 0 < alone.p_value < 0.5
    assert first.p_value == pytest.approx(2 * alone.p_value)
    assert second.p_value == pytest.approx(2 * alone.p_value, rel=0.5)  # by other flips


def test_the_smallest_difference_is_found_four_times_in_five(tmp_path):
    """Its definition: the true difference that one test at the 5 % level finds with probability 0.8."""
    rng = np.random.default_rng(0)
    smallest, found = [], 0
    for i in range(60):
        values = {n: planted(rng, m, n_seeds=1, n_users=100) for n, m in (("mamba", 0.32), ("attention", 0.30))}
        each = comparison(quality_of(run_of(tmp_path / str(i), values)), "mamba", "attention")
        smallest.append(each.smallest)
        found += each.verdict != "no difference found"
    assert np.mean(smallest) == pytest.approx(0.02, rel=0.05)
    assert found / 60 == pytest.approx(0.8, abs=0.14)
