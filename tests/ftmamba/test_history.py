"""The history tower: its tokens by hand, rows by themselves, no look ahead, no pads, shared items."""

from __future__ import annotations

import math
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
    FeatureTokenizer,
    HistoryBatch,
    HistoryEncoder,
    MambaSpec,
    embed,
)
from ftmamba.mixers import NAMES, find
from ftmamba.ragged import groups
from ftmamba.spec import MixerSpec

EVENTS, STATIC = EventSpec(50, 2, (7, 3)), FeatureSpec(1, (4,))
LENGTHS = [0, 1, 20, 2, 17, 9]
SMALL: dict[str, dict[str, Any]] = {"longformer": {"window": 4}, "mamba2": {"d_head": 16, "d_state": 8, "chunk": 4}}
MIXERS: list[MixerSpec] = [find(name)(**SMALL.get(name, {})) for name in NAMES if not find(name).is_peer()]
CAUSAL = [AttentionSpec(causal=True), *(each for each in MIXERS if each.causal and type(each).name != "hybrid")]


def tower_of(mixer: MixerSpec, **more: Any) -> HistoryEncoder:
    torch.manual_seed(0)
    spec = EncoderSpec(mixer=mixer, d_model=32, n_layers=2, **more)
    return HistoryEncoder(spec, EVENTS, STATIC, max_events=40, positions=True).double().eval()


def draw(lengths: list[int] = LENGTHS, junk: bool = True) -> tuple[HistoryBatch, FeatureBatch]:
    """Behind the lengths stands what would break a tower that looked."""
    generator, (n_rows, n) = torch.Generator().manual_seed(1), (len(lengths), max(lengths))

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    numeric = torch.randn(n_rows, n, 2, generator=generator, dtype=torch.float64)
    categorical = torch.stack([whole(7, n_rows, n), whole(3, n_rows, n)], dim=-1)
    item, time = whole(50, n_rows, n), whole(10**6, n_rows, n).cumsum(1)
    if junk:
        for row, length in enumerate(lengths):
            numeric[row, length:], categorical[row, length:] = math.nan, 99
            item[row, length:], time[row, length:] = -5, -(10**12)
    static = FeatureBatch(torch.randn(n_rows, 1, generator=generator, dtype=torch.float64), whole(4, n_rows, 1))
    return HistoryBatch(item, numeric, categorical, time, torch.tensor(lengths)), static


def test_tokens_by_hand() -> None:
    tokenizer = tower_of(MambaSpec()).tokenizer
    history, _ = draw()
    (tokens,), weight = tokenizer(history), tokenizer.numeric.weight
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            gap = 0.0
            if t:
                gap = math.log(1 + int(history.time[row, t] - history.time[row, t - 1])) / math.log(86_401)
            a, b = history.categorical[row, t].tolist()
            expected = tokenizer.item_table[history.item[row, t]] + tokenizer.numeric.bias + gap * weight[:, 0]
            expected = expected + weight[:, 1:] @ history.numeric[row, t] + tokenizer.position_table[t]
            expected = expected + tokenizer.categorical_table[a] + tokenizer.categorical_table[7 + b]
            torch.testing.assert_close(tokens[row, t], expected, rtol=1e-12, atol=1e-12)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("last_layer", ["readout", "full"])
@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_a_row_in_a_batch_is_that_row_alone(mixer: MixerSpec, last_layer: str) -> None:
    tower = tower_of(mixer, last_layer=last_layer)
    history, static = draw()
    y = tower(history, static)
    assert y.shape == (len(LENGTHS), 32)
    alone = [tower(history.rows(slice(i, i + 1)), static.rows(slice(i, i + 1))) for i in range(len(LENGTHS))]
    torch.testing.assert_close(y, torch.cat(alone), rtol=1e-10, atol=1e-10)
    together = tower.head(tower._read(tower.tokenizer(history)[0], history, static, "last"))
    torch.testing.assert_close(together, y, rtol=1e-10, atol=1e-10)
    y.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in tower.parameters())
    assert tower.tokenizer.item_table.grad is not None
    seen = {int(i) for row, n in zip(history.item, LENGTHS, strict=True) for i in row[:n]}
    learned = set(tower.tokenizer.item_table.grad.abs().sum(1).nonzero().squeeze(1).tolist())
    assert learned == seen


