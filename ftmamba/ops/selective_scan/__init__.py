"""Selective scan: the recurrence of Mamba-1 (Gu and Dao, arXiv 2312.00752, algorithm 2), fused with what surrounds it.

For every row b, channel d and state n, with ``delta = softplus(dt + dt_bias)``::

    h[t, n] = exp(delta[t] * A[d, n]) * h[t-1, n] + delta[t] * B[t, n] * x[t]
    y[t]    = (sum_n C[t, n] * h[t, n] + D[d] * x[t]) * silu(z[t])

The input matrix uses the simplified Euler step ``delta * B``, as the authors' code does. The state is float32 (float64
for float64 inputs) whatever the inputs' dtype. None of our fused kernels holds a tensor of
``n_tokens * d_inner * d_state`` elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ftmamba.backends import ANY, CUDA, NUMBA, PEERS, TRITON, Backend, Backends

if TYPE_CHECKING:
    from torch import Tensor

Readout = Literal["all", "last"]

BACKENDS = Backends(
    __name__,
    NUMBA,
    TRITON,
    Backend(
        name="mamba_ssm",
        about="peer: the CUDA kernel of mamba_ssm",
        devices=("cuda",),
        packages=("mamba_ssm", "selective_scan_cuda"),
        install=CUDA,
        float64=False,
    ),
    Backend(
        name="reference",
        about="plain torch, a loop over tokens; the truth others are held against",
        devices=ANY,
    ),
    Backend(
        name="mambapy",
        about="peer: the parallel scan of mamba.py, in plain torch",
        devices=ANY,
        packages=("mambapy",),
        install=PEERS,
    ),
)


class ScanInputs(NamedTuple):
    """What every backend takes.

    Attributes:
        x: input, (batch, n_tokens, d_inner).
        dt: step size before bias and softplus, (batch, n_tokens, d_inner).
        A: negative decay rates, (d_inner, d_state).
        B: input projection of each token, (batch, n_tokens, d_state).
        C: output projection of each token, (batch, n_tokens, d_state); with ``readout="last"`` (batch, 1, d_state).
        D: skip weight, (d_inner,).
        z: gate before silu, (batch, n_tokens, d_inner); with ``readout="last"`` (batch, 1, d_inner).
        dt_bias: (d_inner,).
        initial_state: state before the first token, (batch, d_inner, d_state); zero when None.
    """

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    dt_bias: Tensor
    initial_state: Tensor | None = None


# The tensors of a scan and of its gradients, as torch's operators are told.
SCHEMA = ", ".join(f"Tensor {name}" for name in ScanInputs._fields[:-1])
GRADIENTS = f"({', '.join(['Tensor'] * len(ScanInputs._fields))})"


def selective_scan(*inputs: Tensor, readout: Readout = "all", backend: str) -> tuple[Tensor, Tensor]:
    """Run the selective scan over all tokens.

    Args:
        inputs: the fields of ``ScanInputs`` in order.
        readout: ``all`` gives y of every token; ``last`` only of the last token (the scan still covers all).
        backend: exact name, a key of ``BACKENDS``.

    Returns:
        y, (batch, n_tokens or 1, d_inner) in the dtype of x, and the final state (batch, d_inner, d_state) in the
        state's dtype. Gradients flow through both, into every tensor argument.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: unknown backend.
    """
    named = ScanInputs(*inputs)
    _check_shapes(named, readout)
    return BACKENDS.load(backend).selective_scan(named, readout=readout)  # type: ignore[no-any-return]


def _check_shapes(inputs: ScanInputs, readout: str) -> None:
    if readout not in ("all", "last"):
        raise ValueError(f"readout must be 'all' or 'last', not {readout!r}")
    (batch, n_tokens, d_inner), d_state = inputs.x.shape, inputs.A.shape[1]
    n_read = n_tokens if readout == "all" else 1
    expected = {
        "dt": (batch, n_tokens, d_inner),
        "A": (d_inner, d_state),
        "B": (batch, n_tokens, d_state),
        "C": (batch, n_read, d_state),
        "D": (d_inner,),
        "z": (batch, n_read, d_inner),
        "dt_bias": (d_inner,),
        "initial_state": (batch, d_inner, d_state),
    }
    if n_tokens < 1:
        raise ValueError("the scan needs at least one token")
    for name, shape in expected.items():
        tensor = getattr(inputs, name)
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {shape} for x of shape {tuple(inputs.x.shape)}"
            )
