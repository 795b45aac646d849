"""Peer: the Mamba layer of mamba.py, as its users run it."""

from __future__ import annotations

from mambapy.mamba import MambaBlock, MambaConfig
from torch import Tensor

from ftmamba.mixers.mambapy import MambaPySpec
from ftmamba.ragged import without_looking_ahead


class MambaPyMixer(MambaBlock):  # type: ignore[misc]
    """See ``ftmamba.mixers``. Backends: ``pscan`` (parallel scan) and ``sequential``. Computes every token."""

    def __init__(self, spec: MambaPySpec, d_model: int) -> None:
        super().__init__(
            MambaConfig(
                d_model=d_model,
                n_layers=1,
                d_state=spec.d_state,
                d_conv=spec.d_conv,
                expand_factor=spec.expand,
                pscan=spec.backend in ("auto", "pscan"),
            )
        )

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            return without_looking_ahead(self, x, read, lengths)
        y = super().forward(x)
        return y if read is None else y.narrow(1, read % x.shape[1], 1)  # type: ignore[no-any-return]
