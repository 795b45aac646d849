"""The Triton layer, interpreted where there is no GPU: output and gradients against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

import triton
from test_mamba_layer import INPUTS, inputs
from test_triton_scan import DEVICE
from triton.runtime import interpreter

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


def check(tensors: list[Tensor], dtype: torch.dtype, readout: str, lengths: list[int] | None = None) -> None:
    """Within twice the error of plain torch at this dtype, and eight roundings of the largest value."""
    dtypes = [torch.float32 if name in ("A", "D") else dtype for name in INPUTS]
    rounded = [t.to(DEVICE, each) for t, each in zip(tensors, dtypes, strict=True)]
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
        assert error <= 2 * usual + rounding, f"{name}: error {error:.2e}, torch's own {usual:.2e}"


CASES = {
    # batch, n_tokens, d_model, d_inner, rank, d_conv, readout, lengths
    "one token": (2, 1, 64, 64, 4, 4, "all", None),
    "two tiles": (1, 17, 32, 64, 2, 3, "all", None),
    "two segments, last": (1, 33, 32, 64, 16, 1, "last", None),
    "channels that fill no power of two": (1, 4, 96, 192, 6, 4, "all", None),
    "rows of their own ends": (3, 17, 32, 64, 4, 4, "all", [17, 1, 3]),
    "last of rows of their own ends": (3, 9, 32, 64, 4, 4, "last", [1, 8, 3]),
}


@pytest.mark.parametrize("case", CASES)
def test_float32_against_the_float64_reference(case: str) -> None:
    *shape, rank, d_conv, readout, lengths = CASES[case]
    check(inputs(*shape, 16, rank, d_conv), torch.float32, readout, lengths)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_against_the_float64_reference(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":  # the interpreter cuts off what does not fit bfloat16, where a GPU rounds
        convert = interpreter._convert_float
        pair = (triton.language.float32, triton.language.bfloat16)

        def rounding(values, given, wanted, mode):  # type: ignore[no-untyped-def]
            if (given, wanted) != pair:
                return convert(values, given, wanted, mode)
            return torch.from_numpy(values.copy()).bfloat16().view(torch.uint16).numpy()

        monkeypatch.setattr(interpreter, "_convert_float", rounding)
    check(inputs(2, 5, 64, 128, 16, 4, 4), dtype, "all")


def test_what_it_cannot_run_is_refused() -> None:
    for widths, told in (((48, 96, 16), "d_model must be"), ((64, 128, 8), "16 states"), ((64, 512, 16), "up to 256")):
        with pytest.raises(BackendError, match=told):
            layer.mamba_layer(LayerInputs(*(t.float().to(DEVICE) for t in inputs(1, 2, *widths, 4, 4))))
    x, *weights = (t.float().to(DEVICE) for t in inputs(1, 2, 64, 64, 16, 4, 4))
    with pytest.raises(ValueError, match="one dtype"):
        layer.mamba_layer(LayerInputs(x.bfloat16(), *weights))
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        layer.mamba_layer(LayerInputs(x.double(), *weights))


def test_an_empty_batch_has_zero_gradients() -> None:
    tensors = [t.float().to(DEVICE).requires_grad_() for t in inputs(0, 2, 64, 64, 16, 4, 4)]
    out = layer.mamba_layer(LayerInputs(*tensors))
    out.sum().backward()
    assert out.shape == (0, 2, 64)
    assert not any(t.grad.any() for t in tensors)


def test_operators_meet_torchs_contract() -> None:
    tensors = [t.float().to(DEVICE).requires_grad_() for t in inputs(2, 3, 32, 64, 16, 2, 2)]
    utils = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(layer._layer, (*tensors, torch.tensor([3, 1], device=DEVICE), False, True), test_utils=utils)


@pytest.mark.parametrize(("trained", "most", "rows"), [(False, 128, 512), (True, 64, 128)])
def test_it_pays_for_short_rows_alone(trained: bool, most: int, rows: int) -> None:
    with torch.set_grad_enabled(trained):
        assert layer.pays(torch.empty(rows, most, 1))
        assert not layer.pays(torch.empty(1, most + 1, 1))
        assert not layer.pays(torch.empty(rows + 1, most, 1))
        with torch.autocast("cpu", torch.bfloat16):
            assert not layer.pays(torch.empty(1, 1, 1))


@pytest.mark.parametrize("read", [None, -1])
def test_the_mixer_takes_it_for_short_rows(read: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mixer = MambaMixer(MambaSpec(backend="reference"), 32).to(DEVICE)
    x, lengths = torch.randn(2, 5, 32, device=DEVICE), torch.tensor([5, 2], device=DEVICE)
    wanted = [*mixer.parameters()]
    expected = mixer(x, read, lengths)
    gradients = torch.autograd.grad(expected.square().sum(), wanted)
    monkeypatch.setattr(mamba_layer, "fused_beside", lambda scan: layer)
    calls = []
    kernel = layer.mamba_layer
    monkeypatch.setattr(layer, "mamba_layer", lambda *a, **k: calls.append(k["readout"]) or kernel(*a, **k))
    ours = mixer(x, read, lengths)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    for mine, true in zip(torch.autograd.grad(ours.square().sum(), wanted), gradients, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-5)
    assert calls == ["all" if read is None else "last"]
