"""SASRec (Kang and McAuley, arXiv 1808.09781) is an attention tower: RecBole's, with the same weights."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftmamba import AttentionSpec, EncoderSpec, EventSpec, HistoryBatch, HistoryEncoder

D, N_ITEMS, N_EVENTS, N_LAYERS, HIDDEN = 16, 30, 12, 2, 24


def their_weights(their: Any) -> dict[str, Tensor]:
    """By our names; of the tower's own time gaps and head there is nothing."""
    found = {
        "tokenizer.item_table": their.item_embedding.weight,
        "tokenizer.position_table": their.position_embedding.weight,
        "tokenizer.numeric.weight": torch.zeros(D, 1),
        "tokenizer.numeric.bias": torch.zeros(D),
        "blocks.0.mixer_norm": their.LayerNorm,
    }
    for i, layer in enumerate(their.trm_encoder.layer):
        attention, ffn = layer.multi_head_attention, layer.feed_forward
        found |= {
            f"blocks.{i}.mixer.q_proj": attention.query,
            f"blocks.{i}.mixer.kv_proj": SimpleNamespace(
                weight=torch.cat([attention.key.weight, attention.value.weight]),
                bias=torch.cat([attention.key.bias, attention.value.bias]),
            ),
            f"blocks.{i}.mixer.out_proj": attention.dense,
            f"blocks.{i}.sum_norm": attention.LayerNorm,
            f"blocks.{i}.ffn.expand": ffn.dense_1,
            f"blocks.{i}.ffn.contract": ffn.dense_2,
            f"blocks.{i}.ffn_norm": ffn.LayerNorm,
        }
    return {
        f"{name}{suffix}": getattr(each, suffix[1:]) if suffix else each
        for name, each in found.items()
        for suffix in ([""] if isinstance(each, Tensor) else [".weight", ".bias"])
    }


def test_recbole_s_sasrec() -> None:
    module = pytest.importorskip("recbole.model.sequential_recommender.sasrec")
    config: dict[str, Any] = defaultdict(lambda: "x", n_layers=N_LAYERS, n_heads=2, hidden_size=D, inner_size=HIDDEN)
    config |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "hidden_act": "relu", "layer_norm_eps": 1e-5}
    config |= {"initializer_range": 0.3, "loss_type": "CE", "MAX_ITEM_LIST_LENGTH": N_EVENTS}
    torch.manual_seed(0)
    their = module.SASRec(config, SimpleNamespace(num=lambda _: N_ITEMS)).double()
    for each in their.parameters():
        nn.init.normal_(each, std=0.5)
    mixer = AttentionSpec(
        n_heads=2,
        causal=True,
        ffn_activation="relu",
        d_ffn=HIDDEN,
        first_norm=True,
        post_norm=True,
        backend="reference",
    )
    tower = HistoryEncoder(
        EncoderSpec(mixer=mixer, d_model=D, n_layers=N_LAYERS), EventSpec(N_ITEMS), max_events=N_EVENTS, positions=True
    ).double()
    tower.head = nn.Identity()
    missing, unexpected = tower.load_state_dict(
        {name: each.detach().double() for name, each in their_weights(their).items()}, strict=False
    )
    assert (missing, unexpected) == (["cls", "tokenizer.categorical_table"], [])  # of no category

    lengths = torch.tensor([1, N_EVENTS, 2, 7])
    item = torch.randint(1, N_ITEMS, (4, N_EVENTS)) * (torch.arange(N_EVENTS) < lengths[:, None])  # 0 is their pad
    none = torch.empty(4, N_EVENTS, 0)
    history = HistoryBatch(item, none, none.long(), torch.zeros_like(item), lengths)
    y, truth = tower(history, at="all")[torch.arange(4), lengths - 1], their(item, lengths)
    torch.testing.assert_close(y, truth, rtol=1e-12, atol=1e-12)
    slope = torch.linspace(-1, 2, D, dtype=torch.float64)
    found = torch.autograd.grad((y * slope).sum(), [tower.tokenizer.item_table, tower.blocks[0].mixer.q_proj.weight])
    wanted = [their.item_embedding.weight, their.trm_encoder.layer[0].multi_head_attention.query.weight]
    for a, b in zip(found, torch.autograd.grad((truth * slope).sum(), wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
