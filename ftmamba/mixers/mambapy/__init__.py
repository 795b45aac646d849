"""Peer: the Mamba layer of mamba.py."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, PEERS, Backend, Backends
from ftmamba.mixers.mamba import MambaSpec


@dataclass(frozen=True, kw_only=True)
class MambaPySpec(MambaSpec):
    """The same layer by mamba.py."""

    name = "mambapy"
    about = "peer: Mamba-1 by mamba.py"
    peer_of = "mamba"
    layer = "layer:MambaPyMixer"
    backends = Backends(
        __name__,
        Backend(name="pscan", about="parallel scan", devices=ANY, packages=("mambapy",), install=PEERS),
        Backend(name="sequential", about="loop over tokens", devices=ANY, packages=("mambapy",), install=PEERS),
    )


SPEC = MambaPySpec
