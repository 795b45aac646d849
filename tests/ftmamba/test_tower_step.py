"""The step's kernel gives what a float64 tower gives over whole histories, and takes what it should, and no more."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from ftmamba import (
    AttentionSpec,
    EncoderSpec,
    EventSpec,
    FeatureBatch,
    FeatureSpec,
    HistoryBatch,
    HistoryEncoder,
    MambaSpec,
    Stream,
    get_threads,
    set_threads,
)
from ftmamba.mixers import find
from ftmamba.spec import MixerSpec
from ftmamba.state import put, rows, tensors

pytest.importorskip("numba")
EVENTS, N = EventSpec(50, 2, (7, 3)), 41
MIXERS: list[tuple[MixerSpec, int]] = [
    (MambaSpec(), 64),
    (MambaSpec(d_conv=1, d_state=32, expand=1), 48),
    (AttentionSpec(causal=True), 48),  # heads of 6 channels
    (AttentionSpec(causal=True, n_heads=2, window=4, first_norm=True), 80),  # of 40
    (AttentionSpec(causal=True, n_heads=3, post_norm=True, ffn_activation="relu"), 96),
    (find("hybrid")(layers="mamba+attention(causal=true)"), 32),
]


def tower_of(mixer: MixerSpec, d_model: int = 32, events: EventSpec = EVENTS, **more: Any) -> HistoryEncoder:
    torch.manual_seed(0)
    return HistoryEncoder(EncoderSpec(mixer=mixer, d_model=d_model, n_layers=2, d_out=37), events, **more).eval()


def draw(n_rows: int, n: int = N) -> HistoryBatch:
    generator = torch.Generator().manual_seed(1)
    whole = [torch.randint(high, (n_rows, n), generator=generator) for high in (50, 7, 3, 10**6)]
    numbers = torch.randn(n_rows, n, 2, generator=generator)
    return HistoryBatch(
        whole[0], numbers, torch.stack(whole[1:3], -1), whole[3].cumsum(1) - 10**6, torch.full((n_rows,), n)
    )


def event(history: HistoryBatch, who: list[int], at: list[int]) -> HistoryBatch:
    return HistoryBatch(*(each[who, at].unsqueeze(1) for each in history[:-1]), torch.ones(len(who)).long())


def truth(tower: HistoryEncoder, history: HistoryBatch, *static: Any, **at: Any) -> Tensor:
    exact = copy.deepcopy(tower).double()
    with torch.no_grad():
        y: Tensor = exact(history._replace(numeric=history.numeric.double()), *static, **at)
    return y.float()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the kernel may answer."""
    for name in ("_step", "_peek"):
        monkeypatch.delattr(Stream, name)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("mixer", "d_model"), MIXERS, ids=repr)
def test_every_event_and_every_peek_is_that_of_the_whole_history(mixer: MixerSpec, d_model: int) -> None:
    tower, history = tower_of(mixer, d_model, max_events=N, positions=True), draw(3)
    stream, expected = Stream(tower), truth(tower, history, at="all")
    state = stream.start(3, room=N)
    for t in range(N):
        part = HistoryBatch(*(each[:, t : t + 1] for each in history[:-1]), torch.ones(3).long())
        y, state = stream.step(part, state)
        torch.testing.assert_close(y, expected[:, t], rtol=0, atol=3e-6)
        if t % 5 == 0:
            before = [each.clone() for each in tensors(state)]
            peeked = stream.peek(state)
            assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
            so_far = truth(tower, history._replace(lengths=torch.full((3,), t + 1)))
            torch.testing.assert_close(peeked, so_far, rtol=0, atol=3e-6)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_kernel_minds_no_default_of_torch(dtype: torch.dtype) -> None:
    tower, history = tower_of(MambaSpec()), draw(3)
    stream = Stream(tower)
    part = event(history, [0, 1, 2], [0, 0, 0])
    expected, _ = stream.step(part, stream.start(3))
    state = stream.start(3)
    torch.set_default_dtype(dtype)
    try:
        found, _ = stream.step(part, state)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("mixer", "d_model"), MIXERS, ids=repr)
