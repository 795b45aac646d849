"""The scan in plain torch, a loop over tokens: slow, differentiable by autograd, the truth for the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.ops.selective_scan import Readout, ScanInputs


def selective_scan(inputs: ScanInputs, *, readout: Readout = "all") -> tuple[Tensor, Tensor]:
    """See `ftmamba.ops.selective_scan.selective_scan`. Computes in float32, in float64 for float64 inputs."""
    *tensors, initial_state = inputs
    dtype = inputs.x.dtype
    state_dtype = torch.promote_types(dtype, torch.float32)
    u, dt, A, B, C, D, gate, dt_bias = (tensor.to(state_dtype) for tensor in tensors)
    delta = F.softplus(dt + dt_bias)
    h = u.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(state_dtype)

    reads = C.unbind(1)
    first_read = u.shape[1] - len(reads)
    outputs = []
    # unbind, not indexing: the gradient of an index is a zero tensor of full length, which would cost n_tokens squared.
    for t, (delta_t, drive_t, B_t) in enumerate(zip(delta.unbind(1), (delta * u).unbind(1), B.unbind(1), strict=True)):
        h = torch.exp(delta_t[..., None] * A) * h + drive_t[..., None] * B_t[:, None, :]
        if t >= first_read:
            outputs.append((h * reads[t - first_read][:, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1) + D * u[:, first_read:]
    return (y * F.silu(gate)).to(dtype), h
