"""The layer from the reference of each op: the truth other backends are held to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.ops.causal_conv.reference import causal_conv
from ftmamba.ops.mamba_layer import LayerInputs
from ftmamba.ops.selective_scan import Readout, ScanInputs
from ftmamba.ops.selective_scan.reference import selective_scan
from ftmamba.ragged import without_looking_ahead


def mamba_layer(inputs: LayerInputs, *, readout: Readout = "all", lengths: Tensor | None = None) -> Tensor:
    """See `ftmamba.ops.mamba_layer.mamba_layer`."""
    if lengths is not None:
        read = None if readout == "all" else -1
        return without_looking_ahead(lambda x: mamba_layer(inputs._replace(x=x)), inputs.x, read, lengths)
    x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj = inputs
    u, z = F.linear(x, in_proj).chunk(2, dim=-1)
    v = causal_conv(u, conv_weight, conv_bias)
    d_state = A.shape[1]
    dt, B, C = torch.split(F.linear(v, x_proj), [dt_proj.shape[1], d_state, d_state], dim=-1)
    C, z = (C, z) if readout == "all" else (C[:, -1:], z[:, -1:])
    y, _ = selective_scan(ScanInputs(v, F.linear(dt, dt_proj), A, B, C, D, z, dt_bias), readout=readout)
    return F.linear(y, out_proj)
