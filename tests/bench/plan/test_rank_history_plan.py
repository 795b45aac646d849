"""Plans of histories: which cells they have, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from bench.plan import presets
from bench.plan.plan import Plan
from bench.plan.setting import PlanError


def plan(**changes: Any) -> Plan:
    return Plan({**presets.load("history-quick"), "datasets": ["planted"], **changes}).resolved("cpu")


def test_every_length_cut_and_model_is_a_cell() -> None:
    cells = plan(cuts=[0, 1], seeds=[0, 1], own=["none"], baselines=["frequency"]).cells()
    baselines = [cell for cell in cells if "baseline" in cell]
    assert sorted((cell.history_length, cell.cut) for cell in baselines) == [(20, 0), (20, 1), (500, 0), (500, 1)]
    assert cells[:4] == baselines
    assert len(cells) == 4 + 2 * 2 * 2 * 2
    assert len({cell.id for cell in cells}) == len(cells)


def test_what_a_mixer_decides_is_exact_in_a_cell() -> None:
    for mixer, read_at in (("mamba", "all"), ("attention:causal=true", "all"), ("attention", "last"), ("mean", "last")):
        (cell,) = plan(mixers=[mixer], own=["none"], history_lengths=[20], baselines=[], steps="auto").cells()
        assert (cell.read_at, cell.steps, cell.batch_size) == (read_at, 400, 4096)
    (cell,) = plan(mixers=["mamba"], own=["none"], history_lengths=[20], baselines=[], epochs=2.0).cells()
    assert "steps" not in cell


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"read_at": ["all"], "mixers": ["bimamba"]}, "bimamba looks ahead: with read_at all it would see what it is"),
        ({"baselines": ["mlp"]}, "baseline 'mlp' reads no histories; choose from popularity"),
        ({"mixers": [], "baselines": []}, "nothing to rank with"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(**changes).cells()


def test_a_baseline_of_histories_ranks_no_pairs() -> None:
    settings = {**presets.load("quality"), "datasets": ["movielens-100k"], "baselines": ["frequency"]}
    with pytest.raises(PlanError, match="baseline 'frequency' reads histories; it belongs to rank_history"):
        Plan(settings).resolved("cpu").cells()