def test_users_of_a_pool_by_index(mixer: MixerSpec, d_model: int, n_threads: int) -> None:
    """Caches grow from two tokens on, users without an event stay as they are, to the bit."""
    tower, history, before, lengths = tower_of(mixer, d_model), draw(30), get_threads(), [0] * 30
    set_threads(n_threads)
    try:
        stream, generator = Stream(tower), torch.Generator().manual_seed(2)
        pool = stream.start(30, room=2)
        for _ in range(12):
            users = torch.randperm(30, generator=generator)[: int(torch.randint(1, 25, (), generator=generator))]
            others = torch.tensor([i for i in range(30) if i not in users])
            kept = tensors(rows(pool, others))
            y, pool = stream.step(event(history, users.tolist(), [lengths[i] for i in users.tolist()]), pool, users)
            for old, new in zip(kept, tensors(rows(pool, others)), strict=True):
                assert torch.equal(old, new[:, : old.shape[1]] if old.dim() > 1 else new)
            for i in users.tolist():
                lengths[i] += 1
        expected = truth(tower, history, at="all")
        torch.testing.assert_close(y, expected[users, [lengths[i] - 1 for i in users.tolist()]], rtol=0, atol=3e-6)
        some = torch.tensor([4, 4, 17])
        expected = truth(tower, history._replace(lengths=torch.tensor(lengths)))
        assert len(set(lengths)) > 3
        torch.testing.assert_close(stream.peek(pool), expected, rtol=0, atol=3e-6)
        torch.testing.assert_close(stream.peek(pool, some), expected[some], rtol=0, atol=3e-6)
    finally:
        set_threads(before)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("mixer", "d_model"), MIXERS[::3], ids=repr)
def test_weights_that_change_are_the_new_ones(mixer: MixerSpec, d_model: int) -> None:
    tower, history = tower_of(mixer, d_model), draw(1)
    stream = Stream(tower)
    _, state = stream.step(event(history, [0], [0]), stream.start(1, room=9))
    for change in (1, 2):
        with torch.no_grad():
            for parameter in tower.parameters():
                parameter.mul_(1.2) if change == 1 else parameter.set_((parameter * 0.8).clone())
        one = history._replace(lengths=torch.tensor([1]))
        fresh = stream.step(event(history, [0], [0]), Stream(tower).start(1, room=9))[0]
        torch.testing.assert_close(fresh, truth(tower, one, at="all")[:, 0], rtol=0, atol=3e-6)
        assert not torch.equal(stream.peek(state), stream.peek(Stream(tower).start(1, room=9)))


def test_copies_are_independent_of_what_they_were_made_from() -> None:
    stream, history = Stream(tower_of(MIXERS[-1][0])), draw(2)
    _, state = stream.step(event(history, [0, 1], [0, 0]), stream.start(2))
    for twin, copied in ((copy.deepcopy(stream), copy.deepcopy(state)), pickle.loads(pickle.dumps((stream, state)))):
        before = [each.clone() for each in tensors(state)]
        y, _ = twin.step(event(history, [0, 1], [1, 1]), copied)
        assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
        torch.testing.assert_close(y, truth(stream.tower, history, at="all")[:, 1], rtol=0, atol=3e-6)
    del twin, copied
    y, state = stream.step(event(history, [0, 1], [1, 1]), put(stream.start(2), torch.tensor([1, 0]), state))
    assert state.n_events.tolist() == [2, 2]


