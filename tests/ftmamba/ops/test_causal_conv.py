"""The causal convolution: the reference against its definition, the CPU kernels against the reference."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from truth import CONV_INPUTS, assert_as_exact_as_torch, conv_inputs, error, outputs_and_gradients

from ftmamba.backends import BackendError
from ftmamba.ops.causal_conv import causal_conv

reference = functools.partial(causal_conv, backend="reference")
ours = functools.partial(causal_conv, backend="numba")


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(name="numba")
def numba_backend() -> Any:
    pytest.importorskip("numba")
    import ftmamba.ops.causal_conv.numba as backend

    return backend


def check(inputs: list[Tensor]) -> None:
    assert_as_exact_as_torch(ours, reference, inputs, ("y", *CONV_INPUTS), n_terms=inputs[0].shape[1])


def test_reference_is_its_definition() -> None:
    x, weight, bias = conv_inputs(2, 6, 3, 4)
    y = reference(x, weight, bias)
    for b in range(2):
        for t in range(6):
            for d in range(3):
                value = bias[d] + sum(weight[d, k] * x[b, t - 3 + k, d] for k in range(4) if t - 3 + k >= 0)
                assert y[b, t, d].item() == pytest.approx((value * torch.sigmoid(value)).item(), abs=1e-12)


def test_reference_gradients() -> None:
    assert torch.autograd.gradcheck(reference, [tensor.requires_grad_() for tensor in conv_inputs(2, 5, 3, 4)])


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("d_conv", [1, 2, 4, 16])
@pytest.mark.parametrize(
    ("n_tokens", "d_inner"), [(1, 1), (2, 16), (7, 33), (31, 80), (32, 15), (33, 64), (100, 48), (257, 20), (1001, 16)]
)
def test_outputs_and_gradients(n_tokens: int, d_inner: int, d_conv: int) -> None:
    check(conv_inputs(2, n_tokens, d_inner, d_conv))


@pytest.mark.usefixtures("numba")
@settings(max_examples=25)
@given(
    batch=st.integers(1, 5),
    n_tokens=st.integers(1, 100),
    d_inner=st.integers(1, 70),
    d_conv=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_any_shape(batch: int, n_tokens: int, d_inner: int, d_conv: int, seed: int) -> None:
    check(conv_inputs(batch, n_tokens, d_inner, d_conv, seed))


@pytest.mark.usefixtures("numba")
def test_slices_and_transposes() -> None:
    x, weight, bias = (tensor.float() for tensor in conv_inputs(3, 40, 20, 4))
    wide = torch.cat([x, -x], dim=-1)
    expected = ours(x, weight, bias)
    for variant in (wide[..., :20], x.transpose(1, 2).contiguous().transpose(1, 2), x.flip(1).flip(1)):
        torch.testing.assert_close(ours(variant, weight, bias), expected, rtol=0, atol=0)
    transposed = weight.t().contiguous().t()
    torch.testing.assert_close(ours(x, transposed, bias), expected, rtol=0, atol=0)


@pytest.mark.usefixtures("numba")
def test_gradient_of_a_sum() -> None:
    """A sum hands back one number spread over all places with strides of zero."""
    inputs = [tensor.float().requires_grad_() for tensor in conv_inputs(2, 5, 18, 4)]
    truth = [tensor.double().detach().requires_grad_() for tensor in inputs]
    grads = torch.autograd.grad(ours(*inputs).sum(), inputs)
    for value, true_value in zip(grads, torch.autograd.grad(reference(*truth).sum(), truth), strict=True):
        assert error(value, true_value) < 1e-6


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_inputs_do_not_overflow(size: float) -> None:
    x, weight, bias = (tensor.float() for tensor in conv_inputs(1, 8, 16, 4))
    y = ours(size * x, weight, bias)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(
        y.double(), reference(size * x.double(), weight.double(), bias.double()), rtol=1e-5, atol=size * 1e-5
    )


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_compute_in_float32(dtype: torch.dtype) -> None:
    x, weight, bias = (tensor.to(dtype) for tensor in conv_inputs(2, 9, 20, 4))
    y = ours(x, weight, bias)
    assert y.dtype == dtype
    torch.testing.assert_close(y, ours(x.float(), weight.float(), bias.float()).to(dtype), rtol=0, atol=0)


@pytest.mark.usefixtures("numba")
def test_float64_is_refused() -> None:
    with pytest.raises(BackendError, match="reference"):
        ours(*conv_inputs(1, 3, 2, 4))


def test_operator_registration(numba: Any) -> None:
    inputs = [tensor.float().requires_grad_() for tensor in conv_inputs(2, 9, 18, 4)]
    torch.library.opcheck(numba._conv, tuple(inputs))
    with torch.no_grad():
        torch.library.opcheck(numba._conv_backward, (numba._conv(*inputs), *inputs))


def test_compiles_without_a_graph_break(numba: Any) -> None:
    inputs = conv_inputs(2, 9, 18, 4)
    eager = outputs_and_gradients(numba.causal_conv, inputs, torch.float32)
    compiled = torch.compile(numba.causal_conv, fullgraph=True, backend="aot_eager")
    for value, expected in zip(outputs_and_gradients(compiled, inputs, torch.float32), eager, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
