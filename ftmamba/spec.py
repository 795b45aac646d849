"""What a model is made of, as frozen data: hashable, printable, and free of torch.

Everything else (modules, analytic cost, sweep cells, reports) is derived from these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FeatureSpec:
    """The columns of one table: numeric ones first, then categorical ones.

    Attributes:
        n_numeric: count of numeric columns.
        cardinalities: rows of each categorical column's lookup table (unknown value included).

    Raises:
        ValueError: no column at all, or a count that cannot be.

    Examples:
        >>> from ftmamba import FeatureSpec
        >>> FeatureSpec(3, (10, 500)).n_tokens
        6
    """

    n_numeric: int
    cardinalities: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.n_numeric < 0 or any(c < 1 for c in self.cardinalities):
            raise ValueError(f"column counts and cardinalities must be positive, got {self}")
        if self.n_columns < 1:
            raise ValueError("a table needs at least one column")

    @property
    def n_columns(self) -> int:
        return self.n_numeric + len(self.cardinalities)

    @property
    def n_tokens(self) -> int:
        """One token a column, and the [CLS] token."""
        return self.n_columns + 1


@dataclass(frozen=True, kw_only=True)
class MambaSpec:
    """Mamba-1 as in arXiv 2312.00752, section 3.4; defaults are the paper's.

    Attributes:
        d_state: states a channel (N).
        d_conv: taps of the causal convolution.
        expand: width of the inner channels over d_model.
        backend: exact backend name of the selective scan, or ``auto``.

    Examples:
        >>> from ftmamba import MambaSpec
        >>> MambaSpec(d_state=32).d_inner(64)
        128
    """

    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    backend: str = "auto"

    name = "mamba"
    causal = True
    whole_block = False

    def d_inner(self, d_model: int) -> int:
        return self.expand * d_model

    def dt_rank(self, d_model: int) -> int:
        return math.ceil(d_model / 16)


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """Multi-head self-attention and a feed-forward layer, as in the FT-Transformer (arXiv 2106.11959).

    Attributes:
        n_heads: heads; d_model must be a multiple.
        ffn_activation: ``reglu`` (FT-Transformer) or ``relu`` (arXiv 1706.03762).
        d_ffn: hidden width of the feed-forward layer; None gives 4/3 of d_model with reglu, 4 times with relu,
            which cost the same number of parameters within rounding.
        first_norm: whether the first block normalises its input; the FT-Transformer does not.
        backend: exact backend name of attention, or ``auto``.

    Examples:
        >>> from ftmamba import AttentionSpec
        >>> AttentionSpec(n_heads=4).ffn_width(96)
        128
    """

    n_heads: int = 8
    ffn_activation: Literal["reglu", "relu"] = "reglu"
    d_ffn: int | None = None
    first_norm: bool = False
    backend: str = "auto"

    name = "attention"
    causal = False
    whole_block = False

    def ffn_width(self, d_model: int) -> int:
        if self.d_ffn is not None:
            return self.d_ffn
        return int(d_model * 4 / 3) if self.ffn_activation == "reglu" else 4 * d_model


@dataclass(frozen=True, kw_only=True)
class MambaPySpec(MambaSpec):
    """Peer: the same layer by mamba.py."""

    name = "mambapy"


@dataclass(frozen=True, kw_only=True)
class HFMambaSpec(MambaSpec):
    """Peer: the same layer by Hugging Face transformers."""

    name = "hf_mamba"


@dataclass(frozen=True, kw_only=True)
class MambaSSMSpec(MambaSpec):
    """Peer: the same layer by mamba_ssm."""

    name = "mamba_ssm"


@dataclass(frozen=True, kw_only=True)
class TorchTransformerSpec(AttentionSpec):
    """Peer: ``torch.nn.TransformerEncoderLayer``, norm first."""

    ffn_activation: Literal["reglu", "relu"] = "relu"
    first_norm: bool = True

    name = "torch_transformer"
    whole_block = True


MixerSpec = MambaSpec | AttentionSpec


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One tower: tokenizer, blocks, readout of [CLS], head.

    Attributes:
        mixer: the layer that mixes tokens, with its own settings.
        d_model: width of a token.
        n_layers: count of blocks.
        d_out: width of the tower's output; None means d_model.
        cls_position: where [CLS] stands; a causal mixer needs ``last``.
        last_layer: ``readout`` computes only the [CLS] token in the last block, ``full`` computes all tokens and
            reads one.
        dropout: share of the mixer's and of the feed-forward layer's output that each block sets to 0 in training.

    Raises:
        ValueError: settings that cannot be, alone or together.

    Examples:
        >>> from ftmamba import EncoderSpec, MambaSpec
        >>> EncoderSpec(mixer=MambaSpec(), d_model=128).output_width
        128
        >>> EncoderSpec(mixer=MambaSpec(), cls_position="first")
        Traceback (most recent call last):
        ValueError: mamba is causal: a [CLS] that stands first sees no feature; use cls_position='last'
    """

    mixer: MixerSpec
    d_model: int = 64
    n_layers: int = 4
    d_out: int | None = None
    cls_position: Literal["first", "last"] = "last"
    last_layer: Literal["readout", "full"] = "readout"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.d_model < 1 or self.n_layers < 1:
            raise ValueError(f"d_model and n_layers must be positive, got {self.d_model} and {self.n_layers}")
        if isinstance(self.mixer, AttentionSpec) and self.d_model % self.mixer.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.mixer.n_heads}")
        if self.mixer.causal and self.cls_position == "first":
            raise ValueError(
                f"{self.mixer.name} is causal: a [CLS] that stands first sees no feature; use cls_position='last'"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share from 0 to below 1, got {self.dropout}")
        if self.dropout and self.mixer.whole_block:
            raise ValueError(f"{self.mixer.name} is a whole block of another library, which takes no dropout here")

    @property
    def output_width(self) -> int:
        return self.d_model if self.d_out is None else self.d_out


MIXERS: dict[str, type[MixerSpec]] = {
    spec.name: spec for spec in (MambaSpec, AttentionSpec, MambaPySpec, HFMambaSpec, MambaSSMSpec, TorchTransformerSpec)
}

# The two embedders of the FT-Mamba paper (arXiv 2409.17165). It states their parameter counts (479,232 and 1,186,048,
# blocks alone); the widths below are the ones that give exactly these counts, found by arithmetic.
PRESETS: dict[str, EncoderSpec] = {
    "paper-mamba": EncoderSpec(mixer=MambaSpec(d_conv=16), d_model=128, n_layers=4),
    "paper-transformer": EncoderSpec(
        mixer=AttentionSpec(ffn_activation="relu", d_ffn=2048, first_norm=True), d_model=128, n_layers=2
    ),
}
