"""The analytic cost against counted parameters, torch's own FLOP counter and hand-computed figures."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ftmamba import (
    AttentionSpec,
    EncoderSpec,
    EventSpec,
    FeatureSpec,
    FTEncoder,
    HistoryBatch,
    HistoryEncoder,
    MambaSpec,
)
from ftmamba.cost import block_cost, blocks_params, encoder_cost, encoder_params, history_cost
from ftmamba.features import random_batch
from ftmamba.mixers.mamba import SCAN_FLOPS

FEATURES = FeatureSpec(n_numeric=12, cardinalities=(4, 7, 2))
MIXERS = [
    MambaSpec(backend="reference"),
    MambaSpec(d_state=8, d_conv=16, expand=3, backend="reference"),
    AttentionSpec(backend="reference"),
    AttentionSpec(ffn_activation="relu", n_heads=4, first_norm=True, backend="reference"),
    AttentionSpec(post_norm=True, first_norm=True, backend="reference"),
]


@pytest.mark.parametrize("last_layer", ["readout", "full"])
@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_params_are_the_module_s(mixer: MambaSpec | AttentionSpec, last_layer: str) -> None:
    spec = EncoderSpec(mixer=mixer, d_model=48, n_layers=3, d_out=20, last_layer=last_layer)
    assert encoder_params(spec, FEATURES) == sum(p.numel() for p in FTEncoder(spec, FEATURES).parameters())


@pytest.mark.parametrize("last_layer", ["readout", "full"])
@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_matrix_flops_are_torch_s(mixer: MambaSpec | AttentionSpec, last_layer: str) -> None:
    """All but what torch does not count: the tokenizer's products and the scan's element-wise part."""
    n_rows, d_model, n_layers = 5, 48, 3
    spec = EncoderSpec(mixer=mixer, d_model=d_model, n_layers=n_layers, last_layer=last_layer)
    tower = FTEncoder(spec, FEATURES)
    batch = random_batch(FEATURES, n_rows, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(batch)
    uncounted = n_rows * (2 * FEATURES.n_numeric + len(FEATURES.cardinalities)) * d_model
    counted = counter.get_total_flops()
    if isinstance(mixer, MambaSpec):
        # A part of the reference scan may reach torch's counter as a batched product (C h): leave the scan out of both.
        inner, tokens = mixer.d_inner(d_model), FEATURES.n_tokens
        reads = tokens * n_layers if last_layer == "full" else tokens * (n_layers - 1) + 1
        counted -= sum(f for op, f in counter.get_flop_counts()["Global"].items() if "bmm" in str(op))
        uncounted += n_rows * inner * mixer.d_state * ((SCAN_FLOPS - 2) * tokens * n_layers + 2 * reads)
    predicted = encoder_cost(spec, FEATURES, n_rows, "forward").flops - uncounted
    assert predicted == counted


def test_smallest_attention_tower_by_hand() -> None:
    spec = EncoderSpec(mixer=AttentionSpec(n_heads=1, d_ffn=3), d_model=2, n_layers=1)
    cost = encoder_cost(spec, FeatureSpec(1), 1, "forward", dtype_bytes=4)
    # cls 2, numeric 2*2; q 6, kv 12, out 6, norm 4, ffn 6*3 + 2*4; head norm 4, output 6
    assert cost.params == 2 + 4 + 6 + 12 + 6 + 4 + 18 + 8 + 4 + 6
    # column 4; kv on two tokens 2*16; q and out on one 16; two keys 16; ffn 36; output 8
    assert cost.flops == 4 + 32 + 16 + 16 + 36 + 8
    assert cost.min_bytes == 4 * cost.params + 4 + 4 * 4 * 3 + 2 * 4
    assert cost.exps == 2  # the one token that is read attends to two


def test_cost_grows_as_the_mixers_do() -> None:
    def growth(mixer: MambaSpec | AttentionSpec, field: str) -> float:
        spec = EncoderSpec(mixer=mixer, n_layers=2)
        short, long = (getattr(encoder_cost(spec, FeatureSpec(n), 1, "train_step"), field) for n in (50_000, 100_000))
        return long / short

    assert growth(MambaSpec(), "flops") == pytest.approx(2, rel=0.01)
    assert growth(AttentionSpec(), "flops") == pytest.approx(4, rel=0.05)
    assert growth(AttentionSpec(backend="sdpa"), "peak_bytes") == pytest.approx(2, rel=0.01)
    assert growth(AttentionSpec(backend="reference"), "peak_bytes") == pytest.approx(4, rel=0.05)


def test_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="rank_quality"):
        encoder_cost(EncoderSpec(mixer=MambaSpec()), FEATURES, 1, "rank_quality")


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_block_cost_is_a_tower_s_share(mixer: MambaSpec | AttentionSpec) -> None:
    """One more full block costs a tower exactly that block."""
    two, three = (EncoderSpec(mixer=mixer, d_model=48, n_layers=n, last_layer="full") for n in (2, 3))
    block = block_cost(two, FEATURES.n_tokens, 5, training=False)
    less, more = (encoder_cost(spec, FEATURES, 5, "forward") for spec in (two, three))
    assert block.flops == more.flops - less.flops
    assert block.min_bytes == more.min_bytes - less.min_bytes
    assert encoder_params(three, FEATURES) - encoder_params(two, FEATURES) == blocks_params(three) - blocks_params(two)


@pytest.mark.parametrize("static", [None, FEATURES])
@pytest.mark.parametrize("at", ["last", "all"])
def test_a_history_s_cost_is_that_of_its_tower(at: str, static: FeatureSpec | None) -> None:
    spec = EncoderSpec(mixer=AttentionSpec(causal=True, backend="reference"), d_model=48, n_layers=3)
    events = EventSpec(70, 2, (4, 3))
    tower = HistoryEncoder(spec, events, static, max_events=60, positions=True)
    n_rows, n = 5, 60
    cost = history_cost(spec, events, n, n_rows, "forward", static, n_positions=60, at=at)
    assert cost is not None
    assert cost.params == sum(p.numel() for p in tower.parameters())
    batch = HistoryBatch(
        torch.zeros(n_rows, n).long(),
        torch.zeros(n_rows, n, 2),
        torch.zeros(n_rows, n, 2).long(),
        torch.zeros(n_rows, n).long(),
        torch.full((n_rows,), n),
    )
    rows = None if static is None else random_batch(static, n_rows, torch.Generator())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(batch, rows, at=at)
    n_tokens = n + (static.n_columns if static else 0) + (at == "last")
    hidden_pairs = n_rows * 2 * 48 * n_tokens * (n_tokens - 1)  # of each block that reads all: torch computes them too
    counted = counter.get_total_flops() - hidden_pairs * (3 if at == "all" else 2)
    assert 0.95 * counted <= cost.flops <= 1.1 * counted
