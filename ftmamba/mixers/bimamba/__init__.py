"""Mamba in both directions."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.cost import total
from ftmamba.mixers.mamba import MambaSpec
from ftmamba.spec import Part


@dataclass(frozen=True, kw_only=True)
class BiMambaSpec(MambaSpec):
    """One Mamba-1 layer over the row and another over the reversed row, their outputs added (arXiv 2406.05661)."""

    name = "bimamba"
    about = "two Mamba-1 layers, one of them on the reversed row"
    causal = False
    layer = "layer:BiMambaMixer"

    def parts(self, d_model: int, n_tokens: int, n_read: int, *, first: bool) -> dict[str, Part]:
        forth = super().parts(d_model, n_tokens, n_read, first=first)
        back = super().parts(d_model, n_read, n_read, first=first)  # what [CLS] at an end of the row reads is itself
        return {name: forth[name] if name == "norm" else total((forth[name], back[name])) for name in forth}


SPEC = BiMambaSpec
