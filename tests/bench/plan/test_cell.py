"""A cell's identity: the task and what is not its axis' default."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.plan import axes, tasks
from bench.plan import cell as cells
from bench.plan.cell import Cell
from bench.plan.setting import Axis
from bench.records.store import load_run

ROOT = Path(__file__).resolve().parents[3]
TOWER: dict[str, Any] = {"backend": "numba", "n_tokens": 100, "batch_size": 1, "n_layers": 2, "d_model": 64}


def test_an_id_is_the_same_in_every_run_and_on_every_machine() -> None:
    """Written down once; if this changes, old results no longer meet new ones in a comparison."""
    assert Cell(task="forward", mixer="mamba", **TOWER).id == "forward-mamba-numba-L100-B1-117061af"


def test_what_is_not_given_is_the_default_and_says_nothing() -> None:
    plain = Cell(task="forward", mixer="mamba", **TOWER)
    spelled = Cell(task="forward", mixer="mamba", **TOWER, seed=0, heap="kept", threads=0, params={"d_state": 16})
    assert plain == spelled
    assert plain.id == spelled.id
    assert plain.params["d_state"] == 16


@pytest.mark.parametrize(
    "change",
    [{"heap": "system"}, {"threads": 1}, {"paired_with": "attention/sdpa"}, {"seed": 1}, {"params": {"d_state": 8}},
     {"dtype": "bfloat16"}, {"n_tokens": 101}],
    ids=str,
)  # fmt: skip
def test_everything_that_may_change_a_number_changes_the_id(change: dict[str, Any]) -> None:
    plain = Cell(task="forward", mixer="mamba", **TOWER)
    assert plain.but(**change).id != plain.id
    assert plain.but(**change).but(**{name: plain[name] for name in change}).id == plain.id


def test_an_axis_that_comes_later_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    records = load_run(ROOT / "results" / "cpu-sweep").records
    new = Axis(field="colour", name="colours", kind=str, about="", default="grey")
    monkeypatch.setattr(cells, "AXES", (*axes.AXES, new))
    monkeypatch.setattr(cells, "BY_FIELD", {**axes.BY_FIELD, "colour": new})
    monkeypatch.setitem(axes.BY_FIELD, "colour", new)
    grown = {name: replace(tasks.find(name), axes=(*tasks.find(name).axes, "colour")) for name in tasks.names()}
    monkeypatch.setattr(tasks, "find", grown.__getitem__)
    cells._axes.cache_clear()
    try:
        again = [Cell(**record.cell) for record in records]
        assert {each.colour for each in again} == {"grey"}
        assert [each.id for each in again] == [record.cell_id for record in records]
        assert again[0].but(colour="red").id != again[0].id
    finally:
        cells._axes.cache_clear()  # what it keeps of the new axis


def test_a_cell_goes_through_json() -> None:
    cell = Cell(task="rank_quality", dataset="coupon", baseline="mlp", learning_rates=(0.1, 0.2), loss="mse")
    assert Cell(**json.loads(json.dumps(dict(cell)))) == cell


def test_another_mixer_has_parameters_of_its_own() -> None:
    mamba = Cell(task="forward", mixer="mamba", params={"d_state": 8}, **TOWER)
    assert "d_state" not in mamba.but(mixer="attention").params


def test_a_field_that_no_axis_has_is_refused() -> None:
    with pytest.raises(TypeError, match="no axis is called 'colour'"):
        Cell(task="forward", colour="red")
    with pytest.raises(AttributeError, match="forward has no dataset"):
        _ = Cell(task="forward", mixer="mamba", **TOWER).dataset


def test_a_name_becomes_a_files_name() -> None:
    assert "/" not in Cell(task="rank_quality", dataset="a/b:c=d e", baseline="random").id
