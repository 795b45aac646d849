"""Causal depthwise convolution with SiLU, channel-last: the filter before Mamba's scan (arXiv 2312.00752, 3.4).

For every row b and channel d, with K = d_conv and x zero before the first token::

    y[t] = silu(bias[d] + sum_k weight[d, k] * x[t - (K - 1) + k])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftmamba.backends import ANY, CUDA, NUMBA, TRITON, Backend, Backends

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = Backends(
    __name__,
    NUMBA,
    TRITON,
    Backend(
        name="mamba_ssm",
        about="peer: the causal-conv1d package, used by mamba_ssm",
        devices=("cuda",),
        packages=("causal_conv1d", "causal_conv1d_cuda"),
        install=CUDA,
        float64=False,
    ),
    Backend(name="reference", about="torch conv1d, channel-first", devices=ANY),
)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str) -> Tensor:
    """Filter every channel with its own causal filter, then apply SiLU.

    Args:
        x: (batch, n_tokens, d_inner).
        weight: (d_inner, d_conv); the last tap meets the current token.
        bias: (d_inner,).
        backend: exact name, a key of ``BACKENDS``.

    Returns:
        (batch, n_tokens, d_inner) in the dtype of x. Gradients flow into every argument.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: unknown backend.
    """
    d_inner = x.shape[-1]
    if x.dim() != 3 or x.shape[1] < 1:
        raise ValueError(f"expected x (batch, n_tokens, d_inner) with at least one token, got {tuple(x.shape)}")
    if weight.dim() != 2 or weight.shape[0] != d_inner or tuple(bias.shape) != (d_inner,):
        raise ValueError(
            f"expected weight (d_inner, d_conv) and bias (d_inner,) with d_inner {d_inner}; "
            f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    return BACKENDS.load(backend).causal_conv(x, weight, bias)  # type: ignore[no-any-return]
