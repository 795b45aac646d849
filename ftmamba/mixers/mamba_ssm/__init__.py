"""Peer: the Mamba layer of mamba_ssm."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import CUDA, Backend, Backends
from ftmamba.mixers.mamba import MambaSpec


@dataclass(frozen=True, kw_only=True)
class MambaSSMSpec(MambaSpec):
    """The same layer by mamba_ssm."""

    name = "mamba_ssm"
    about = "peer: Mamba-1 by mamba_ssm, on CUDA"
    peer_of = "mamba"
    layer = "layer:MambaSSMMixer"
    backends = Backends(
        __name__,
        Backend(name="fused", about="one fused function", devices=("cuda",), packages=("mamba_ssm",), install=CUDA),
        Backend(name="unfused", about="scan kernel alone", devices=("cuda",), packages=("mamba_ssm",), install=CUDA),
    )


SPEC = MambaSSMSpec
