"""Cells that fit: by number, by name, by several terms, and what is no term."""

from __future__ import annotations

from typing import Any

import pytest

from bench.plan import presets
from bench.plan.plan import Plan
from bench.plan.setting import PlanError


def plan(**changes: Any) -> Plan:
    return Plan({**presets.load("default"), "device": "cpu", "lengths": [100, 1000, 3000], **changes}).resolved("cpu")


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ("mixer=mamba,L>=1000", {("mamba", 1000), ("mamba", 3000)}),
        ("mixers!=mamba , n_tokens<1000", {("attention", 100)}),
        ("lengths=3000", {("mamba", 3000), ("attention", 3000)}),
        ("L>100,L<=1000", {("mamba", 1000), ("attention", 1000)}),
        ("B!=1,mixer=MAMBA", set()),
        ("loss=mse", set()),
    ],
)
def test_cells_that_fit_every_term(only: str, found: set[tuple[str, int]]) -> None:
    if not found:
        with pytest.raises(PlanError, match="no point is left of those that only"):
            plan(only=only).cells()
        return
    assert {(cell.mixer, cell.n_tokens) for cell in plan(only=only).cells()} == found


def test_what_is_kept_keeps_its_ids() -> None:
    assert {cell.id for cell in plan(only="task=forward").cells()} == {
        cell.id for cell in plan().cells() if cell.task == "forward"
    }


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ("mixer", "only takes terms such as L>=1000, got 'mixer'"),
        ("length>3", "only takes terms such as L>=1000, got 'length>3'; names are task, "),
        ("L>x", "only compares L with a number, got 'x'"),
        ("mixer>a", "only compares mixer by = or !="),
        (",", "only takes terms"),
    ],
)
def test_what_is_no_term_is_told(only: str, told: str) -> None:
    with pytest.raises(PlanError, match="only") as error:
        plan(only=only).cells()
    assert told in str(error.value)
