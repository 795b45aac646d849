"""The attention mixer's masks: against a mask written out, at every token that can be read, and in its cost."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ftmamba import AttentionSpec, EncoderSpec
from ftmamba.mixers import build_mixer, parse
from ftmamba.mixers.attention.layer import AttentionMixer

MASKS = list(itertools.product([False, True], [None, 0, 3, 50]))


def mixer_of(causal: bool, window: int | None, backend: str = "auto") -> AttentionMixer:
    torch.manual_seed(0)
    return AttentionMixer(AttentionSpec(n_heads=2, causal=causal, window=window, backend=backend), 16)


def seen(i: int, j: int, causal: bool, window: int | None) -> bool:
    return (j <= i or not causal) and (window is None or abs(i - j) <= window)


def by_hand(mixer: AttentionMixer, x: Tensor) -> Tensor:
    n_tokens, spec = x.shape[1], mixer.spec
    hidden = torch.tensor(
        [[not seen(i, j, spec.causal, spec.window) for j in range(n_tokens)] for i in range(n_tokens)]
    )
    heads = []
    for q, k, v in zip(
        *(part.chunk(2, dim=-1) for part in (mixer.q_proj(x), *mixer.kv_proj(x).chunk(2, dim=-1))), strict=True
    ):
        logits = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(hidden, -math.inf)
        heads.append(logits.softmax(-1) @ v)
    return mixer.out_proj(torch.cat(heads, dim=-1))


@pytest.mark.parametrize(("causal", "window"), MASKS)
@pytest.mark.parametrize("backend", ["auto", "numba", "sdpa", "reference"])
def test_masks_and_every_token_that_is_read(backend: str, causal: bool, window: int | None) -> None:
    mixer, x = mixer_of(causal, window, backend), torch.randn(2, 21, 16)
    with torch.no_grad():
        truth = by_hand(mixer.double(), x.double())
        mixer.float()
        torch.testing.assert_close(mixer(x).double(), truth, rtol=1e-4, atol=1e-5)
        for read in (0, 7, 20, -1):
            torch.testing.assert_close(mixer(x, read).double(), truth[:, [read]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("causal", "window"), MASKS)
@pytest.mark.parametrize("n_read", [1, 21])
def test_cost_counts_what_the_masks_leave(causal: bool, window: int | None, n_read: int) -> None:
    mixer = AttentionSpec(n_heads=2, causal=causal, window=window)
    rows = range(21) if n_read == 21 else [20]
    pairs = [(i, j) for i in rows for j in range(21) if seen(i, j, causal, window)]
    parts = mixer.parts(16, 21, n_read, first=False)
    assert parts["attention"].flops == 4 * 16 * len(pairs)
    assert parts["attention"].exps == 2 * len(pairs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer = mixer_of(causal, window)
        layer(torch.randn(1, 21, 16), None if n_read == 21 else -1)
    linears = counter.get_flop_counts()["Global"][torch.ops.aten.addmm]
    assert sum(parts[name].flops for name in ("q_proj", "kv_proj", "out_proj")) == linears


def test_a_layer_takes_torch_s_kernel_where_ours_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    import ftmamba.ops.attention.numba as ours
    import ftmamba.ops.attention.sdpa as theirs

    calls: list[str] = []
    for name, module in (("numba", ours), ("sdpa", theirs)):
        kernel = module.attention
        monkeypatch.setattr(module, "attention", lambda *x, k=kernel, n=name, **m: calls.append(n) or k(*x, **m))
    for mixer, n_tokens in ((mixer_of(False, None), 5), (mixer_of(False, None), 200), (mixer_of(True, 3), 5)):
        mixer(torch.randn(1, n_tokens, 16))
    mixer_of(False, None, "numba")(torch.randn(1, 5, 16))
    assert calls == ["sdpa", "numba", "numba", "sdpa"]


@pytest.mark.parametrize("mask", ["causal=true", "window=3"])
def test_a_peer_without_masks_refuses_them(mask: str) -> None:
    with pytest.raises(ValueError, match=r"torch_transformer has no parameter .(causal|window)"):
        parse(f"torch_transformer:{mask}")


def test_a_causal_tower_is_not_read_at_its_first_token() -> None:
    assert parse("attention:causal=true:window=7")[1] == {"causal": True, "window": 7}
    with pytest.raises(ValueError, match="a \\[CLS\\] that stands first sees no feature"):
        EncoderSpec(mixer=AttentionSpec(causal=True), cls_position="first")
    assert isinstance(build_mixer(AttentionSpec(causal=True), 16), AttentionMixer)
