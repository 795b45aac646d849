"""A stream's outputs are the tower's over whole histories, for users of any length; its states are kept and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftmamba import (
    AttentionSpec,
    EncoderSpec,
    EventSpec,
    FeatureBatch,
    FeatureSpec,
    FeatureTokenizer,
    HistoryBatch,
    HistoryEncoder,
    MambaSpec,
    Stream,
)
from ftmamba.checkpoint import KEY
from ftmamba.mixers import find
from ftmamba.spec import MixerSpec
from ftmamba.state import n_bytes, put, rows, tensors

EVENTS, STATIC, N = EventSpec(50, 2, (7, 3)), FeatureSpec(1, (4,)), 19
MIXERS: list[MixerSpec] = [
    MambaSpec(),
    AttentionSpec(causal=True),
    AttentionSpec(causal=True, window=4, first_norm=True),
    AttentionSpec(causal=True, post_norm=True),
    find("mamba2")(d_head=16, d_state=8, chunk=4),
    find("gated_deltanet")(),
    find("linear_attention")(causal=True),
    find("hstu")(),
    find("hybrid")(layers="mamba+attention(causal=true)"),
]


def tower_of(mixer: MixerSpec, static: FeatureSpec | None = STATIC, **more: Any) -> HistoryEncoder:
    torch.manual_seed(0)
    spec = EncoderSpec(mixer=mixer, d_model=32, n_layers=2)
    return HistoryEncoder(spec, EVENTS, static, **more).double().eval()


def draw(n_rows: int) -> tuple[HistoryBatch, FeatureBatch]:
    generator = torch.Generator().manual_seed(1)

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    categorical = torch.stack([whole(7, n_rows, N), whole(3, n_rows, N)], dim=-1)
    time = whole(10**6, n_rows, N).cumsum(1) - 5 * 10**5
    history = HistoryBatch(whole(50, n_rows, N), numbers(n_rows, N, 2), categorical, time, torch.full((n_rows,), N))
    return history, FeatureBatch(numbers(n_rows, 1), whole(4, n_rows, 1))


def event(history: HistoryBatch, who: list[int], at: list[int]) -> HistoryBatch:
    parts = (each[who, at].unsqueeze(1) for each in history[:-1])
    return HistoryBatch(*parts, torch.ones(len(who), dtype=torch.int64))


@pytest.mark.parametrize("static", [STATIC, None])
@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_every_event_and_every_peek_is_that_of_the_whole_history(mixer: MixerSpec, static: FeatureSpec | None) -> None:
    tower = tower_of(mixer, static, max_events=N, positions=static is None)
    stream, (history, columns) = Stream(tower), draw(3)
    given = None if static is None else columns
    expected = tower(history, given, at="all")
    state = stream.start(3, given, room=2)
    for t in range(N):
        y, state = stream.step(event(history, [0, 1, 2], [t] * 3), state)
        torch.testing.assert_close(y, expected[:, t], rtol=1e-12, atol=1e-12)
        before = [each.clone() for each in tensors(state)]
        peeked = stream.peek(state)
        assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
        so_far = tower(history._replace(lengths=torch.full((3,), t + 1)), given)
        torch.testing.assert_close(peeked, so_far, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_users_of_a_pool_have_events_at_their_own_time(mixer: MixerSpec) -> None:
    tower = tower_of(mixer)
    stream, (history, columns), lengths = Stream(tower), draw(4), [0] * 4
    pool = stream.start(4, columns)
    generator = torch.Generator().manual_seed(2)
    for _ in range(25):
        who = torch.randperm(4, generator=generator)[: int(torch.randint(1, 4, (), generator=generator))]
        users = [row for row in who.tolist() if lengths[row] < N]
        some = rows(pool, torch.tensor(users, dtype=torch.int64))
        _, some = stream.step(event(history, users, [lengths[row] for row in users]), some)
        pool = put(pool, torch.tensor(users, dtype=torch.int64), some)
        for row in users:
            lengths[row] += 1
    assert len(set(lengths)) > 1
    assert pool.n_events.tolist() == lengths
    expected = tower(history._replace(lengths=torch.tensor(lengths)), columns)
    torch.testing.assert_close(stream.peek(pool), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("static", [STATIC, None])
@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_states_of_whole_histories_are_those_of_their_steps(mixer: MixerSpec, static: FeatureSpec | None) -> None:
    stream, (history, columns), lengths = Stream(tower_of(mixer, static)), draw(4), [0, 3, N, 8]
    given = None if static is None else columns
    history = history._replace(lengths=torch.tensor(lengths))
    state, stepped = stream.start(4, given, N + 3, history), stream.start(4, given, N + 3)
    for t in range(N):
        users = [row for row in range(4) if lengths[row] > t]
        _, stepped = stream.step(event(history, users, [t] * len(users)), stepped, torch.tensor(users))
    for whole, each in zip(tensors(state), tensors(stepped), strict=True):
        torch.testing.assert_close(whole, each, rtol=1e-12, atol=1e-12)
    expected = stream.tower(history, given)
    torch.testing.assert_close(stream.peek(state), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="histories of 4 users are given for 3"):
        stream.start(3, None if given is None else given.rows(slice(3)), None, history)


def test_items_of_a_content_tower() -> None:
    content = FeatureTokenizer(FeatureSpec(2, (6, 50)), 32)
    spec = EncoderSpec(mixer=MambaSpec(), d_model=32, n_layers=1)
    tower = HistoryEncoder(spec, EVENTS, items=content, item_column=1).double().eval()
    stream, (history, _) = Stream(tower), draw(2)
    state, expected = stream.start(2), tower(history, at="all")
    for t in range(5):
        y, state = stream.step(event(history, [0, 1], [t, t]), state)
        torch.testing.assert_close(y, expected[:, t], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_states_come_back_to_the_bit(mixer: MixerSpec, tmp_path: Path) -> None:
    stream, (history, columns) = Stream(tower_of(mixer)), draw(2)
    state = stream.start(2, columns)
    for t in range(7):
        _, state = stream.step(event(history, [0, 1], [t, t]), state)
    stream.save(tmp_path / "users", state)
    loaded = Stream(tower_of(mixer)).load(tmp_path / "users")
    assert all(torch.equal(a, b) for a, b in zip(tensors(state), tensors(loaded), strict=True))
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in state.layers]
    ahead = event(history, [0, 1], [7, 7])
    assert torch.equal(stream.step(ahead, state)[0], stream.step(ahead, loaded)[0])


def test_states_of_another_model_are_refused(tmp_path: Path) -> None:
    path, stream = tmp_path / "users", Stream(tower_of(MambaSpec()))
    stream.save(path, stream.start(2, draw(2)[1]))
    other = tower_of(MambaSpec())
    with torch.no_grad():
        other.head.output.bias[0] += 1e-9
    wide = HistoryEncoder(replace(stream.tower.spec, dropout=0.1), EVENTS, STATIC).double()
    wide.load_state_dict(stream.tower.state_dict())
    for tower in (other, wide, tower_of(MambaSpec(d_state=8))):
        with pytest.raises(ValueError, match=r"^[^\n]*users cannot be loaded: its states are of another model[^\n]*$"):
            Stream(tower).load(path)
    newer = {KEY: json.dumps({"states": 99, "model": stream._digest()})}
    save_file(load_file(path), path, newer)
    with pytest.raises(ValueError, match="newer ftmamba wrote it, in version 99"):
        stream.load(path)
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="it holds no states"):
        stream.load(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ValueError, match="cannot be loaded"):
        stream.load(path)


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_bytes_are_those_that_the_formula_gives(mixer: MixerSpec) -> None:
    stream, (history, columns) = Stream(tower_of(mixer)), draw(3)
    state = stream.start(3, columns, room=N + 2)
    for t in range(N):
        _, state = stream.step(event(history, [0, 1, 2], [t] * 3), state)
    assert n_bytes(state) == 3 * (stream.tower.spec.state_bytes(N + 2, 8) or 0)


def test_what_cannot_be_is_refused() -> None:
    for mixer, reason in ((AttentionSpec(), "looks ahead"), (find("bimamba")(), "looks ahead")):
        with pytest.raises(ValueError, match=f"^{type(mixer).name} {reason}.*: mamba, attention:causal=true, "):
            Stream(tower_of(mixer))
    assert tower_of(AttentionSpec()).spec.state_bytes(5) is None
    stream, (history, columns) = Stream(tower_of(MambaSpec(), max_events=1, positions=True)), draw(2)
    for batch, given in ((2, None), (3, columns)):
        with pytest.raises(ValueError, match="static columns of"):
            stream.start(batch, given)
    state = stream.start(2, columns)
    with pytest.raises(ValueError, match="one event a row of 2 is taken"):
        stream.step(history, state)
    _, state = stream.step(event(history, [0, 1], [0, 0]), state)
    with pytest.raises(ValueError, match="a history of 2 events for a tower of at most 1"):
        stream.step(event(history, [0, 1], [1, 1]), state)
