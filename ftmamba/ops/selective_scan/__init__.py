"""Selective scan: the recurrence of Mamba-1 (Gu and Dao, arXiv 2312.00752, algorithm 2), fused with what surrounds it.

For every row b, channel d and state n, with ``delta = softplus(dt + dt_bias)``::

    h[t, n] = exp(delta[t] * A[d, n]) * h[t-1, n] + delta[t] * B[t, n] * x[t]
    y[t]    = (sum_n C[t, n] * h[t, n] + D[d] * x[t]) * silu(z[t])

The input matrix uses the simplified Euler step ``delta * B``, as the authors' code does. The state is float32 (float64
for float64 inputs) whatever the inputs' dtype. None of our fused kernels holds a tensor of
``n_tokens * d_inner * d_state`` elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ftmamba.backends import Backend, Backends

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = Backends(
    __name__,
    Backend(
        name="numba",
        about="our fused CPU kernel",
        devices=("cpu",),
        packages=("numba",),
        install="pip install numba",
        float64=False,
    ),
    Backend(
        name="triton",
        about="our fused GPU kernel",
        devices=("cuda",),
        packages=("triton",),
        install="pip install triton",
        float64=False,
    ),
    Backend(
        name="mamba_ssm",
        about="peer: the CUDA kernel of mamba_ssm",
        devices=("cuda",),
        packages=("mamba_ssm",),
        install="pip install 'ftmamba[cuda]'",
        float64=False,
    ),
    Backend(
        name="reference",
        about="plain torch, a loop over tokens; the truth others are held against",
        devices=("cpu", "cuda"),
    ),
    Backend(
        name="mambapy",
        about="peer: the parallel scan of mamba.py, in plain torch",
        devices=("cpu", "cuda"),
        packages=("mambapy",),
        install="pip install 'ftmamba[peers]'",
    ),
)


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None = None,
    *,
    readout: Literal["all", "last"] = "all",
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Run the selective scan over all tokens.

    Args:
        x: input, (batch, n_tokens, d_inner).
        dt: step size before bias and softplus, (batch, n_tokens, d_inner).
        A: negative decay rates, (d_inner, d_state).
        B: input projection of each token, (batch, n_tokens, d_state).
        C: output projection of each token, (batch, n_tokens, d_state); with ``readout="last"`` (batch, 1, d_state).
        D: skip weight, (d_inner,).
        z: gate before silu, (batch, n_tokens, d_inner); with ``readout="last"`` (batch, 1, d_inner).
        dt_bias: (d_inner,).
        initial_state: state before the first token, (batch, d_inner, d_state); zero when None.
        readout: ``all`` gives y of every token; ``last`` only of the last token (the scan still covers all).
        backend: exact name, a key of ``BACKENDS``.

    Returns:
        y, (batch, n_tokens or 1, d_inner) in the dtype of x, and the final state (batch, d_inner, d_state) in the
        state's dtype. Gradients flow through both, into every tensor argument.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: unknown backend.
    """
    _check_shapes(x, dt, A, B, C, D, z, dt_bias, initial_state, readout)
    return BACKENDS.load(backend).selective_scan(x, dt, A, B, C, D, z, dt_bias, initial_state, readout=readout)  # type: ignore[no-any-return]


def _check_shapes(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None,
    readout: str,
) -> None:
    if readout not in ("all", "last"):
        raise ValueError(f"readout must be 'all' or 'last', not {readout!r}")
    batch, n_tokens, d_inner = x.shape
    d_state = A.shape[1]
    n_read = n_tokens if readout == "all" else 1
    expected = {
        "dt": (dt, (batch, n_tokens, d_inner)),
        "A": (A, (d_inner, d_state)),
        "B": (B, (batch, n_tokens, d_state)),
        "C": (C, (batch, n_read, d_state)),
        "D": (D, (d_inner,)),
        "z": (z, (batch, n_read, d_inner)),
        "dt_bias": (dt_bias, (d_inner,)),
    }
    if initial_state is not None:
        expected["initial_state"] = (initial_state, (batch, d_inner, d_state))
    if n_tokens < 1:
        raise ValueError("the scan needs at least one token")
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected {shape} for x of shape {tuple(x.shape)}"
            )
