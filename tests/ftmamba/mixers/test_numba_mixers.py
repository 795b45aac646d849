"""CPU kernels of recurrent mixers: outputs and gradients against float64, ragged rows, threads, torch's rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ftmamba.mixers import build_mixer, find
from ftmamba.spec import MixerSpec

pytest.importorskip("numba")

import ftmamba.mixers.gated_deltanet.numba as gated_deltanet
import ftmamba.mixers.linear_attention.numba as linear_attention
import ftmamba.mixers.mamba2.numba as mamba2

D = 32
OPS = {"mamba2": mamba2, "gated_deltanet": gated_deltanet, "linear_attention": linear_attention}
SPECS = [
    find("mamba2")(d_head=16, d_state=8, chunk=16),
    find("mamba2")(d_head=8, d_state=24, chunk=64),
    find("mamba2")(d_head=64, d_state=17, expand=4, chunk=33),
    find("gated_deltanet")(n_heads=2, chunk=16),
    find("gated_deltanet")(n_heads=4, chunk=40),
    find("linear_attention")(n_heads=1, causal=True),
    find("linear_attention")(n_heads=4, causal=True),
]


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def build(spec: MixerSpec, backend: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    mixer = build_mixer(dataclasses.replace(spec, backend=backend), D).double()
    for each in mixer.parameters():
        nn.init.normal_(each, std=0.3)
    return mixer.to(dtype)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def results(mixer: nn.Module, x: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
    """The output, the gradient of x and those of all weights."""
    x = x.to(next(mixer.parameters()).dtype, copy=True).requires_grad_()
    y = mixer(x, lengths=lengths)
    loss = (y * torch.linspace(-1, 2, D, dtype=y.dtype)).square().sum()
    return [y.detach(), *torch.autograd.grad(loss, (x, *mixer.parameters()))]


def error(value: Tensor, truth: Tensor) -> float:
    return float((value.double() - truth).abs().max() / truth.abs().max().clamp(min=1.0))


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_outputs_and_gradients(spec: MixerSpec) -> None:
    """No further from the truth than three times plain torch in float32, or than decays that are off by 5e-7 lead."""
    for n_tokens in (1, 2, 3, 15, 64, 65, 150):
        x = draw(3, n_tokens, D)
        truth = results(build(spec, "reference", torch.float64), x)
        plain = results(build(spec, "chunked", torch.float32), x)
        ours = results(build(spec, "numba", torch.float32), x)
        for found, other, true in zip(ours, plain, truth, strict=True):
            assert error(found, true) <= max(3 * error(other, true), 1e-5)


@pytest.mark.parametrize("n_threads", [1, 3, 16])
@pytest.mark.parametrize("spec", SPECS[::2], ids=repr)
def test_threads_share_a_row_s_chunks(spec: MixerSpec, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, mixer = draw(2, 300, D), build(spec, "numba", torch.float32)
    truth = results(mixer, x)
    monkeypatch.setattr(OPS[type(spec).name], "get_threads", lambda: n_threads)
    for found, expected in zip(results(mixer, x), truth, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("ragged", [False, True])
def test_mamba2_s_operators_keep_torch_s_rules(ragged: bool) -> None:
    n_heads, d_head, d_state = 2, 8, 3
    shapes = [(2, 9, 22), (2, 9, n_heads), (2, 9, n_heads), (2, 9, n_heads * d_head), (n_heads,), (n_heads * d_head,)]
    tensors = [draw(*shape).float().requires_grad_() for shape in shapes]
    assert shapes[0][2] == n_heads * d_head + 2 * d_state
    lengths = torch.tensor([9, 4]) if ragged else None
    for keep in (False, True):
        torch.library.opcheck(mamba2._mix, (*tensors, lengths, 16, keep))
    with torch.no_grad():
        out, y, kept = mamba2._mix(*tensors, lengths, 16, True)
        torch.library.opcheck(mamba2._mix_backward, (torch.ones_like(out), y, kept, *tensors, lengths, 16))


@pytest.mark.parametrize("ragged", [False, True])
def test_gated_deltanet_s_operators_keep_torch_s_rules(ragged: bool) -> None:
    tensors = [draw(*shape).float().requires_grad_() for shape in ((2, 9, 24), (2, 9, 2), (2, 9, 2))]
    lengths = torch.tensor([9, 4]) if ragged else None
    for keep in (False, True):
        torch.library.opcheck(gated_deltanet._rule, (*tensors, lengths, 16, keep))
    with torch.no_grad():
        out, kept = gated_deltanet._rule(*tensors, lengths, 16, True)
        torch.library.opcheck(gated_deltanet._rule_backward, (torch.ones_like(out), kept, *tensors, lengths, 16))


@pytest.mark.parametrize("ragged", [False, True])
def test_linear_attention_s_operators_keep_torch_s_rules(ragged: bool) -> None:
    tensors = [draw(2, 9, 2, 8).float().requires_grad_() for _ in range(3)]
    lengths = torch.tensor([9, 4]) if ragged else None
    for keep in (False, True):
        torch.library.opcheck(linear_attention._mix, (*tensors, lengths, keep))
    with torch.no_grad():
        out, sums, kept = linear_attention._mix(*tensors, lengths, True)
        torch.library.opcheck(
            linear_attention._mix_backward, (torch.ones_like(out), out, sums, kept, *tensors, lengths)
        )
