"""The short filter and SiLU on the CPU in one pass each way, channel-last, parallel over rows and tiles of tokens.

Computes in float32; bfloat16 and float16 inputs are converted on the way in and y on the way out.
"""

from __future__ import annotations

from torch import Tensor

from ftmamba.ops.causal_conv import numba_kernels as kernels
from ftmamba.ops.cpu import as_float, kernel, scratch, strided
from ftmamba.ops.operators import differentiate, operator
from ftmamba.threads import get_threads

_forward = kernel(kernels.forward, kernels.FORWARD)
_backward = kernel(kernels.backward, kernels.BACKWARD)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ftmamba.ops.causal_conv.causal_conv`.

    Raises:
        BackendError: an input is float64; these kernels compute in float32.
    """
    return _conv(*as_float(x, weight, bias)).to(x.dtype)


def _arguments(x: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Tensor | int]:
    batch, n_tokens, d_inner = x.shape
    return {
        "n_tokens": n_tokens,
        "d_inner": d_inner,
        "d_conv": weight.shape[1],
        "n_items": batch * -(-n_tokens // kernels.STRETCH),
        **strided(x=x),
        "weight": weight.t().contiguous(),
        "bias": bias.contiguous(),
    }


@operator(
    "causal_conv_numba(Tensor x, Tensor weight, Tensor bias) -> Tensor",
    fake=lambda x, weight, bias: x.new_empty(x.shape),
)
def _conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = x.new_empty(x.shape)
    _forward(n_threads=get_threads(), **_arguments(x, weight, bias), y=y)
    return y


@operator(
    "causal_conv_numba_backward(Tensor dy, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor, Tensor)",
    fake=lambda dy, *inputs: tuple(t.new_empty(t.shape) for t in inputs),
)
def _conv_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    arguments, n_threads = _arguments(x, weight, bias), get_threads()
    d_inner, d_conv = weight.shape
    n_slots = min(arguments["n_items"], 4 * n_threads)
    dx = x.new_empty(x.shape)
    partial = x.new_empty(n_slots, d_conv + 1, d_inner)
    arguments |= strided(dy=dy) | scratch(x, n_threads, kernels.backward_scratch(d_inner, d_conv))
    _backward(n_threads=n_threads, **arguments, dx=dx, partial=partial, n_slots=n_slots)
    sums = partial.sum(0)
    return dx, sums[:d_conv].t().contiguous(), sums[d_conv].clone()


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward_rule(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _conv_backward(dy, *ctx.saved_tensors)


differentiate(_conv, _setup_context, _backward_rule, _conv_backward)
