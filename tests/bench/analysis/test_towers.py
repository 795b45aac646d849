"""Both towers together: planted times sum by hand, whatever slowed both while they took turns."""

from __future__ import annotations

from typing import Any

import pytest

from bench.analysis.cells import MEMORY, TIME, summarise_cells
from bench.analysis.towers import Towers, alike, totals, training_cost
from bench.plan.cell import Cell
from bench.records.record import Record

TOWERS = Towers(300, 20, 256, 3)
MAMBA = {300: 2.0, 20: 0.5}
RATIO = {300: 3.0, 20: 0.4}  # attention's time over mamba's


def record(mixer: str, n: int, slowed: float, task: str = "train_step", **fields: Any) -> Record:
    """A planted cell; attention was timed in turns with mamba while both were slowed."""
    backend = {"mamba": "numba", "attention": "sdpa"}[mixer]
    paired = {"paired_with": "mamba/numba"} if mixer == "attention" else {}
    sizes = {"batch_size": 256, "n_layers": 3, "d_model": 64, **fields}
    cell = Cell(task=task, mixer=mixer, backend=backend, n_tokens=n, **sizes, **paired)
    own = MAMBA[n] * (RATIO[n] if paired else 1.0)
    samples = {"wall_s": [own * slowed] * 7} | ({"paired_ratio": [RATIO[n]] * 7} if paired else {})
    return Record(run="r", cell_id=cell.id, round=0, cell=dict(cell), status="ok", samples=samples,
                  values={MEMORY: n * (2 if paired else 3)}, notes=dict(paired))  # fmt: skip


def records(**fields: Any) -> list[Record]:
    rows = [record("mamba", n, 1.0, **fields) for n in (300, 20)]
    return rows + [record("attention", n, 5.0, **fields) for n in (300, 20)]


def test_sums_of_both_towers_by_hand() -> None:
    """2 + 0.5 against 2 x 3 + 0.5 x 0.4; the fivefold slowness beside attention is in neither. Memory: 2/3 of 960."""
    cells = summarise_cells([*records(), record("mamba", 300, 1.0, batch_size=16)])
    first, second = totals(cells, TOWERS, "train_step", TIME)
    assert (first.variant.mixer, second.variant.mixer) == ("mamba", "attention")
    assert (first.cost.value, second.cost.value) == pytest.approx((2.5, 6.2))
    assert second.over is not None
    assert (second.over.value, second.over.low, second.over.high) == pytest.approx((2.48, 2.48, 2.48))
    assert alike([first, second]) == [first]
    lean, other = totals(cells, TOWERS, "train_step", MEMORY)
    assert (lean.variant.mixer, lean.cost.value, other.cost.value) == ("attention", 640, 960)


def test_towers_of_one_length_cost_twice_one() -> None:
    cells = summarise_cells(records())
    found = totals(cells, Towers(20, 20, 256, 3), "train_step", TIME)
    assert [(each.variant.mixer, each.cost.value) for each in found] == [
        ("attention", pytest.approx(0.4)),
        ("mamba", 1),
    ]


def test_a_mixer_without_one_tower_has_no_total() -> None:
    cells = summarise_cells(records()[:3])
    assert [each.variant.mixer for each in totals(cells, TOWERS, "train_step", TIME)] == ["mamba"]


def test_a_training_costs_its_steps_and_its_looks() -> None:
    """The slowest trains in 6.2 s; its forward pass takes 10 s and 1 s a batch: 512 users and 256 items are 21 s."""
    forward = [record("attention", n, 10 / 6 if n == 300 else 5, task="forward") for n in (300, 20)]
    cells = summarise_cells([*records(), *forward])
    assert training_cost(cells, TOWERS, (512, 256)) == pytest.approx((6.2, 21))
    assert training_cost([], TOWERS, (512, 256)) is None


@pytest.mark.parametrize("towers", [None, {}, {"user": 3}, {**TOWERS.to_dict(), "user": "3"}, [1]])
def test_what_is_no_run_of_two_towers_has_none(towers: object) -> None:
    assert Towers.of({"towers": towers}) is None
    assert Towers.of({"towers": TOWERS.to_dict()}) == TOWERS
