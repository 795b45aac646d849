"""Peer: the Mamba layer of mamba_ssm."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import CUDA, Backend, Backends
from ftmamba.mixers.mamba import MambaSpec

PACKAGES = ("mamba_ssm", "selective_scan_cuda", "causal_conv1d", "causal_conv1d_cuda")


@dataclass(frozen=True, kw_only=True)
class MambaSSMSpec(MambaSpec):
    """The same layer by mamba_ssm."""

    name = "mamba_ssm"
    about = "peer: Mamba-1 by mamba_ssm, on CUDA"
    peer_of = "mamba"
    layer = "layer:MambaSSMMixer"
    backends = Backends(
        __name__,
        # Without causal_conv1d mamba_ssm would take its slow path and not say so.
        Backend(name="fused", about="one fused function", devices=("cuda",), packages=PACKAGES, install=CUDA),
        Backend(name="unfused", about="scan kernel alone", devices=("cuda",), packages=PACKAGES, install=CUDA),
    )


SPEC = MambaSSMSpec
