"""What every mixer of ours keeps to, whatever it computes; new folders are met here by themselves."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

from ftmamba import EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder
from ftmamba.cost import encoder_cost, encoder_params
from ftmamba.features import random_batch
from ftmamba.mixers import NAMES, MixerError, build_mixer, find, parse
from ftmamba.spec import MixerSpec

D = 32
SMALL = {
    "longformer": {"window": 4},
    "mamba2": {"d_head": 16, "d_state": 8, "chunk": 4},
    "gated_deltanet": {"chunk": 4},
    "hybrid": {"layers": "mamba(d_state=4)+attention(n_heads=2)+mean"},
}
OURS = [name for name in NAMES if not find(name).is_peer()]
SPECS = [find(name)(**SMALL.get(name, {})) for name in OURS]
SPECS += [find(name)(causal=not find(name).causal) for name in OURS if "causal" in find(name).parameters()]
LENGTHS = (1, 2, 3, 7, 8, 9, 70)


def build(spec: MixerSpec, n_tokens: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    mixer = build_mixer(spec, D, n_tokens).double()
    for each in mixer.parameters():
        nn.init.normal_(each, std=0.3)
    return mixer


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)


def gradients(mixer: nn.Module, y: Tensor, x: Tensor) -> list[Tensor]:
    """Of x and of all weights; zero where there is none."""
    mixer.zero_grad()
    x.grad = None
    if y.requires_grad:
        (y * torch.linspace(-1, 2, y.shape[-1])).square().sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in (x, *mixer.parameters())]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_every_backend_equals_the_reference(spec: MixerSpec) -> None:
    for n_tokens in LENGTHS:
        plain = build(dataclasses.replace(spec, backend="reference"), n_tokens)
        x = draw(2, n_tokens, D)
        truth = plain(x)
        expected = [truth, *gradients(plain, truth, x)]
        for name, backend in spec.backends.items():
            if name != "reference" and backend.float64 and backend.refusal("cpu") is None:
                mixer = build(dataclasses.replace(spec, backend=name), n_tokens)
                y = mixer(x)
                assert_same([y, *gradients(mixer, y, x)], expected)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_backends_that_compute_in_float32_are_near_the_reference(spec: MixerSpec) -> None:
    for name, backend in spec.backends.items():
        if backend.float64 or backend.refusal("cpu") is not None:
            continue
        for n_tokens in (*LENGTHS, 150):
            plain = build(dataclasses.replace(spec, backend="reference"), n_tokens)
            mixer, x = build(dataclasses.replace(spec, backend=name), n_tokens).float(), draw(2, n_tokens, D)
            truth, y = plain(x), mixer(single := x.detach().float().requires_grad_())
            expected, found = [truth, *gradients(plain, truth, x)], [y, *gradients(mixer, y, single)]
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(
                    a.double(), b, rtol=1e-4, atol=1e-4 * max(1.0, float(b.detach().abs().max()))
                )


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_token_that_is_read_alone_is_that_of_the_row(spec: MixerSpec) -> None:
    for n_tokens in LENGTHS:
        mixer, x = build(spec, n_tokens), draw(2, n_tokens, D)
        for read in {0, n_tokens // 2, n_tokens - 1, -1}:
            try:
                alone = mixer(x, read)
            except ValueError as refusal:
                assert "only at the last token" in str(refusal)  # noqa: PT017
                assert read % n_tokens != n_tokens - 1
                continue
            assert alone.shape == (2, 1, D)
            grads = gradients(mixer, alone, x)
            full = mixer(x)[:, read].unsqueeze(1)
            assert_same([alone, *grads], [full, *gradients(mixer, full, x)])


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_rows_do_not_see_each_other_and_causal_tokens_not_ahead(spec: MixerSpec) -> None:
    for n_tokens in LENGTHS:
        mixer, x = build(spec, n_tokens).eval(), draw(3, n_tokens, D)
        torch.testing.assert_close(mixer(x[1:2] * 1), mixer(torch.stack([x[0] * 9, x[1], x[2]]))[1:2])
        if spec.causal and n_tokens > 1 and type(spec).name != "hybrid" and not spec.sized:
            x_later = torch.cat([x[:, :-1], 9 * x[:, -1:]], dim=1)
            torch.testing.assert_close(mixer(x)[:, :-1], mixer(x_later)[:, :-1])
            torch.testing.assert_close(mixer(x)[:, :-1], mixer(x[:, :-1]))
    assert mixer(x[:0]).shape == (0, n_tokens, D)
    assert mixer(x[:0], -1).shape == (0, 1, D)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_the_readout_sees_every_token(spec: MixerSpec) -> None:
    features = FeatureSpec(9, (4, 7))
    tower = FTEncoder(EncoderSpec(mixer=spec, d_model=D, n_layers=3), features)
    tower(random_batch(features, 5, torch.Generator().manual_seed(0))).square().sum().backward()
    assert tower.tokenizer.numeric_bias.grad.abs().sum(1).min() > 0
    assert tower.tokenizer.categorical_bias.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_stated_params_and_products_are_those_of_the_tower(spec: MixerSpec) -> None:
    """Torch counts products alone, so Mamba's scan is left to test_cost; a cost's floor is not a layer's every op."""
    if "chunked" in spec.backends:  # of kernels torch counts nothing
        spec = dataclasses.replace(spec, backend="chunked")
    features = FeatureSpec(40, (4, 7))
    tower_spec = EncoderSpec(mixer=spec, d_model=D, n_layers=3)
    tower = FTEncoder(tower_spec, features).eval()
    assert encoder_params(tower_spec, features) == sum(p.numel() for p in tower.parameters())
    if "mamba(" in repr(spec) or isinstance(spec, find("mamba")):
        return
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(random_batch(features, 2, torch.Generator().manual_seed(0)))
    stated = encoder_cost(tower_spec, features, 2, "forward").flops
    assert 0.6 * stated <= counter.get_total_flops() <= 1.6 * stated


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_towers_compile_without_breaks_and_are_exported_for_any_batch(spec: MixerSpec) -> None:
    features = FeatureSpec(9, (4, 7))
    torch.manual_seed(0)
    tower = FTEncoder(EncoderSpec(mixer=spec, d_model=D, n_layers=3), features)
    batch = random_batch(features, 5, torch.Generator().manual_seed(0))
    expected = tower(batch)
    torch._dynamo.reset()
    compiled = torch.compile(tower, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch), expected, rtol=1e-4, atol=1e-5)
    rows = {0: Dim("batch", max=4096)}
    with torch.no_grad():
        exported = torch.export.export(tower, (batch,), dynamic_shapes=(FeatureBatch(rows, rows),)).module()
        for n_rows in (1, 3):
            torch.testing.assert_close(exported(batch.rows(slice(n_rows))), expected[:n_rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hybrid:layers=mamba+lstm", "unknown mixer 'lstm'"),
        ("hybrid:layers=mamba(d_state=0)", "d_state takes whole numbers from 1 to 1,024, got 0"),
        ("hybrid:layers=hybrid", "a layer of a hybrid is one of our mixers, got 'hybrid'"),
        ("hybrid:layers=mamba+hf_mamba", "a layer of a hybrid is one of our mixers, got 'hf_mamba'"),
        ("hybrid:layers=", "unknown mixer ''"),
        ("performer:n_features=0", "n_features takes whole numbers or none from 1 to 65,536"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(MixerError) as error:
        parse(text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
