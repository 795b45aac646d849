"""Peer: the parallel scan of mamba.py, in plain torch; it holds every state of every token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mambapy.pscan import pscan
from torch import Tensor

from ftmamba.ops.selective_scan import Readout, ScanInputs


def selective_scan(inputs: ScanInputs, *, readout: Readout = "all") -> tuple[Tensor, Tensor]:
    """See ``ftmamba.ops.selective_scan.selective_scan``."""
    x, dt, A, B, C, D, z, dt_bias, initial_state = inputs
    delta = F.softplus((dt + dt_bias).to(A.dtype))
    decay = torch.exp(delta.unsqueeze(-1) * A)
    u = x.to(A.dtype)
    driven = (delta * u).unsqueeze(-1) * B.to(A.dtype).unsqueeze(2)
    if initial_state is not None:
        first = driven[:, :1] + decay[:, :1] * initial_state.unsqueeze(1)
        driven = torch.cat([first, driven[:, 1:]], dim=1)
    states = pscan(decay, driven) if len(x) > 0 else driven  # it cannot take an empty batch
    read, skipped = (states[:, -1:], u[:, -1:]) if readout == "last" else (states, u)
    y = (read @ C.to(A.dtype).unsqueeze(-1)).squeeze(-1) + D * skipped
    return (y * F.silu(z.to(A.dtype))).to(x.dtype), states[:, -1]
