"""Policies: what can be typed, which mixer can do which, and what a plan says of the others before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from bench.plan import presets
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.policy import Policy, tower_of
from bench.plan.setting import PlanError
from bench.run.tasks.stream_step import cost, state_bytes
from ftmamba.mixers import find, parse


def plan(**settings: Any) -> Plan:
    return Plan({**presets.load("stream-quick"), "device": "cpu", **settings})


def cell(policy: str, mixer: str, n_tokens: int = 1000, **more: Any) -> Cell:
    (found,) = plan(mixers=[mixer], policies=[policy], lengths=[n_tokens], heads="own", **more).cells()
    return found


@pytest.mark.parametrize(
    ("policy", "able"),
    [
        ("recompute", ["mamba", "attention", "attention:causal=true", "linear_attention", "fnet"]),
        ("recompute_window:20", ["mamba", "attention"]),
        ("state", ["mamba", "mamba2", "gated_deltanet", "linear_attention:causal=true"]),
        ("kv", ["attention:causal=true", "hstu"]),
        ("kv_window:20", ["attention:causal=true"]),
    ],
)
def test_a_mixer_takes_the_policies_that_it_can_do(policy: str, able: list[str]) -> None:
    every = ["mamba", "mamba2", "gated_deltanet", "linear_attention:causal=true", "linear_attention", "hstu", "fnet"]
    for text in (*every, "attention", "attention:causal=true"):
        name, params = parse(text)
        wanted = text in able or policy.startswith("recompute")
        assert Policy.of(policy).suits(find(name)(**params)) == wanted, text


@pytest.mark.parametrize(
    "text", ["", "cache", "kv:3", "state:1", "kv_window", "kv_window:", "kv_window:0", "recompute_window:x"]
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="policy"):
        Policy.of(text)


def test_a_plan_pairs_mixers_and_policies() -> None:
    found = plan(lengths=[10], policies=["state", "kv", "recompute"]).cells()
    assert [(each.mixer, each.params.get("causal"), each.policy) for each in found] == [
        ("mamba", None, "state"), ("mamba", None, "recompute"),
        ("attention", True, "kv"), ("attention", True, "recompute"), ("attention", False, "recompute"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mixers", "policies", "said"),
    [
        (["attention"], ["kv"], "attention keeps no keys and values.* mixers that do: attention:causal=true, hstu"),
        (["mamba"], ["kv"], "mamba keeps no keys"),
        (["attention:causal=true"], ["state"], "keeps no state of one size.*mamba"),
        (["hstu"], ["kv_window:9"], "takes no window.*: attention:causal=true"),
        (["mamba"], ["state", "kv"], "policy 'kv' says nothing to any mixer"),
    ],
)
def test_a_policy_that_a_mixer_cannot_do_is_one_line(mixers: list[str], policies: list[str], said: str) -> None:
    with pytest.raises(PlanError, match=said) as refused:
        plan(mixers=mixers, policies=policies).cells()
    assert "\n" not in str(refused.value)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(PlanError, match="lengths from 3"):
        plan(lengths=[2]).cells()
    with pytest.raises(PlanError, match="resident_users"):
        plan(batch_sizes=[64], resident_users=[32]).cells()


def test_a_window_is_the_mixers_own() -> None:
    assert getattr(tower_of(cell("kv_window:20", "attention:causal=true")).mixer, "window") == 20  # noqa: B009
    assert getattr(tower_of(cell("kv", "attention:causal=true")).mixer, "window") is None  # noqa: B009


def test_states_are_as_large_as_by_hand() -> None:
    """Two layers of width 64: Mamba keeps 128 channels of 16 + 3 numbers, a cache 128 numbers an event."""
    assert state_bytes(cell("state", "mamba")) == 2 * 128 * 19 * 4 + 16
    assert state_bytes(cell("kv", "attention:causal=true")) == 2 * (1000 * 128 * 4 + 8) + 16
    assert state_bytes(cell("kv_window:20", "attention:causal=true")) == 2 * (21 * 128 * 4 + 8) + 16
    assert state_bytes(cell("recompute", "attention")) == 999 * 16 + 8
    assert state_bytes(cell("recompute_window:20", "attention")) == 20 * 16 + 8


def test_work_grows_with_what_is_read() -> None:
    """Each further token of a cache is 128 numbers in each of two layers, read by the event and by [CLS]."""
    short, long = (cost(cell("kv", "attention:causal=true", n)) for n in (1000, 2000))
    assert short
    assert long
    assert long.flops - short.flops == 2 * 2 * 1000 * 128 * 2
    assert long.min_bytes - short.min_bytes == 1000 * 128 * 2 * 4
    one, many = (cost(cell("state", "mamba", n)) for n in (10, 10_000))
    assert one
    assert many
    assert (one.flops, one.min_bytes) == (many.flops, many.min_bytes)
    resident = cost(cell("state", "mamba", resident_users=[1000]))
    assert resident
    assert resident.peak_bytes >= 1000 * (2 * 128 * 19 * 4 + 16)
