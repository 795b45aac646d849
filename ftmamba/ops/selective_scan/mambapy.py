"""Peer: the parallel scan of mamba.py, in plain torch; it holds every state of every token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mambapy.pscan import pscan
from torch import Tensor


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
    readout: str = "all",
) -> tuple[Tensor, Tensor]:
    """See ``ftmamba.ops.selective_scan.selective_scan``."""
    delta = F.softplus((dt + dt_bias).to(A.dtype))
    decay = torch.exp(delta.unsqueeze(-1) * A)
    u = x.to(A.dtype)
    inputs = (delta * u).unsqueeze(-1) * B.to(A.dtype).unsqueeze(2)
    if initial_state is not None:
        first = inputs[:, :1] + decay[:, :1] * initial_state.unsqueeze(1)
        inputs = torch.cat([first, inputs[:, 1:]], dim=1)
    states = pscan(decay, inputs) if len(x) > 0 else inputs  # it cannot take an empty batch
    read, skipped = (states[:, -1:], u[:, -1:]) if readout == "last" else (states, u)
    y = (read @ C.to(A.dtype).unsqueeze(-1)).squeeze(-1) + D * skipped
    return (y * F.silu(z.to(A.dtype))).to(x.dtype), states[:, -1]
