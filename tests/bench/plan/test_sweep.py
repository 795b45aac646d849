"""Axes to cells: all of them, once, with exact names and ids that never change."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from bench.plan import presets
from bench.plan.cell import Cell
from bench.plan.sweep import PlanError, Sweep
from bench.plan.tower import cell_cost, encoder_spec, feature_spec
from ftmamba.mixers import BACKENDS_OF


def sweep_of(**changes: Any) -> Sweep:
    return Sweep.from_dict({**presets.load("default"), **changes})


def test_cells_are_the_product_of_the_axes() -> None:
    axes: dict[str, list[Any]] = {
        "lengths": [10, 20],
        "batch_sizes": [1, 2],
        "layers": [1, 3],
        "d_model": [32, 64],
        "dtype": ["float32", "bfloat16"],
        "tasks": ["forward", "train_step"],
    }
    cells = sweep_of(**axes, mixers=["attention"], backends=["sdpa", "reference"]).resolved("cpu").cells()
    found = {
        (cell.n_tokens, cell.batch_size, cell.n_layers, cell.d_model, cell.dtype, cell.task, cell.backend)
        for cell in cells
    }
    assert found == set(itertools.product(*axes.values(), ["sdpa", "reference"]))
    assert len(cells) == len(found) == len({cell.id for cell in cells})


def test_an_id_is_the_same_in_every_run_and_on_every_machine() -> None:
    """Written down once; if this changes, old results no longer meet new ones in a comparison."""
    cell = Cell(task="forward", mixer="mamba", backend="numba", n_tokens=100, batch_size=1, n_layers=2, d_model=64)
    assert cell.id == "forward-mamba-numba-L100-B1-e8406990"


def test_each_mixer_takes_the_backends_that_are_its_own() -> None:
    cells = sweep_of(backends=["reference", "sdpa"]).resolved("cpu").cells()
    assert {(cell.mixer, cell.backend) for cell in cells} == {
        ("mamba", "reference"),
        ("attention", "reference"),
        ("attention", "sdpa"),
    }
    resolved = sweep_of(backends=["sdpa_math"]).resolved("cpu")
    assert "auto" not in resolved.backends
    assert {cell.backend for cell in resolved.cells() if cell.mixer == "attention"} == {"sdpa_math"}
    assert len({cell.backend for cell in resolved.cells() if cell.mixer == "mamba"}) == 1


def test_resolving_twice_changes_nothing() -> None:
    once = sweep_of().resolved("cpu", threads=2)
    assert once.resolved("cpu") == once == Sweep.from_dict(once.to_dict())
    assert once.threads == 2


def test_every_cell_but_one_is_paired_with_that_one() -> None:
    sweep = sweep_of(paired_with="mamba", backends=["reference", "sdpa"], lengths=[10]).resolved("cpu")
    mixer, _, backend = sweep.paired_with.partition("/")
    assert (mixer, backend) == ("mamba", BACKENDS_OF["mamba"].resolve("auto", "cpu"))
    for cell in sweep.cells():
        pair = sweep.pair_of(cell)
        assert pair is not None
        assert replace(pair, mixer=cell.mixer, backend=cell.backend) == cell
        assert sweep.pair_of(pair) is None
    assert all(sweep_of().pair_of(cell) is None for cell in sweep.cells())
    assert Sweep.from_dict({k: v for k, v in sweep_of().to_dict().items() if k != "paired_with"}) == sweep_of()


@pytest.mark.parametrize("wrong", ["none", "mamba/sdpa", "/numba ", 3, "mamba/auto/x"])
def test_a_pair_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(PlanError, match="paired_with takes MIXER"):
        sweep_of(paired_with=wrong)


def test_an_unknown_heap_is_refused() -> None:
    with pytest.raises(PlanError, match="choose from kept, system"):
        sweep_of(heap="stack")


def test_values_given_twice_count_once() -> None:
    assert sweep_of(lengths=[100, 200, 100]).lengths == (100, 200)


def test_values_are_compared_once_however_many_they_are() -> None:
    class Counted(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    lengths = [Counted(length) for length in range(2, 2002)]
    assert sweep_of(lengths=[*lengths, *lengths]).lengths == tuple(range(2, 2002))
    assert Counted.compared < 10_000


def test_a_file_that_is_no_preset_is_not_parsed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "endless.toml"
    path.write_text(f"lengths = [{'2,' * presets.MOST_BYTES}]")
    monkeypatch.setattr(
        presets.tomllib, "loads", lambda text: pytest.fail("parsed") if len(text) > 10_000 else {"about": ""}
    )
    with pytest.raises(PlanError, match=r"endless.toml' has more than 1048576 bytes"):
        presets.load(str(path))


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_sweep(name: str) -> None:
    assert presets.about(name)
    assert Sweep.from_dict({**presets.load(name), "device": "cpu"}).lengths


def test_a_file_names_only_what_differs(tmp_path: Any) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("\ufefflengths = [7]\nrounds = 9\n")  # a byte order mark, as some editors write
    assert presets.load(str(path)) == {**presets.load("default"), "lengths": [7], "rounds": 9}


def test_the_default_reaches_the_asymptotic_regime() -> None:
    """At the longest L, what grows fastest makes up nearly all of the arithmetic."""
    sweep = sweep_of(backends=["reference"]).resolved("cpu")
    longest = max(sweep.lengths)
    assert longest == 10_000
    costs = {(cell.mixer, cell.n_tokens): cell_cost(cell).flops for cell in sweep.cells() if cell.task == "forward"}
    previous = sorted(sweep.lengths)[-2]
    ratio = longest / previous
    assert costs["mamba", longest] / costs["mamba", previous] == pytest.approx(ratio, rel=0.01)
    assert costs["attention", longest] / costs["attention", previous] > ratio**1.9


@pytest.mark.parametrize("n_tokens", [2, 3, 4, 1000])
def test_a_table_becomes_as_many_tokens_as_asked(n_tokens: int) -> None:
    table = feature_spec(n_tokens)
    assert table.n_tokens == n_tokens
    assert abs(table.n_numeric - len(table.cardinalities)) <= 1


def test_a_cells_tower_is_what_the_cell_says() -> None:
    cell = Cell(task="forward", mixer="attention", backend="sdpa", n_tokens=9, batch_size=1, n_layers=3, d_model=32)
    spec = encoder_spec(cell)
    assert (spec.n_layers, spec.d_model, spec.mixer.name, spec.mixer.backend) == (3, 32, "attention", "sdpa")


def test_a_tower_that_cannot_be_is_told_before_anything_runs() -> None:
    with pytest.raises(PlanError, match="d_model 60 is not a multiple of n_heads 8"):
        sweep_of(d_model=[64, 60]).resolved("cpu").cells()
