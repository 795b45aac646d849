"""Which factor matters, from planted scores: one that does, others that do not, and orders of columns of both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.analysis import means
from bench.analysis.ablation import factors_of, order_spreads
from bench.analysis.quality import Quality, quality_of
from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import Record
from bench.records.store import Run
from bench.render.blocks import Folded
from bench.render.findings import Findings
from bench.render.sections import ablation

N_USERS, N_SEEDS = 100, 5
CENTRE: dict[str, Any] = {
    "mixer": "mamba",
    "n_layers": 2,
    "d_model": 32,
    "column_order": "table",
    "params": {"d_state": 16},
}
FACTORS: list[dict[str, Any]] = [
    {"n_layers": 1}, {"n_layers": 10}, {"d_model": 64}, {"params": {"d_state": 32}},
    *({"column_order": f"random:{i}"} for i in range(5)),
]  # fmt: skip


def run_of(folder: Path, shifts: list[float], *, of_seeds: float = 0.0, seed: int = 0) -> Run:
    """The centre and, moved by ``shifts``, every level; ``of_seeds``: how far a seed moves all users."""
    random, records = np.random.default_rng(seed), []
    base = random.uniform(0.1, 0.3, N_USERS)
    for i, (change, shift) in enumerate(zip([{}, *FACTORS], [0.0, *shifts], strict=True)):
        for j in range(N_SEEDS):
            name = f"{i}-{j}"
            cell = {"task": "rank_quality", "dataset": "toy", **CENTRE, **change, "seed": j}
            found = base + shift + random.normal(0, of_seeds) + random.normal(0, 0.05, N_USERS)
            write_per_user(per_user_path(folder, name), pd.DataFrame({"user": base.astype(str), "ndcg@10": found}))
            values = {"train_steps_per_s": 100.0 / (1 + i)}
            records.append(Record(run="r", cell_id=name, round=0, cell=cell, status="ok", values=values))
    return Run("r", {}, records, folder=folder)


def quality(*args: Any, **options: Any) -> Quality:
    return quality_of(run_of(*args, **options))


NOTHING = [0.0] * len(FACTORS)


def test_the_level_that_was_planted_is_found_and_no_other(tmp_path: Path) -> None:
    found = {factor.name: factor for factor in factors_of(quality(tmp_path, [0.0, 0.03, *NOTHING[2:]]))}
    assert {name: [*factor.levels] for name, factor in found.items()} == {
        "n_layers": ["1", "2", "10"], "d_model": ["32", "64"], "d_state": ["16", "32"],
        "column_order": [*(f"random:{i}" for i in range(5)), "table"],
    }  # fmt: skip
    verdicts = {(name, level): each.verdict for name, f in found.items() for level, each in f.against.items()}
    assert verdicts.pop(("n_layers", "10")) == "better"
    assert set(verdicts.values()) == {"no difference found"}
    difference = found["n_layers"].against["10"].difference
    assert difference.low < 0.03 < difference.high
    assert found["n_layers"].cost("10") == pytest.approx(3)
    assert found["n_layers"].cost("2") == 1


def test_where_nothing_matters_nothing_is_called_important(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 studies of nine levels, seeds as far apart as users: at 5 % a study, 6 and more happen once in 70."""
    monkeypatch.setattr(means, "N_FLIPS", 300)
    wrong = 0
    for seed in range(40):
        factors = factors_of(quality(tmp_path, NOTHING, of_seeds=0.005, seed=seed))
        wrong += any(each.verdict != "no difference found" for factor in factors for each in factor.against.values())
    assert wrong < 6


def test_the_spread_of_orders_stands_beside_that_of_seeds(tmp_path: Path) -> None:
    planted = [0.0, 0.0, 0.0, 0.0, -0.04, -0.02, 0.0, 0.02, 0.04]
    (far,) = order_spreads(factors_of(quality(tmp_path, planted, of_seeds=0.01)))
    assert far.n_orders == 5
    assert far.deviation == pytest.approx(np.std(planted[4:], ddof=1), rel=0.5)
    assert far.by_seeds == pytest.approx((0.01**2 + 0.05**2 / N_USERS) ** 0.5 / N_SEEDS**0.5, rel=0.5)
    assert far.is_seen
    (none,) = order_spreads(factors_of(quality(tmp_path, NOTHING, of_seeds=0.01, seed=3)))
    assert not none.is_seen
    assert none.deviation < 3 * none.by_seeds


def test_without_one_centre_there_are_no_factors(tmp_path: Path) -> None:
    run = run_of(tmp_path, NOTHING)
    pair = [record for record in run.records if record.cell["n_layers"] in (1, 2) and record.cell["d_model"] == 32]
    pair = [each for each in pair if each.cell["column_order"] == "table" and each.cell["params"] == {"d_state": 16}]
    assert factors_of(quality_of(Run("r", {}, pair, folder=tmp_path))) == []
    assert ablation.build(Findings.of([Run("r", {}, pair, folder=tmp_path)])) is None


def test_the_page_says_what_to_do(tmp_path: Path) -> None:
    section = ablation.build(Findings.of([run_of(tmp_path, [-0.05, *NOTHING[1:]])]))
    assert section is not None
    told, _, figures, table, _ = section.blocks
    assert told.items[0].startswith("mamba on toy: n_layers, against 2: 1 ranks worse by 0.0")
    assert told.items[0].endswith("(2.0x the time).")
    assert told.items[1].startswith("mamba on toy: no difference found at ")
    assert "n_layers 10 (3.0x the time)" in told.items[1]
    assert "d_model 64 (4.0x the time)" in told.items[1]
    assert "where 0.0" in told.items[1]
    assert any("over 5 random orders of the columns quality deviates by" in each for each in told.items)
    drawn = [draw() for draw in figures.drawings]
    assert len(drawn) == 1 + 4 * 2
    assert all(drawn)
    assert drawn[0].alt.startswith("mamba, n_layers 1: ")  # the farthest first
    assert "worse. mamba" in drawn[0].alt
    assert "mamba, 10: 3.0x." in drawn[2].alt
    assert len(table.items) == 3 + 2 + 2 + 6
    same = next(each for each in factors_of(quality(tmp_path, [-0.05, *NOTHING[1:]])) if each.name == "n_layers")
    assert ablation._cost(same, "2") == ""  # what costs the same is not told


def test_every_data_set_has_its_part_of_the_page(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, NOTHING) for name in "ab"]
    runs[1] = Run("s", {}, runs[1].records, folder=runs[1].folder)
    section = ablation.build(Findings.of(runs))
    assert section is not None
    assert [each.title for each in section.blocks if isinstance(each, Folded)] == ["toy, run s"]
