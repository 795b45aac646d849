"""A server of live requests: its answers, its cache of states, its batches, and a cell from end to end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.plan import presets
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.setting import PlanError
from bench.run.load import WallClock
from bench.run.stream_load import Load, Server, distinct, measure
from bench.run.stream_step import KERNEL, draw, tower_for


def cell(**more: Any) -> Cell:
    fields = {
        "policy": "state", "mixer": "mamba", "backend": "numba", "n_tokens": 8, "n_layers": 1, "d_model": 16,
        "resident_users": 3, "users": 6, "dtype": "float32", "device": "cpu", "catalogue": 50, **more,
    }  # fmt: skip
    return Cell(task="stream_load", **fields)


def server(own: Cell) -> Server:
    one = own.but(batch_size=1)
    return Server(own, tower_for(one), draw(one, own.n_tokens - 1))


@pytest.mark.parametrize("users", [[1], [1, 2, 3], [1, 2, 1, 1, 3], [5, 5], [1, 2, 3, 4, 1]])
def test_groups_keep_the_order_and_hold_nobody_twice(users: list[int]) -> None:
    groups = [*distinct(users, 3)]
    assert [user for group in groups for user in group] == users
    assert all(len(set(group)) == len(group) <= 3 for group in groups)


def test_states_of_those_asked_for_last_are_kept() -> None:
    """Room for three: after 0 1 2 0 it is 1 that 3 displaces, so that 1 is lost when asked again."""
    served = server(cell())
    for user in (0, 1, 2, 0, 3, 1):
        served.answer([user])
    assert (served.hits, served.misses) == (4, 2)


@pytest.mark.parametrize(
    "kind", [("state", "mamba", {}), ("kv", "attention", {"causal": True}), ("recompute", "attention", {})]
)
def test_answers_are_the_same_one_by_one_and_in_batches(kind: Any) -> None:
    policy, mixer, params = kind
    own = cell(policy=policy, mixer=mixer, params=params)
    alone, together = server(own), server(own)
    alone.answer([0])
    alone._time -= 1  # the clock and the items of both begin alike
    first = alone.best
    together.answer([0, 1, 2])
    assert torch.equal(together.best[0].sort().values, first[0].sort().values)
    assert together.best.shape == (3, 10)
    spent = together.answer([1, 1, 2])
    assert min(spent) > 0
    assert (together.hits, together.misses) == (6, 0)


@pytest.mark.parametrize("more", [{}, {"max_batch": 4, "max_wait_ms": 1.0, "rate": 300.0}, {"rate": 1e6}])
def test_a_cell_is_served(more: dict[str, Any]) -> None:
    request = {"threads": 1, "settings": {"budget_s": 0.1}}
    own = cell(**more) if more.get("rate") != 1e6 else cell(**more, bound_ms=1e-3)
    reply = measure(own, request, None)
    values, samples = reply["values"], reply["samples"]
    assert set(samples) >= {"queue_s", "update_s", "refresh_s", "top_k_s", "total_s", "closed_s", "empty_s"}
    assert 0 <= values["hit_rate"] <= 1
    assert reply["notes"]["kernel"] == KERNEL[True]
    if more.get("rate") == 1e6:
        assert not values["reached"]
        assert "cannot be reached" in reply["notes"]["reached"]
        assert values["highest_rate_per_s"] == 0
        assert not values["p99_allowed"]
    else:
        assert np.all(np.array(samples["total_s"]) >= np.array(samples["queue_s"]))


def test_recorded_users_come_in_their_order() -> None:
    columns = {"time": np.array([30, 10, 20, 40]), "user": np.array([3, 1, 2, 4])}
    load = Load(cell(), server(cell()), SimpleNamespace(column=columns.__getitem__), WallClock())  # type: ignore[arg-type]
    arrivals, users = load.draw(2.0, 3)
    assert users.tolist() == [2, 3, 4]
    assert np.allclose(arrivals, [0.0, 0.75, 1.5])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arrivals": ["poison"]}, "unknown data set 'poison'"), ({"rates": [0.0]}, "above 0"),
        ({"max_wait_ms": [2.0]}, "max_batch above 1"), ({"lengths": [2]}, "lengths from 3"),
        ({"mixers": ["attention"]}, "attention keeps no"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises((PlanError, ValueError), match=said) as refused:
        Plan({**presets.load("stream"), "device": "cpu", **settings}).cells()
    assert "\n" not in str(refused.value)
