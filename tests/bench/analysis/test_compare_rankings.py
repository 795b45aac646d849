"""Two runs of rankings: intervals against scipy's paired t-test, verdicts on planted differences, what has no pairs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.analysis.compare_rankings import compare_rankings
from bench.compare import main
from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import SCHEMA, Record
from bench.records.store import RECORDS_FILE, RUN_FILE, Run

USERS = np.random.default_rng(0).uniform(0.2, 0.4, 400)


@pytest.fixture
def ranked(tmp_path):
    """A run of models, each with one array of values a seed."""

    def make(name, models, *, task="rank_quality", n_before=5, **fields):
        records = []
        for model, seeds in models.items():
            for seed, values in enumerate(seeds):
                cell = {"task": task, "dataset": "toy", "mixer": model, "seed": seed, **fields}
                cell_id = f"{model}-{seed}-{fields.get('cut', '')}"
                table = pd.DataFrame({"user": np.arange(len(values)).astype(str), "ndcg@10": values})
                write_per_user(per_user_path(tmp_path / name, cell_id), table.assign(n_before=n_before))
                mean = {"ndcg@10": float(np.mean(values))}
                records.append(Record(run=name, cell_id=cell_id, round=0, cell=cell, status="ok", values=mean))
        return Run(name, {}, records, folder=tmp_path / name)

    return make


def noisy(seed, by=0.0):
    return USERS + by + np.random.default_rng(seed).normal(0, 0.05, len(USERS))


def test_one_seed_is_a_paired_t_test(ranked):
    old, new = noisy(1), noisy(2, 0.03)
    (found,) = compare_rankings(ranked("old", {"mamba": [old]}), ranked("new", {"mamba": [new]})).cells
    truth = stats.ttest_rel(new, old).confidence_interval()
    assert found.ratio.value == pytest.approx(new.mean() / old.mean())
    assert found.ratio.low == pytest.approx(1 + truth.low / old.mean())
    assert found.ratio.high == pytest.approx(1 + truth.high / old.mean())
    assert found.verdict == "better"


def test_verdicts_on_what_was_planted(ranked):
    same = [noisy(seed) for seed in (1, 2)]
    old = ranked("old", {"same": same, "down": same, "gone": same, "wide": [noisy(1)[:6]]})
    new = {"same": [each + 1e-4 for each in same], "down": [noisy(8, -0.04), noisy(9, -0.04)], "wide": [noisy(5)[:6]]}
    change = compare_rankings(old, ranked("new", new))
    verdicts = {each.cell_id: each.verdict for each in change.cells}
    assert verdicts == {"toy: down": "worse", "toy: wide": "ambiguous", "toy: same": "same"}
    assert change.only_before == ("toy: gone",)
    assert any("toy: down worse" in each for each in change.failures(0.05))
    assert not any("down" in each for each in change.failures(0.5))


def test_users_are_paired_by_name_and_seeds_by_number(ranked):
    """The same values in another order of users, and seeds that differ far more than the runs do."""
    far = [USERS, USERS + 0.3]
    old, new = ranked("old", {"m": far}), ranked("new", {"m": [each + 0.001 for each in far]})
    for seed in range(2):
        path = per_user_path(new.folder, f"m-{seed}-")
        write_per_user(path, pd.read_parquet(path).iloc[::-1])
    (found,) = compare_rankings(old, new).cells
    assert found.ratio.value == pytest.approx(1 + 0.001 / (USERS.mean() + 0.15))
    assert found.ratio.high - found.ratio.low < 1e-6


def test_scores_are_of_the_seeds_that_both_have(ranked):
    (found,) = compare_rankings(ranked("old", {"m": [USERS, USERS + 0.3]}), ranked("new", {"m": [USERS]})).cells
    assert found.before.value == pytest.approx(USERS.mean())
    assert (found.ratio.value, found.verdict) == (1.0, "same")


def test_histories_average_cuts_and_leave_cold_users_out(ranked):
    known = np.where(np.arange(400) < 300, 5, 0)
    fields = {"task": "rank_history", "n_before": known, "history_length": 50}
    sides = []
    for name, by in (("old", 0.0), ("new", 0.1)):
        parts = [ranked(name, {"m": [np.where(known > 0, USERS + by * cut, 9.0)]}, cut=cut, **fields) for cut in (0, 1)]
        sides.append(Run(name, {}, [*parts[0].records, *parts[1].records], folder=parts[0].folder))
    (found,) = compare_rankings(*sides).cells
    assert found.cell_id == "toy, 50 events: m"
    assert found.ratio.value == pytest.approx(1 + 0.05 / USERS[:300].mean())


def test_the_command_takes_rankings(ranked, capsys):
    old, new = ranked("old", {"m": [noisy(1), noisy(2)]}), ranked("new", {"m": [noisy(3, -0.05), noisy(4, -0.05)]})
    for run in (old, new):
        (run.folder / RUN_FILE).write_text(json.dumps({"schema": SCHEMA}))
        lines = (json.dumps(record.to_dict()) + "\n" for record in run.records)
        (run.folder / RECORDS_FILE).write_text("".join(lines))
    assert main([str(old.folder), str(new.folder)]) == 0
    assert "NDCG@10, new against old: 1 worse" in capsys.readouterr().out
    assert main([str(old.folder), str(new.folder), "--fail-over", "5%"]) == 1
    assert "regression: toy: m worse" in capsys.readouterr().err
    assert main([str(old.folder), str(new.folder), "--metric", "speed"]) == 2


def test_without_values_of_users_there_is_no_verdict(ranked):
    old, new = ranked("old", {"m": [noisy(1)]}), ranked("new", {"m": [noisy(2, 0.2)]})
    per_user_path(new.folder, "m-0-").unlink()
    (found,) = compare_rankings(old, new).cells
    assert found.verdict == "ambiguous"
    assert "is missing" in found.reason
    assert found.after.value > found.before.value
