"""The whole Mamba-1 layer as one op (arXiv 2312.00752, figure 3): projections, convolution, scan, gate.

For every row, with ``u, z`` the two halves of ``x in_proj^T``, ``dt, B, C`` the parts of ``v x_proj^T``::

    v   = causal_conv(u)
    y   = selective_scan(v, dt dt_proj^T, A, B, C, D, z, dt_bias)
    out = y out_proj^T

A backend that holds a few tokens at a time in cache needs to read x and write the output, and nothing else. The Mamba
mixer takes such a kernel instead of the ops one by one wherever it pays; it needs no name of its own.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from ftmamba.backends import ANY, NUMBA, TRITON, Backend, Backends
from ftmamba.ops.selective_scan import Readout

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = Backends(
    __name__,
    NUMBA,
    TRITON,
    Backend(name="reference", about="plain torch, the reference of each op in turn", devices=ANY),
)
FUSED = ("numba", "triton")


def fused_beside(scan: ModuleType) -> ModuleType | None:
    """The fused layer of the same backend as a scan, or None where there is none.

    Its ``refusal(d_model, d_inner, d_conv, d_state, dt_rank)`` says whether it takes these widths, ``pays(x)`` whether
    it is expected to be faster than the ops one by one.
    """
    name = scan.__name__.rpartition(".")[2]
    return BACKENDS.load(name) if name in FUSED else None


class LayerInputs(NamedTuple):
    """What every backend takes.

    Attributes:
        x: (batch, n_tokens, d_model).
        in_proj: (2 * d_inner, d_model).
        conv_weight: (d_inner, d_conv).
        conv_bias: (d_inner,).
        x_proj: (dt_rank + 2 * d_state, d_inner).
        dt_proj: (d_inner, dt_rank).
        dt_bias: (d_inner,).
        A: negative decay rates, (d_inner, d_state).
        D: (d_inner,).
        out_proj: (d_model, d_inner).
    """

    x: Tensor
    in_proj: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    out_proj: Tensor


# The tensors of a layer and of its gradients, as torch's operators are told.
SCHEMA = ", ".join(f"Tensor {name}" for name in LayerInputs._fields)
GRADIENTS = f"({', '.join(['Tensor'] * len(LayerInputs._fields))})"


def mamba_layer(*inputs: Tensor, readout: Readout = "all", lengths: Tensor | None = None, backend: str) -> Tensor:
    """Mix tokens by a Mamba-1 layer without norm and residual.

    Args:
        inputs: the fields of ``LayerInputs`` in order.
        readout: ``last`` computes the output of each row's last token alone.
        lengths: valid tokens of each row, (batch,), at least 1; None means all. What stands behind them is not looked
            at, and gives zeros.
        backend: exact name, a key of ``BACKENDS``.

    Returns:
        (batch, n_tokens, d_model), or (batch, 1, d_model) for the last token, in the dtype of x. Gradients flow into
        every argument.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: unknown backend.
    """
    named = LayerInputs(*inputs)
    _check_shapes(named)
    return BACKENDS.load(backend).mamba_layer(named, readout=readout, lengths=lengths)  # type: ignore[no-any-return]


def _check_shapes(inputs: LayerInputs) -> None:
    x, d_model, (d_inner, d_state), dt_rank = inputs.x, inputs.x.shape[-1], inputs.A.shape, inputs.dt_proj.shape[-1]
    if x.dim() != 3 or x.shape[1] < 1:
        raise ValueError(f"expected x (batch, n_tokens, d_model) with at least one token, got {tuple(x.shape)}")
    expected = {
        "in_proj": (2 * d_inner, d_model),
        "conv_weight": (d_inner, inputs.conv_weight.shape[-1]),
        "conv_bias": (d_inner,),
        "x_proj": (dt_rank + 2 * d_state, d_inner),
        "dt_proj": (d_inner, dt_rank),
        "dt_bias": (d_inner,),
        "D": (d_inner,),
        "out_proj": (d_model, d_inner),
    }
    for name, shape in expected.items():
        if tuple(getattr(inputs, name).shape) != shape:
            raise ValueError(f"{name} has shape {tuple(getattr(inputs, name).shape)}, expected {shape}")
