"""Users of a live system: what a request gives and keeps, and that a wrong policy gets no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.analysis.scaling import summarise
from bench.plan.cell import Cell
from bench.run.stream_step import KERNEL, Requests, draw, fill, measure, tower_for, verify
from bench.run.users import Kept, Recomputed, part
from bench.run.verify import WrongResultError
from ftmamba.history import HistoryBatch
from ftmamba.stream import Stream

CASES = [
    ("state", "mamba", {}), ("kv", "attention", {"causal": True}), ("kv_window:5", "attention", {"causal": True}),
    ("recompute", "attention", {}), ("recompute_window:5", "mamba", {}),
]  # fmt: skip


def cell(policy: str, mixer: str, params: dict[str, Any], **more: Any) -> Cell:
    fields = {"n_tokens": 12, "batch_size": 2, "n_layers": 2, "d_model": 16, "resident_users": 6, "dtype": "float32"}
    return Cell(
        task="stream_step", policy=policy, mixer=mixer, params=params, device="cpu",
        backend="reference" if more.get("dtype") == "float64" else "numba",
        **{**fields, **more},
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.parametrize("cold_share", [0.0, 1.0])
def test_a_cell_is_measured(case: Any, cold_share: float) -> None:
    request = {"threads": 1, "verified": False, "settings": {"budget_s": 0.02}}
    reply = measure(cell(*case, cold_share=cold_share), request)
    values = reply["values"]
    assert len(reply["samples"]["wall_s"]) > 1
    assert values["update_s"] > 0
    assert values["refresh_s"] > 0
    assert values["state_bytes"] == values["state_bytes_by_arithmetic"]
    assert ("replay_s" in values) == (not case[0].startswith("recompute"))
    assert reply["notes"].get("kernel") == (None if case[0].startswith("recompute") else KERNEL[True])
    assert reply["notes"]["verify"].startswith("off the float64 reference")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_requests_refresh_from_all_events_and_histories_grow_no_longer(case: Any) -> None:
    """However often a user is asked for, the answer is the forward pass over the same number of events."""
    own = cell(*case, dtype="float64")
    tower, history = tower_for(own), draw(own, own.n_tokens - 1)
    users = fill(own, tower, history)
    requests = Requests(own, users, history)
    whole = tower(history if case[0] != "recompute_window:5" else part(history, 6, 11))
    if case[0].startswith("recompute"):  # which keeps the last event as its newest, over and over
        requests.prepare()
        assert torch.allclose(requests.refresh(), whole, atol=1e-12, rtol=0)
        return
    for _ in range(20):
        requests.prepare()
        assert [each.state.n_events.tolist() for each in users] == [[10, 10]] * 3  # type: ignore[union-attr]
        first = requests.answer()
    if case[0] == "kv":  # whose states do not move on: each answer stands behind the same keys
        assert torch.allclose(first, whole, atol=1e-12, rtol=0)


def test_a_history_that_is_recomputed_takes_the_new_event() -> None:
    own = cell("recompute", "attention", {}, dtype="float64")
    tower, history = tower_for(own), draw(own, 11)
    users = Recomputed(tower, HistoryBatch._make(map(torch.clone, part(history, 0, 10))))
    users.update(part(history, 10, 11).rows(slice(1, 2)), torch.tensor([1]))
    whole = torch.cat([tower(part(history, i, 10 + i))[i, None] for i in (0, 1)])
    assert torch.allclose(users.read(), whole, atol=1e-12, rtol=0)
    assert torch.allclose(users.read(torch.tensor([1])), whole[1:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case[0])
def test_users_of_different_lengths_step_together(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of a pool, made anew by one pass each and stepped by their rows; the user between stays a stranger."""
    monkeypatch.setattr("bench.run.users.BLOCK_EVENTS", 1)  # one user at a time
    own = cell(*case, dtype="float64", batch_size=1, resident_users=1)
    tower, history = tower_for(own), draw(own, 9)
    stream = Stream(tower)
    users = Kept(stream, stream.start(3))
    for user, n in ((2, 3), (0, 8)):
        users.replay(part(history, 0, n), torch.tensor([user]))
    event = HistoryBatch._make(map(torch.cat, zip(part(history, 3, 4), part(history, 8, 9), strict=True)))
    users.update(event, torch.tensor([2, 0]))
    whole = torch.cat([tower(part(history, 0, n)) for n in (4, 9)])
    assert torch.allclose(users.read(torch.tensor([2, 0])), whole, atol=1e-12, rtol=0)
    assert users.state.n_events.tolist() == [9, 0, 4]
    assert not users.state.by_kernel


def test_long_caches_are_full_of_real_tokens() -> None:
    own = cell("kv", "attention", {"causal": True}, n_tokens=302, batch_size=1, resident_users=1)
    users = fill(own, tower_for(own), draw(own, 301))
    assert isinstance(users[0], Kept)
    cache = users[0].state.layers[0]
    assert cache.k.shape[1] == 302
    assert cache.n_seen.tolist() == [300]
    assert users[0].state.n_events.tolist() == [300]
    assert bool((cache.k[0, :300].abs().sum((1, 2)) > 0).all())
    assert torch.equal(cache.k[0, 0], cache.k[0, 64])


def test_a_wrong_policy_gets_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Stream.peek
    monkeypatch.setattr(Stream, "peek", lambda *args: right(*args) * 1.001)
    with pytest.raises(WrongResultError, match=r"policy state of mamba/numba is off by 0\.001"):
        verify(cell("state", "mamba", {}))


def test_length_at_which_policies_cost_the_same(planted_records: Any) -> None:
    """Planted: a state costs 1 ms at every L, a cache 1 us an event, so that L* is 1,000; the growth is 0 and 1."""
    fields = {"task": "stream_step", "resident_users": 100, "device": "cpu", "dtype": "float32", "n_samples": 20}
    records = [
        *planted_records({"mamba": lambda n: 1e-3}, policy="state", within=0.02, **fields),
        *planted_records({"attention": lambda n: 1e-6 * n}, policy="kv", within=0.02, **fields),
    ]
    summary = summarise(records)
    (found,) = (each for each in summary.crossovers if each.metric == "wall_s")
    assert (found.cheaper.mixer, found.dearer.mixer) == ("mamba(state)", "attention(kv)")
    assert found.n_tokens.low <= 1000 <= found.n_tokens.high
    growth = {each.curve["policy"]: each.exponent.value for each in summary.scalings if each.exponent}
    assert np.allclose([growth["state"], growth["kv"]], [0, 1], atol=0.02)
