"""Random inputs for the ops, and how far a result may be from the float64 truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SCAN_INPUTS = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")
CONV_INPUTS = ("x", "weight", "bias")
EPS = torch.finfo(torch.float32).eps

Op = Callable[..., Tensor | tuple[Tensor, ...]]


def scan_inputs(
    batch: int,
    n_tokens: int,
    d_inner: int,
    d_state: int,
    *,
    readout: str = "all",
    with_state: bool = True,
    seed: int = 0,
) -> list[Tensor]:
    """Float64 arguments of `selective_scan` in order; steps around 0.1, rates between 0 and about 10."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n_read = n_tokens if readout == "all" else 1
    inputs = [
        normal(batch, n_tokens, d_inner),
        normal(batch, n_tokens, d_inner) - 2,
        -4 * normal(d_inner, d_state).abs(),
        normal(batch, n_tokens, d_state),
        normal(batch, n_read, d_state),
        normal(d_inner),
        normal(batch, n_read, d_inner),
        normal(d_inner),
    ]
    return [*inputs, normal(batch, d_inner, d_state)] if with_state else inputs


def conv_inputs(batch: int, n_tokens: int, d_inner: int, d_conv: int, seed: int = 0) -> list[Tensor]:
    """Float64 arguments of `causal_conv` in order."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, n_tokens, d_inner), (d_inner, d_conv), (d_inner,)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def outputs_and_gradients(op: Op, inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """All outputs of ``op`` and the gradients of every input, for fixed random gradients of the outputs."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    result = op(*leaves)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    loss = sum(((o * w).sum() for o, w in zip(outputs, weights, strict=True)), torch.zeros(()))
    return [*(o.detach() for o in outputs), *torch.autograd.grad(loss, leaves)]


def error(value: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest true value, but no smaller a scale than 1, the inputs' own.

    A tensor of few values can be small because its terms cancel, and they still carry the rounding of their own size.
    """
    return float((value.double() - truth).abs().max() / truth.abs().max().clamp(min=1.0))


def assert_as_exact_as_torch(
    op: Op, reference: Op, inputs: Sequence[Tensor], names: Sequence[str], n_terms: int
) -> None:
    """Hold float32 results of ``op`` against the float64 truth.

    Allowed is three times the error that the plain torch reference makes in float32; and because that one can be zero
    by luck, at least three times a random walk of ``n_terms`` roundings.
    """
    truth = outputs_and_gradients(reference, inputs, torch.float64)
    plain = outputs_and_gradients(reference, inputs, torch.float32)
    ours = outputs_and_gradients(op, inputs, torch.float32)
    for name, value, torch_value, true_value in zip(names, ours, plain, truth, strict=True):
        allowed = 3 * max(error(torch_value, true_value), 3 * EPS * n_terms**0.5)
        assert error(value, true_value) <= allowed, f"{name}: error {error(value, true_value):.1e} above {allowed:.1e}"
