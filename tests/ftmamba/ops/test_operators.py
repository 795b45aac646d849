"""What every backend owes torch: empty batches, and a refusal where autograd would take a kernel as a constant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from truth import conv_inputs, error, outputs_and_gradients, scan_inputs

from ftmamba.backends import BackendError
from ftmamba.ops import attention, causal_conv, mamba_layer, selective_scan

pytest.importorskip("numba")
pytest.importorskip("triton")

from test_mamba_layer import inputs as layer_inputs

from ftmamba.ops.triton_math import NATIVE

scan_last = functools.partial(selective_scan.selective_scan, readout="last")
layer_last = functools.partial(mamba_layer.mamba_layer, readout="last")


def attention_inputs(batch: int) -> list[Tensor]:
    return [torch.randn(batch, 3, 2, 4, dtype=torch.float64) for _ in range(3)]


OPS: dict[str, tuple[Any, Callable[..., Any], Callable[[int], list[Tensor]]]] = {
    "conv": (causal_conv, causal_conv.causal_conv, lambda batch: conv_inputs(batch, 5, 16, 3)),
    "scan": (selective_scan, selective_scan.selective_scan, lambda batch: scan_inputs(batch, 5, 16, 3)),
    "scan_last": (selective_scan, scan_last, lambda batch: scan_inputs(batch, 5, 16, 3, readout="last")),
    "layer": (mamba_layer, mamba_layer.mamba_layer, lambda batch: layer_inputs(batch, 5, 32, 64, 16, 2, 3)),
    "layer_last": (mamba_layer, layer_last, lambda batch: layer_inputs(batch, 5, 32, 64, 16, 2, 3)),
    "attention": (attention, attention.attention, attention_inputs),
}


def runs_here(module: Any, name: str) -> bool:
    return module.BACKENDS[name].refusal("cpu") is None or (name == "triton" and not NATIVE.value)


EVERY = [(op, name) for op, (module, *_) in OPS.items() for name in module.BACKENDS if runs_here(module, name)]
KERNELS = [(op, name) for op, name in EVERY if name in ("numba", "triton")]


def case(op: str, backend: str, batch: int = 2) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """The op's first output as a function of its tensors, and such tensors in float32."""
    _, function, inputs = OPS[op]

    def first_output(*tensors: Tensor) -> Tensor:
        result = function(*tensors, backend=backend)
        return result if isinstance(result, Tensor) else result[0]

    return first_output, [tensor.float() for tensor in inputs(batch)]


@pytest.mark.parametrize(("op", "backend"), EVERY)
def test_an_empty_batch_gives_empty_outputs_and_no_gradient(op: str, backend: str) -> None:
    _, function, inputs = OPS[op]
    bound = functools.partial(function, backend=backend)
    tensors = inputs(0)
    results = outputs_and_gradients(bound, tensors, torch.float32)
    outputs, gradients = results[: -len(tensors)], results[-len(tensors) :]
    expected = outputs_and_gradients(bound, inputs(2), torch.float32)[: len(outputs)]
    assert [output.shape for output in outputs] == [(0, *output.shape[1:]) for output in expected]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        assert torch.equal(gradient, torch.zeros(tensor.shape))
    with torch.no_grad():
        assert case(op, backend, 0)[0](*(tensor.float() for tensor in tensors)).shape == outputs[0].shape


@pytest.mark.parametrize("op", ["conv", "scan", "layer"])
def test_no_token_is_refused(op: str) -> None:
    first_output, (x, *rest) = case(op, "reference")
    with pytest.raises(ValueError, match="at least one token"):
        first_output(x[:, :0], *rest)


@pytest.mark.parametrize(("op", "backend"), KERNELS)
def test_a_second_derivative_is_refused(op: str, backend: str) -> None:
    first_output, tensors = case(op, backend)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    first = torch.autograd.grad(first_output(*leaves).sum(), leaves, create_graph=True, allow_unused=True)
    for gradient in first:
        with pytest.raises(BackendError, match="'reference'"):
            torch.autograd.grad(gradient.sum(), leaves, retain_graph=True)
    penalty = torch.stack([gradient.square().sum() for gradient in first]).sum()
    with pytest.raises(BackendError, match="'reference'"):
        penalty.backward()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("op", "backend"), KERNELS)
def test_forward_mode_is_refused(op: str, backend: str, requires_grad: bool) -> None:
    first_output, (*others, last) = case(op, backend, batch=1)
    with forward_mode.dual_level():
        dual = forward_mode.make_dual(last.requires_grad_(requires_grad), torch.ones_like(last))
        with pytest.raises(BackendError, match="'reference'"):
            first_output(*others, dual)


@pytest.mark.parametrize(("op", "backend"), KERNELS)
def test_transforms_are_right_or_refused(op: str, backend: str) -> None:
    first_output, (x, *rest) = case(op, backend, batch=1)

    def of_x(x: Tensor) -> Tensor:
        return first_output(x, *rest)

    def loss(x: Tensor) -> Tensor:
        return of_x(x).square().sum()

    many = torch.stack([x, 2 * x])
    for transformed in (
        lambda: grad(loss)(x),
        lambda: grad(lambda x: grad(loss)(x).sum())(x),
        lambda: vjp(of_x, x),
        lambda: jvp(of_x, (x,), (x,)),
        lambda: jacrev(of_x)(x),
        lambda: jacfwd(of_x)(x),
        lambda: hessian(loss)(x),
        lambda: vmap(grad(loss))(many),
        lambda: grad(lambda many: vmap(loss)(many).sum())(many),
        lambda: torch.autograd.functional.hvp(loss, x, x),
    ):
        with pytest.raises(BackendError, match="'reference'"):
            transformed()

    reference, _ = case(op, "reference")
    leaves = [tensor.requires_grad_() for tensor in (many, *rest)]
    exact = [tensor.detach().double().requires_grad_() for tensor in leaves]
    mapped = vmap(lambda x: first_output(x, *rest))(many)
    true = torch.stack([reference(each, *exact[1:]) for each in exact[0]])
    torch.testing.assert_close(mapped.double(), true, rtol=1e-4, atol=1e-4)
    gradients = torch.autograd.grad(mapped.square().sum(), leaves)
    for gradient, expected in zip(gradients, torch.autograd.grad(true.square().sum(), exact), strict=True):
        assert error(gradient, expected) < 1e-5


def test_autograd_knows_every_operator() -> None:
    for op, backend in KERNELS:
        OPS[op][0].BACKENDS.load(backend)
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ftmamba::")]
    assert len(names) >= 10
    for name in names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "Autograd"), name
