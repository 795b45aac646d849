"""The Triton layer, interpreted where there is no GPU: outputs against the float64 reference and the ops one by one."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from test_mamba_layer import inputs
from test_triton_scan import DEVICE

from ftmamba import MambaSpec
from ftmamba.backends import BackendError
from ftmamba.mixers.mamba.layer import MambaMixer
from ftmamba.ops import mamba_layer
from ftmamba.ops.mamba_layer import LayerInputs, reference
from ftmamba.ops.mamba_layer import triton as layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize(
    ("batch", "n_tokens", "d_model", "d_inner", "rank", "d_conv"),
    [(2, 1, 64, 64, 4, 4), (1, 21, 32, 64, 2, 3), (2, 18, 64, 128, 4, 4)],
)
def test_output_against_the_float64_reference(
    dtype: torch.dtype, readout: str, batch: int, n_tokens: int, d_model: int, d_inner: int, rank: int, d_conv: int
) -> None:
    """Within twice the error of plain torch at this dtype, and eight roundings."""
    torch.use_deterministic_algorithms(True)  # whatever torch leaves uninitialised is NaN
    exact = [t.to(DEVICE) for t in inputs(batch, n_tokens, d_model, d_inner, 16, rank, d_conv)]
    rounded = [t.to(torch.float32 if i in (7, 8) else dtype) for i, t in enumerate(exact)]
    truth = reference.mamba_layer(LayerInputs(*(t.double() for t in rounded)), readout=readout)
    plain = reference.mamba_layer(LayerInputs(*rounded), readout=readout)
    ours = layer.mamba_layer(LayerInputs(*rounded), readout=readout)
    torch.use_deterministic_algorithms(False)
    assert ours.dtype == dtype
    assert ours.shape == truth.shape
    error, usual = ((each.double() - truth).abs().max() for each in (ours, plain))
    assert error <= 2 * usual + 8 * torch.finfo(dtype).eps * truth.abs().max()


def test_gradients_and_other_widths_are_refused() -> None:
    tensors = [t.float().to(DEVICE) for t in inputs(1, 2, 64, 64, 16, 4, 4)]
    with pytest.raises(BackendError, match="without gradients"):
        layer.mamba_layer(LayerInputs(*(t.requires_grad_() for t in tensors)))
    with pytest.raises(BackendError, match="d_model and d_inner of 64"):
        layer.mamba_layer(LayerInputs(*(t.float().to(DEVICE) for t in inputs(1, 2, 48, 96, 16, 4, 4))))


@pytest.mark.parametrize("read", [None, -1])
def test_the_mixer_takes_it_for_short_rows_without_gradients(read: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mixer = MambaMixer(MambaSpec(backend="reference"), 32).to(DEVICE)
    x = torch.randn(2, 5, 32, device=DEVICE)
    with torch.no_grad():
        expected = mixer(x, read=read)
        monkeypatch.setattr(mamba_layer, "fused_beside", lambda scan: layer)
        calls = []
        kernel = layer.mamba_layer
        monkeypatch.setattr(layer, "mamba_layer", lambda *a, **k: calls.append(k["readout"]) or kernel(*a, **k))
        torch.testing.assert_close(mixer(x, read=read), expected, rtol=1e-4, atol=1e-5)
    assert calls == ["all" if read is None else "last"]
    assert not layer.pays(x)  # with gradients
    with torch.no_grad():
        assert layer.pays(torch.empty(1, 128, 32))
        assert not layer.pays(torch.empty(1, 129, 32))
