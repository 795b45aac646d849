"""Peers behind our interface compute what we compute, and every backend of attention what the reference does."""

from __future__ import annotations

import itertools

import pytest
import torch

from ftmamba import AttentionSpec, EncoderSpec, FeatureSpec, FTEncoder, MambaSpec
from ftmamba.backends import BackendError
from ftmamba.cost import encoder_params
from ftmamba.features import random_batch
from ftmamba.mixers import NAMES, build_mixer, find
from ftmamba.ops import attention, selective_scan

PEERS = [(mixer, backend) for mixer in NAMES if find(mixer).is_peer() for backend in find(mixer).backends]


def skip_unless_usable(reason: str | None) -> None:
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(("mixer", "backend"), [p for p in PEERS if find(p[0]).peer_of])
def test_peer_mamba_equals_ours(mixer: str, backend: str) -> None:
    skip_unless_usable(find(mixer).backends[backend].refusal("cpu"))
    torch.manual_seed(0)
    options = {"d_state": 8, "d_conv": 3, "expand": 3}
    ours = build_mixer(MambaSpec(backend="reference", **options), 16)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    peer = build_mixer(find(mixer)(backend=backend, **options), 16)
    peer.load_state_dict(ours.state_dict())
    x = torch.randn(2, 13, 16)
    torch.testing.assert_close(peer(x), ours(x), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(peer(x, -1), ours(x, -1), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("mixer", "backend"), PEERS)
def test_peer_towers_train_and_have_the_stated_params(mixer: str, backend: str) -> None:
    skip_unless_usable(find(mixer).backends[backend].refusal("cpu"))
    torch.manual_seed(0)
    features = FeatureSpec(4, (3,))
    spec = EncoderSpec(mixer=find(mixer)(backend=backend), d_model=32, n_layers=2)
    tower = FTEncoder(spec, features)
    assert sum(p.numel() for p in tower.parameters()) == encoder_params(spec, features)
    tower(random_batch(features, 3, torch.Generator().manual_seed(0))).square().sum().backward()
    assert tower.tokenizer.numeric_bias.grad.abs().sum(1).min() > 0


def test_torch_transformer_equals_our_block() -> None:
    from ftmamba.blocks import build_block
    from ftmamba.mixers.torch_transformer import TorchTransformerSpec

    torch.manual_seed(0)
    peer = build_block(TorchTransformerSpec(n_heads=4), 16).double()
    ours = build_block(AttentionSpec(n_heads=4, ffn_activation="relu", first_norm=True), 16, first=True).double()
    state = {
        "mixer_norm": peer.norm1,
        "mixer.out_proj": peer.self_attn.out_proj,
        "ffn_norm": peer.norm2,
        "ffn.expand": peer.linear1,
        "ffn.contract": peer.linear2,
    }
    weights = {f"{name}.{key}": value for name, m in state.items() for key, value in m.state_dict().items()}
    for kind in ("weight", "bias"):
        stacked = getattr(peer.self_attn, f"in_proj_{kind}")
        weights[f"mixer.q_proj.{kind}"], weights[f"mixer.kv_proj.{kind}"] = stacked[:16], stacked[16:]
    ours.load_state_dict(weights)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x), peer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", [name for name in attention.BACKENDS if name != "reference"])
@pytest.mark.parametrize(("n_queries", "n_tokens"), [(1, 1), (1, 37), (37, 37), (64, 64)])
def test_attention_backends(backend: str, n_queries: int, n_tokens: int) -> None:
    skip_unless_usable(attention.BACKENDS[backend].refusal("cpu"))
    torch.manual_seed(0)
    shapes = [(2, n_queries, 3, 8), (2, n_tokens, 3, 8), (2, n_tokens, 3, 8)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    upstream = torch.randn(shapes[0], dtype=torch.float64)
    truth = attention.attention(*inputs, backend="reference")
    truth_grads = torch.autograd.grad(truth, inputs, upstream)
    copies = [tensor.detach().float().requires_grad_() for tensor in inputs]
    out = attention.attention(*copies, backend=backend)
    grads = torch.autograd.grad(out, copies, upstream.float())
    for ours, expected in zip([out, *grads], [truth, *truth_grads], strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=2e-5)


def test_attention_by_hand() -> None:
    """Two keys with logits ln 1 and ln 3 give weights 1/4 and 3/4."""
    q = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    k = torch.tensor([1.0, 3.0], dtype=torch.float64).log().view(1, 2, 1, 1)
    v = torch.tensor([10.0, 20.0], dtype=torch.float64).view(1, 2, 1, 1)
    for backend in ("reference", "sdpa", "sdpa_math"):
        assert attention.attention(q, k, v, backend=backend).item() == pytest.approx(17.5, abs=1e-12)


@pytest.mark.parametrize(("readout", "with_state"), list(itertools.product(["all", "last"], [False, True])))
def test_mambapy_scan_equals_reference(readout: str, with_state: bool) -> None:
    skip_unless_usable(selective_scan.BACKENDS["mambapy"].refusal("cpu"))
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    reads = 11 if readout == "all" else 1
    x, dt, B, C, z = draw(2, 11, 6), draw(2, 11, 6), draw(2, 11, 4), draw(2, reads, 4), draw(2, reads, 6)
    state = draw(2, 6, 4) if with_state else None
    arguments = (x, dt, -draw(6, 4).exp(), B, C, draw(6), z, draw(6), state)
    ours = selective_scan.selective_scan(*arguments, readout=readout, backend="reference")
    theirs = selective_scan.selective_scan(*arguments, readout=readout, backend="mambapy")
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_refusals_say_why_and_what_to_do() -> None:
    backends = selective_scan.BACKENDS
    with pytest.raises(BackendError, match=r"unknown backend 'cuda'; choose from .*numba.*reference"):
        backends.resolve("cuda", "cpu")
    with pytest.raises(BackendError, match=r"numba.*runs on cpu, not on cuda"):
        backends.resolve("numba", "cuda")
    assert backends.resolve("auto", "cpu") == "numba"
    missing = find("mamba_ssm").backends
    if missing["fused"].refusal("cuda") is not None:
        with pytest.raises(BackendError, match=r"mamba_ssm, .* not installed; install with: python -m bench.peers"):
            missing.resolve("fused", "cuda")
