"""What a data set can show, from planted scores: a gap to learn, or none; drift; warm and cold users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.analysis.gate import Gate, gates
from bench.analysis.means import mean_of
from bench.analysis.quality import Quality, quality_of
from bench.baselines import BASELINES
from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import Record
from bench.records.store import Run
from bench.render import words

N_USERS = 400
BASE = np.random.default_rng(0).uniform(0.1, 0.3, N_USERS)


def quality(folder: Path, means: dict[str, list[float]], **fields: object) -> Quality:
    """Each model's scores by seed: those of the users, plus what is given, plus noise of deviation 0.02."""
    random, records = np.random.default_rng(1), []
    for model, seeds in means.items():
        for seed, mean in enumerate(seeds):
            kind, name = ("baseline" if model in BASELINES else "mixer"), f"{model}-{seed}-{len(fields)}"
            cell = {"task": "rank_quality", "dataset": "toy", kind: model, "seed": seed, **fields}
            found = BASE + mean + random.normal(0, 0.02, N_USERS)
            table = {"user": np.arange(N_USERS).astype(str), "n_before": np.arange(N_USERS) % 4, "ndcg@10": found}
            write_per_user(per_user_path(folder, name), pd.DataFrame(table))
            records.append(Record(run="r", cell_id=name, round=0, cell=cell, status="ok"))
    return quality_of(Run("r", {}, records, folder=folder))


def test_a_gap_larger_than_what_shows_can_be_learnt(tmp_path: Path) -> None:
    """Noise of 0.02 in both: the difference has the error 0.02 * sqrt(2 / 400), and shows from 2.8 times that on."""
    (found,) = gates(quality(tmp_path, {"popularity": [0.0], "ease": [0.05], "itemknn": [0.02], "random": [-0.1]}))
    assert found.best == "ease"
    assert found.is_open
    assert found.gap == pytest.approx(0.05, abs=0.005)
    assert found.smallest == pytest.approx(2.8 * 0.02 * (2 / N_USERS) ** 0.5, rel=0.1)
    assert np.isnan(found.recent)
    told = words.gate(found)
    assert told.startswith("toy can tell models apart: the best collaborative baseline, ease, is 0.05")
    assert "lately" not in told


def test_no_gap_and_drift(tmp_path: Path) -> None:
    (found,) = gates(quality(tmp_path, {"popularity": [0.0], "ials": [0.001], "recent-popularity": [0.04]}))
    assert not found.is_open
    assert found.recent == pytest.approx(0.04, abs=0.005)
    told = words.gate(found)
    assert told.startswith("toy cannot tell models apart: ")
    assert f"lately is {found.recent:.4f} above popularity, so that drift decides here" in told


def test_what_shows_is_taken_from_trained_models_where_there_are_some(tmp_path: Path) -> None:
    """Two towers whose seeds differ by more than any baseline's gap: what baselines differ by does not show in them."""
    seeds = {"popularity": [0.0], "ease": [0.02], "mamba": [0.0, 0.1, 0.05], "attention": [0.1, 0.0, 0.05]}
    found = quality(tmp_path, seeds)
    (gate,) = gates(found)
    (pair,) = [each for each in found.comparisons if {each.first, each.second} == {"mamba", "attention"}]
    assert gate.smallest == pair.smallest
    assert not gate.is_open


def test_nothing_is_said_where_no_collaborative_baseline_ran(tmp_path: Path) -> None:
    assert not list(gates(quality(tmp_path, {"popularity": [0.0], "mamba": [0.1]})))


def test_warm_and_cold_users_apart(tmp_path: Path) -> None:
    (model,) = quality(tmp_path, {"ease": [0.0]}).models
    scores, cold = model.per_user["ndcg@10"], np.arange(N_USERS) % 4 == 0
    for kind, who in (("warm", ~cold), ("cold", cold)):
        mean, n_users = model.segments[kind]
        assert n_users == who.sum()
        assert (mean.value, mean.low) == pytest.approx((mean_of(scores[:, who]).value, mean_of(scores[:, who]).low))


def test_refitted_rankings_are_compared_among_themselves(tmp_path: Path) -> None:
    one = quality(tmp_path, {"popularity": [0.0], "mamba": [0.1]})
    two = quality(tmp_path, {"popularity": [0.0], "mamba": [0.1]}, refit=True, leave_out="seen")
    assert {model.dataset for model in one.models} == {"toy"}
    assert {model.dataset for model in two.models} == {"toy, refitted, seen left out"}
    (default,) = quality(tmp_path, {"popularity": [0.0]}, refit=False, leave_out="liked").models
    assert replace(default, per_user={}, users=()).dataset == "toy"


@pytest.mark.parametrize("smallest", [0.0, float("nan")])
def test_where_baselines_rank_as_popularity_does_nothing_can_be_told(smallest: float) -> None:
    closed = Gate(
        run="r", dataset="toy", metric="ndcg@10", best="ease", gap=0.0, smallest=smallest, recent=0.0
    )  # fmt: skip
    assert not closed.is_open
    assert "cannot tell models apart" in words.gate(closed)
