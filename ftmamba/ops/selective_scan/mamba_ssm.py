"""Peer: the CUDA selective scan of mamba_ssm, channel-first inside."""

from __future__ import annotations

from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor

from ftmamba.ops.selective_scan import Readout, ScanInputs


def selective_scan(inputs: ScanInputs, *, readout: Readout = "all") -> tuple[Tensor, Tensor]:
    """See ``ftmamba.ops.selective_scan.selective_scan``.

    Raises:
        ValueError: an initial state, which this kernel cannot take.
    """
    x, dt, A, B, C, D, z, dt_bias, initial_state = inputs
    if initial_state is not None:
        raise ValueError("mamba_ssm's scan takes no initial state")
    if readout == "last":  # it has no readout of its own: it computes every token's output, as a user of it would
        n_tokens = x.shape[1]
        C, z = C.expand(-1, n_tokens, -1), z.expand(-1, n_tokens, -1)
    x, dt, B, C, z = (tensor.transpose(1, 2) for tensor in (x, dt, B, C, z))
    y, state = selective_scan_fn(
        x, dt, A.float(), B, C, D.float(), z, dt_bias.float(), delta_softplus=True, return_last_state=True
    )
    y = y.transpose(1, 2)
    return (y[:, -1:] if readout == "last" else y), state
