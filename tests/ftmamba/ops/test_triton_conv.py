"""The Triton convolution, interpreted where there is no GPU: output and all gradients against torch in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from ftmamba.ops.causal_conv import triton as conv
from ftmamba.ops.triton_math import NATIVE

DEVICE = "cuda" if NATIVE.value else "cpu"


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def truth(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Token by token from the definition, not from any convolution routine."""
    d_conv = weight.shape[1]
    padded = F.pad(x, (0, 0, d_conv - 1, 0))
    windows = padded.unfold(1, d_conv, 1)
    return F.silu((windows * weight).sum(-1) + bias)


def inputs(batch: int, n_tokens: int, d_inner: int, d_conv: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(batch, n_tokens, d_inner), (d_inner, d_conv), (d_inner,)]
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(DEVICE) for shape in shapes]


def output_and_gradients(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    y = function(*leaves)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(DEVICE)
    (y.double() * weights).sum().backward()
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == 3
    return [y.detach(), *gradients]


def assert_as_good_as_torch(tensors: list[Tensor], dtype: torch.dtype) -> None:
    """Every output and gradient within twice the error that plain torch makes at this dtype, and four roundings."""
    rounded = [tensor.to(dtype) for tensor in tensors]
    true = output_and_gradients(truth, [tensor.double() for tensor in rounded])
    plain = output_and_gradients(truth, rounded)
    ours = output_and_gradients(conv.causal_conv, rounded)
    for name, mine, torchs, exact in zip(("y", "x", "weight", "bias"), ours, plain, true, strict=True):
        assert mine.dtype == dtype, name
        error, allowed = ((side.double() - exact).abs().max() for side in (mine, torchs))
        assert error <= 2 * allowed + 4 * torch.finfo(dtype).eps * exact.abs().max(), name


@pytest.mark.parametrize(
    ("batch", "n_tokens", "d_inner", "d_conv", "chunk"),
    [
        (2, 5, 40, 4, 32),  # two programs of channels
        (1, 1, 3, 4, 32),  # fewer tokens than taps
        (1, 67, 5, 4, 16),  # several chunks, a ragged last one
        (1, 33, 5, 2, 32),
        (1, 9, 5, 1, 8),  # no neighbours
        (1, 7, 5, 16, 4),  # taps reach beyond the neighbouring chunk
        (2, 37, 3, 16, 16),
    ],
)
def test_float32_against_float64(
    batch: int, n_tokens: int, d_inner: int, d_conv: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "_chunk", lambda *_: chunk)
    assert_as_good_as_torch(inputs(batch, n_tokens, d_inner, d_conv), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    assert_as_good_as_torch(inputs(1, 6, 9, 4), dtype)


def test_slices_of_a_projection() -> None:
    x, weight, bias = (tensor.float() for tensor in inputs(2, 5, 8, 4))
    wide = torch.full((2, 5, 20), float("nan"), device=DEVICE)
    wide[..., 3:11] = x
    assert torch.equal(conv.causal_conv(wide[..., 3:11], weight, bias), conv.causal_conv(x, weight, bias))


def test_large_inputs_stay_finite() -> None:
    x, weight, bias = (tensor.float() for tensor in inputs(1, 5, 8, 4))
    for value in output_and_gradients(conv.causal_conv, [x * 1e4, weight, bias]):
        assert value.isfinite().all()


def test_operator_meets_torchs_contract() -> None:
    arguments = tuple(tensor.float().requires_grad_() for tensor in inputs(1, 3, 4, 2))
    torch.library.opcheck(
        conv._conv, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_compiles_without_graph_breaks() -> None:
    leaves = [tensor.float().requires_grad_() for tensor in inputs(1, 3, 4, 2)]
    y = torch.compile(conv.causal_conv, fullgraph=True, backend="aot_eager")(*leaves)
    assert torch.equal(y, conv.causal_conv(*leaves))
    y.sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        conv.causal_conv(*inputs(1, 2, 3, 4))
    with pytest.raises(ValueError, match="up to 32 taps"):
        conv.causal_conv(*(tensor.float() for tensor in inputs(1, 2, 3, 33)))
