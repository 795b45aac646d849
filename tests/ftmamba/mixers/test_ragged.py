"""Ragged rows are their rows one by one, whatever stands behind them: outputs, gradients, every mixer."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from test_contract import SPECS, D, build
from torch import Tensor, nn

from ftmamba.blocks import build_block
from ftmamba.mixers import NAMES, find
from ftmamba.ops.attention import attention
from ftmamba.spec import MixerSpec

N_TOKENS = 40
LENGTHS = torch.tensor([1, 40, 2, 37, 32])
PADS = (float("nan"), 0.0, float("inf"), 1e30, float("nan"))  # a row
CASES = [
    (dataclasses.replace(spec, backend=name), torch.float64 if backend.float64 else torch.float32)
    for spec in SPECS
    for name, backend in spec.backends.items()
    if backend.refusal("cpu") is None
]
PEERS = [find(name)() for name in NAMES if find(name).is_peer()]
CASES += [
    (spec, torch.float64 if spec.whole_block else torch.float32)  # the others have float32 inside
    for spec in PEERS
    if next(iter(spec.backends.values())).refusal("cpu") is None
]


def rows(width: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(int(n), width, generator=generator, dtype=torch.float64).to(dtype) for n in LENGTHS]


def padded(parts: list[Tensor]) -> Tensor:
    return torch.stack(
        [
            nn.functional.pad(part, (0, 0, 0, N_TOKENS - len(part)), value=pad)
            for part, pad in zip(parts, PADS, strict=True)
        ]
    )


def assert_near(found: Tensor, expected: Tensor) -> None:
    share = 1e-10 if expected.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found, expected, rtol=share, atol=share * max(1.0, float(expected.detach().abs().max())))


def alone(mixer: nn.Module, row: Tensor, **read: Any) -> Tensor:
    """One row by itself; sums of tokens that Linformer has learned are cut to it."""
    if not hasattr(mixer, "sum_keys"):
        return mixer(row.unsqueeze(0), **read)
    whole = {name: getattr(mixer, name) for name in ("sum_keys", "sum_values")}
    cut = {name: each[: len(row)] for name, each in whole.items()}
    return torch.func.functional_call(mixer, cut, (row.unsqueeze(0),), read)


def gradients_of(mixer: nn.Module, loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    wanted = [*inputs, *mixer.parameters()]
    if not loss.requires_grad:
        return [torch.zeros_like(each) for each in wanted]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True)]


@pytest.mark.parametrize("read", [None, -1])
@pytest.mark.parametrize(("spec", "dtype"), CASES, ids=repr)
def test_ragged_rows_are_rows_one_by_one(spec: MixerSpec, dtype: torch.dtype, read: int | None) -> None:
    mixer = build(spec, N_TOKENS).to(dtype).eval()
    slope = torch.linspace(-1, 2, D, dtype=dtype)
    parts = [row.requires_grad_() for row in rows(D, dtype)]
    expected = [alone(mixer, row, read=read)[0] for row in parts]
    truth = gradients_of(mixer, sum((y * slope).square().sum() for y in expected), parts)
    x = padded([row.detach() for row in parts]).requires_grad_()
    y = mixer(x, read, lengths=LENGTHS)
    assert y.shape == ((len(parts), 1, D) if read else x.shape)
    found = gradients_of(mixer, (y * slope).square().sum(), [x])
    for i, n in enumerate(LENGTHS.tolist()):
        assert_near(y[i, : len(expected[i])], expected[i])
        assert_near(found[0][i, :n], truth[i])
        assert (found[0][i, n:] == 0).all()
        assert read or (y[i, n:] == 0).all()
    for a, b in zip(found[1:], truth[len(parts) :], strict=True):
        assert_near(a, b)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_only_the_last_token_of_ragged_rows_can_be_read_alone(spec: MixerSpec) -> None:
    if type(spec).name in ("mean", "mlp"):  # which give every token the same
        return
    with pytest.raises(ValueError, match="only at their last token, -1, not at 0"):
        build(spec, 9)(torch.randn(2, 9, D, dtype=torch.float64), 0, lengths=torch.tensor([9, 4]))


@pytest.mark.parametrize("name", ["mamba", "attention"])
def test_the_same_kernel_gives_the_same_bits(name: str) -> None:
    """A row's length and its neighbours leave each sum in its order."""
    pytest.importorskip("numba")
    mixer = build(find(name)(backend="numba"), N_TOKENS).float()
    core = functools.partial(attention, backend="numba") if name == "attention" else mixer
    parts = rows(D, torch.float32)
    x = padded(parts)
    inputs = [x.unflatten(-1, (2, -1))] * 3 if name == "attention" else [x]
    with torch.no_grad():
        y = core(*inputs, lengths=LENGTHS)
        for i, n in enumerate(LENGTHS.tolist()):
            assert torch.equal(y[i, :n], core(*(each[i : i + 1, :n] for each in inputs))[0])


@pytest.mark.parametrize("spec", [*SPECS, *PEERS], ids=repr)
def test_a_block_of_ragged_rows_is_that_of_rows_one_by_one(spec: MixerSpec) -> None:
    if spec.sized or next(iter(spec.backends.values())).refusal("cpu") is not None:
        return
    block = build_block(spec, D).double().eval()
    x = padded(rows(D, torch.float64)).nan_to_num(0, 0, 0)
    with torch.no_grad():
        for read in (None, -1):
            y = block(x, read, lengths=LENGTHS)
            for i, n in enumerate(LENGTHS.tolist()):
                expected = block(x[i : i + 1, :n], read)[0]
                torch.testing.assert_close(y[i, : len(expected)], expected, rtol=1e-10, atol=1e-10)