@pytest.mark.parametrize("mixer", CAUSAL, ids=repr)
def test_every_event_has_what_its_own_history_would_give(mixer: MixerSpec) -> None:
    tower = tower_of(mixer)
    history, static = draw()
    y = tower(history, static, at="all")
    assert y.shape == (len(LENGTHS), 20, 32)
    for row, length in enumerate(LENGTHS):
        assert (y[row, length:] == 0).all()
    row, t = 2, 13
    moved = history._replace(item=history.item.clone(), time=history.time.clone(), numeric=history.numeric.clone())
    moved.item[row, t:], moved.time[row, t:], moved.numeric[row, t:] = 7, 10**9, -3.0
    later = tower(moved, static, at="all")
    torch.testing.assert_close(later[row, :t], y[row, :t], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(later[row, t:], y[row, t:])
    cut = history.rows(slice(row, row + 1))._replace(lengths=torch.tensor([t]))
    torch.testing.assert_close(
        tower(cut, static.rows(slice(row, row + 1)), at="all")[0, :t], y[row, :t], rtol=1e-10, atol=1e-10
    )


def test_a_content_tower_shares_its_items() -> None:
    content = FeatureTokenizer(FeatureSpec(2, (6, 50)), 32)
    spec = EncoderSpec(mixer=MambaSpec(), d_model=32, n_layers=1)
    tower = HistoryEncoder(spec, EventSpec(50), items=content, item_column=1)
    none = torch.empty(1, 1, 0)
    for item in (0, 49):
        event = HistoryBatch(torch.tensor([[item]]), none, none.long(), torch.zeros(1, 1).long(), torch.tensor([1]))
        torch.testing.assert_close(
            tower.tokenizer(event)[0][0, 0] - tower.tokenizer.numeric.bias, content.categorical_table[6 + item]
        )
    tower(event).sum().backward()
    assert content.categorical_table.grad[55].abs().sum() > 0
    with pytest.raises(ValueError, match="has not the 50 items"):
        HistoryEncoder(spec, EventSpec(50), items=content, item_column=0)


def test_what_cannot_be_is_told_in_one_line() -> None:
    history, static = draw([3, 2], junk=False)
    tower = tower_of(MambaSpec())
    for broken, told in (
        ({"item": history.item + 50}, "item 5\\d is outside of 0 to 49"),
        ({"categorical": history.categorical + 5}, "event \\d, categorical column [01]: category"),
    ):
        with pytest.raises(IndexError, match=told):
            tower(history._replace(**broken), static)
    with pytest.raises(ValueError, match="events of 0 numeric and 2 categorical"):
        tower(history._replace(numeric=history.numeric[..., :0]), static)
    with pytest.raises(ValueError, match="static columns are given where"):
        tower(history)
    with pytest.raises(ValueError, match="a history of 41 events for a tower of at most 40"):
        tower(*draw([41]))
    with pytest.raises(ValueError, match="attention looks ahead"):
        tower_of(AttentionSpec())(history, static, at="all")
    with pytest.raises(ValueError, match="give max_events"):
        HistoryEncoder(EncoderSpec(mixer=find("linformer")()), EVENTS)
    with pytest.raises(ValueError, match="stands last"):
        HistoryEncoder(EncoderSpec(mixer=AttentionSpec(), cls_position="first"), EVENTS)
    with pytest.raises(ValueError, match="must be positive"):
        EventSpec(0)


def test_groups_hold_each_row_once_and_few_pads() -> None:
    lengths = torch.randint(1, 500, (64,), generator=torch.Generator().manual_seed(0))
    found = groups(lengths, 256)
    assert sorted(torch.cat(found).tolist()) == list(range(64))
    pads = [int((lengths[i].max() - lengths[i]).sum()) for i in found]
    spared = [int((lengths[i].max() - lengths[i][k]) * (len(i) - k)) for i in found for k in range(len(i))]
    assert max(spared) < 256
    assert sum(pads) < 0.15 * int(lengths.sum())
    assert [i.tolist() for i in groups(torch.tensor([5, 5, 5]), 256)] == [[0, 1, 2]]


def test_embeddings_of_all_users_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = tower_of(AttentionSpec(causal=True))
    history, static = draw()
    monkeypatch.setattr("ftmamba.embedding.BLOCK_EVENTS", 40)
    sizes: list[int] = []
    tower.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].n_rows))
    found = embed(tower.train(), history, static)
    assert tower.training
    assert sizes == [1, 2, 3]  # of 20; 17 and 9; 2, 1 and 0 events
    torch.testing.assert_close(found, tower.eval()(history, static), rtol=1e-10, atol=1e-10)
    nobody = HistoryBatch._make(each[:0] for each in history)
    assert embed(tower, nobody, static.rows(slice(0))).shape == (0, 32)


def test_a_tower_compiles_without_breaks() -> None:
    history, static = draw()
    tower = tower_of(MambaSpec(backend="reference"))
    compiled = torch.compile(tower, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(history, static), tower(history, static), rtol=1e-9, atol=1e-9)
