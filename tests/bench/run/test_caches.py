"""Sets of inputs and weights that take turns: none is met again before the cache has seen all others."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.presets import load
from bench.plan.setting import PlanError
from bench.run import caches, ops
from bench.run.measure import build, measure

CELL = Cell(task="forward", mixer="attention", backend="sdpa", n_tokens=4, batch_size=2, n_layers=1, d_model=8)
REQUEST = {"settings": {"budget_s": 0.01}, "threads": 1, "verified": True}


def step_of(seen: list[int], numel: int = 100) -> Callable[[], Tensor]:
    weights, layer = torch.ones(numel), nn.Linear(10, 1, bias=False)

    @torch.no_grad()
    def step() -> Tensor:
        seen.append(weights.data_ptr())
        return weights * layer.weight.sum()

    return step


def test_all_sets_together_are_larger_than_the_cache_and_none_comes_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "last_level_bytes", lambda device: 4400)
    seen: list[int] = []
    kept = [step_of(seen) for _ in range(40)]
    more = iter(kept[1:])
    step, told = caches.in_turn(kept[0], lambda: next(more), "cpu")
    for _ in range(100):
        step()
    assert told.startswith("32 sets of 0.00042 MiB in turn")  # 440 bytes each: 3 times 4,400, and two
    assert len(set(seen)) == 32
    assert all(seen[i] == seen[i % 32] for i in range(100))


def test_a_cache_that_holds_all_sets_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "last_level_bytes", lambda device: 10**9)
    monkeypatch.setattr(caches, "MOST_SETS", 3)
    assert caches.in_turn(step_of([]), lambda: step_of([]), "cpu")[1].endswith("which holds them all")


@pytest.mark.parametrize("task", ["forward", "train_step", "block_forward", "block_train"])
def test_what_a_step_holds_is_found(task: str) -> None:
    """At least the weights that it uses; a tower's are those of its parameters."""
    held = {id(each): each.numel() for each in caches._tensors(build(CELL.but(task=task)))}
    block = 4 * 8 * 8 + 2 * 8 * 8  # projections, and at least as much of feed-forward
    assert sum(held.values()) >= block + (2 * 4 * 8 if task.startswith("block") else 2 * 3)


def test_cold_cells_say_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "last_level_bytes", lambda device: 10_000)
    for cell in (CELL.but(cache="cold"), CELL.but(cache="cold", paired_with="attention/reference")):
        found = measure(cell, REQUEST)
        assert re.match(r"\d+ sets of \S+ MiB in turn", found["notes"]["cache"])
        assert len(found["samples"]["wall_s"]) >= 2
    op = Cell(task="op", op="causal_conv", backend="reference", n_tokens=5, batch_size=1, width=4, cache="cold")
    assert "cache" in ops.time_of(op, 0.01)["notes"]
    assert "cache" not in measure(CELL, REQUEST)["notes"]


def test_the_largest_cache_is_found(tmp_path: Path) -> None:
    for i, size in enumerate(("48K\n", "2048K\n", "33M\n", "")):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size)
    assert caches.last_level_bytes("cpu", tmp_path) == 33 * 2**20
    assert caches.last_level_bytes("cpu", tmp_path / "none") > 0


def test_many_towers_are_not_compiled() -> None:
    plan = Plan({**load("smoke"), "device": "cpu", "cache": ["cold"], "execution": ["compile"]})
    with pytest.raises(PlanError, match="take execution eager"):
        plan.cells()
    warm = Plan({**load("smoke"), "device": "cpu"}).cells()
    assert [cell.id for cell in Plan({**load("smoke"), "device": "cpu", "cache": "warm"}).cells()] == [
        cell.id for cell in warm
    ]
