"""The Triton layer, interpreted where there is no GPU: output and gradients against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from test_mamba_layer import INPUTS, inputs
from test_triton_scan import DEVICE

from ftmamba import MambaSpec
from ftmamba.backends import BackendError
from ftmamba.mixers.mamba.layer import MambaMixer
from ftmamba.ops import mamba_layer
from ftmamba.ops.mamba_layer import LayerInputs, reference
from ftmamba.ops.mamba_layer import triton as layer


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def results(op, tensors: list[Tensor], readout: str, lengths: Tensor | None) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = op.mamba_layer(LayerInputs(*leaves), readout=readout, lengths=lengths)
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(DEVICE)
    (out.double() * weights).sum().backward()
    return {"out": out.detach(), **{name: leaf.grad for name, leaf in zip(INPUTS, leaves, strict=True)}}


def check(
    tensors: list[Tensor], dtype: torch.dtype, readout: str, lengths: list[int] | None = None, bar: float = 2.0
) -> None:
    """Within twice the error of plain torch at this dtype, and eight roundings of the largest value."""
    rounded = [t.to(DEVICE, torch.float32 if name in ("A", "D") else dtype) for name, t in zip(INPUTS, tensors, strict=True)]
    ends = None if lengths is None else torch.tensor(lengths, device=DEVICE)
    truth = results(reference, [t.double() for t in rounded], readout, ends)
    plain = results(reference, rounded, readout, ends)
    if ends is not None:  # what stands behind a row's end is not looked at
        for row, end in zip(rounded[0], lengths, strict=True):
            row[end:] = float("nan")
    ours = results(layer, rounded, readout, ends)
    for name, true in truth.items():
        assert ours[name].dtype == plain[name].dtype, name
        assert ours[name].shape == true.shape, name
        error, usual = ((side[name].double() - true).abs().max() for side in (ours, plain))
        rounding = 8 * torch.finfo(ours[name].dtype).eps * true.abs().max()
        assert error <= bar * usual + rounding, f"{name}: error {error:.2e}, torch's own {usual:.2e}"


CASES = {
    # batch, n_tokens, d_model, d_inner, rank, d_conv, readout, lengths
    "one token": (2, 1, 64, 64, 4, 4, "all", None),
    "two tiles": (1, 21, 32, 64, 2, 3, "all", None),
    "two segments, last": (2, 35, 32, 64, 16, 1, "last", None),
    "channels that fill no power of two": (1, 6, 96, 192, 6, 4, "all", None),
    "rows of their own ends": (3, 19, 32, 64, 4, 4, "all", [19, 1, 6]),
    "last of rows of their own ends": (3, 19, 32, 64, 4, 4, "last", [1, 18, 7]),
}


@pytest.mark.parametrize("case", CASES)
def test_float32_against_the_float64_reference(case: str) -> None:
    *shape, rank, d_conv, readout, lengths = CASES[case]
    check(inputs(*shape, 16, rank, d_conv), torch.float32, readout, lengths)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_against_the_float64_reference(dtype: torch.dtype) -> None:
    check(inputs(2, 9, 64, 128, 16, 4, 4), dtype, "all")


def test_programs_take_several_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "multiprocessors", lambda device: 1)
    monkeypatch.setattr(layer, "PROGRAMS", 2)
    check(inputs(5, 4, 32, 64, 16, 2, 4), torch.float32, "all", [4, 2, 1, 4, 3])
