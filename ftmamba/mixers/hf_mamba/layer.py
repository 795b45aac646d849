"""Peer: the Mamba layer of Hugging Face transformers, as its users run it."""

from __future__ import annotations

from torch import Tensor
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from ftmamba.mixers.hf_mamba import HFMambaSpec
from ftmamba.ragged import without_looking_ahead


class HFMambaMixer(MambaMixer):
    """See ``ftmamba.mixers``. Backends: ``sequential`` and ``mambapy`` (its scan). Computes every token."""

    def __init__(self, spec: HFMambaSpec, d_model: int) -> None:
        config = MambaConfig(
            hidden_size=d_model,
            state_size=spec.d_state,
            conv_kernel=spec.d_conv,
            expand=spec.expand,
            num_hidden_layers=1,
            use_mambapy=spec.backend == "mambapy",
        )
        super().__init__(config, 0)

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            return without_looking_ahead(self, x, read, lengths)
        # Versions that have this choose mamba_ssm's kernels in ``forward`` where these are installed.
        y = getattr(self, "slow_forward", super().forward)(x)
        return y if read is None else y.narrow(1, read % x.shape[1], 1)  # type: ignore[no-any-return]
