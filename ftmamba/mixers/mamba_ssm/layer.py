"""Peer: the Mamba layer of mamba_ssm, as its users run it on CUDA."""

from __future__ import annotations

from mamba_ssm import Mamba
from torch import Tensor

from ftmamba.mixers.mamba_ssm import MambaSSMSpec
from ftmamba.ragged import without_looking_ahead


class MambaSSMMixer(Mamba):  # type: ignore[misc]
    """See ``ftmamba.mixers``. Backends: ``fused`` (its one fused inner function) and ``unfused``."""

    def __init__(self, spec: MambaSSMSpec, d_model: int) -> None:
        super().__init__(
            d_model,
            d_state=spec.d_state,
            d_conv=spec.d_conv,
            expand=spec.expand,
            use_fast_path=spec.backend in ("auto", "fused"),
        )

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            return without_looking_ahead(self, x, read, lengths)
        y = super().forward(x)
        return y if read is None else y.narrow(1, read % x.shape[1], 1)  # type: ignore[no-any-return]
