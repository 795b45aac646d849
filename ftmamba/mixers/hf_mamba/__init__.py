"""Peer: the Mamba layer of Hugging Face transformers."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, PEERS, Backend, Backends
from ftmamba.mixers.mamba import MambaSpec


@dataclass(frozen=True, kw_only=True)
class HFMambaSpec(MambaSpec):
    """The same layer by Hugging Face transformers."""

    name = "hf_mamba"
    about = "peer: Mamba-1 by Hugging Face transformers"
    peer_of = "mamba"
    layer = "layer:HFMambaMixer"
    backends = Backends(
        __name__,
        Backend(name="sequential", about="loop over tokens", devices=ANY, packages=("transformers",), install=PEERS),
        Backend(
            name="mambapy",
            about="the scan of mamba.py",
            devices=ANY,
            packages=("transformers", "mambapy"),
            install=PEERS,
        ),
    )


SPEC = HFMambaSpec
