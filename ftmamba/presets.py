"""The two embedders of the FT-Mamba paper (arXiv 2409.17165).

It states their parameter counts (479,232 and 1,186,048, blocks alone); the widths below are the ones that give exactly
these counts, found by arithmetic.
"""

from __future__ import annotations

from ftmamba.mixers.attention import AttentionSpec
from ftmamba.mixers.mamba import MambaSpec
from ftmamba.spec import EncoderSpec

PRESETS: dict[str, EncoderSpec] = {
    "paper-mamba": EncoderSpec(mixer=MambaSpec(d_conv=16), d_model=128, n_layers=4),
    "paper-transformer": EncoderSpec(
        mixer=AttentionSpec(ffn_activation="relu", d_ffn=2048, first_norm=True), d_model=128, n_layers=2
    ),
}