@pytest.mark.parametrize("users", [None, torch.tensor([2, 0, 1])])
def test_what_is_refused_changes_nothing(users: Tensor | None) -> None:
    tower, history = tower_of(MambaSpec(), max_events=2, positions=True), draw(3)
    stream = Stream(tower)
    _, state = stream.step(event(history, [0, 1, 2], [0] * 3), stream.start(3), users)
    good, before = event(history, [0, 1, 2], [1] * 3), [each.clone() for each in tensors(state)]
    wrong: list[tuple[HistoryBatch, Tensor | None, str]] = [
        (good._replace(item=torch.tensor([[3], [49], [50]])), users, "item 50 is outside of 0 to 49"),
        (good._replace(item=torch.tensor([[3], [-1], [4]])), users, "item -1 is outside of 0 to 49"),
        (good._replace(categorical=torch.tensor([[[6, 2]], [[6, 3]], [[0, 0]]])), users, "categorical column 1"),
        (good._replace(numeric=torch.zeros(3, 1, 1)), users, "1 numeric and 2 categorical columns"),
        (history, users, "one event a row of 3 is taken"),
        (good, torch.tensor([0, 1, 1]), "user 1 has more than one event"),
        (good, torch.tensor([0, 1, 3]), "user 3 is outside of 0 to 2"),
        (good, torch.tensor([-1, 1, 2]), "user -1 is outside of 0 to 2"),
    ]
    for given, who, reason in wrong:
        with pytest.raises((ValueError, IndexError), match=reason):
            stream.step(given, state, who)
        assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
    with pytest.raises(IndexError, match="user 3 is outside"):
        stream.peek(state, torch.tensor([3]))
    _, state = stream.step(good, state, users)
    with pytest.raises(ValueError, match="a history of 3 events for a tower of at most 2"):
        stream.step(good, state, users)
    assert state.n_events.tolist() == [2, 2, 2]


def test_static_columns_and_numbers_of_another_dtype() -> None:
    tower, history = tower_of(MambaSpec(), static=FeatureSpec(1, (4,))), draw(2)
    columns = FeatureBatch(torch.randn(2, 1), torch.randint(4, (2, 1)))
    stream = Stream(tower)
    state = stream.start(2, columns)
    for t in range(3):
        part = event(history, [0, 1], [t, t])
        y, state = stream.step(part if t != 1 else part._replace(numeric=part.numeric.double()), state)
    exact = FeatureBatch(columns.numeric.double(), columns.categorical)
    torch.testing.assert_close(y, truth(tower, history, exact, at="all")[:, 2], rtol=0, atol=3e-6)


def test_what_the_kernel_does_not_know_is_left_to_torch() -> None:
    unknown = [
        MambaSpec(backend="reference"),
        MambaSpec(d_state=8),
        AttentionSpec(causal=True, backend="sdpa"),
        find("linear_attention")(causal=True),
    ]
    assert Stream(tower_of(MambaSpec()))._kernel is not None
    assert Stream(tower_of(MambaSpec()).double())._kernel is None
    for mixer in unknown:
        assert Stream(tower_of(mixer))._kernel is None


@pytest.mark.usefixtures("alone")
def test_a_hundred_thousand_events_drift_no_further_than_the_forward_pass() -> None:
    n, generator = 100_000, torch.Generator().manual_seed(3)
    tower = tower_of(MambaSpec(), 16, EventSpec(50))
    item, none = torch.randint(50, (1, n), generator=generator), torch.empty(1, n, 0)
    history = HistoryBatch(item, none, none.long(), torch.arange(n).unsqueeze(0), torch.tensor([n]))
    stream = Stream(tower)
    state, none = stream.start(1), torch.empty(1, 1, 0)
    for i, t in zip(item.squeeze(0).split(1), history.time.squeeze(0).split(1), strict=True):
        y, state = stream.step(HistoryBatch(i[None], none, none.long(), t[None], history.lengths), state)
    with torch.no_grad():
        torch.testing.assert_close(y, tower(history, at="all")[:, -1], rtol=0, atol=3e-6)
        torch.testing.assert_close(stream.peek(state), tower(history), rtol=0, atol=3e-6)
