"""Widths that give two mixers the same number of parameters."""

from __future__ import annotations

from dataclasses import replace

from ftmamba.cost import encoder_params
from ftmamba.spec import MIXERS, AttentionSpec, EncoderSpec, FeatureSpec

ONE_COLUMN = FeatureSpec(1)  # lookup tables are alike in all towers of one width; what is matched is the rest
MATCHES = ("depth", "params")
TOLERANCE = 0.02


def quality_spec(mixer: str, backend: str, *, n_layers: int, d_model: int, d_ffn: int | None) -> EncoderSpec:
    """A tower of a quality cell.

    Raises:
        ValueError: a tower that cannot be, such as a d_model that the heads do not divide.
    """
    kind = MIXERS[mixer]
    settings = AttentionSpec(backend=backend, d_ffn=d_ffn) if kind is AttentionSpec else kind(backend=backend)
    return EncoderSpec(mixer=settings, d_model=d_model, n_layers=n_layers)


def matched_d_ffn(*, n_layers: int, d_model: int) -> int:
    """Width of attention's feed-forward layer at which its tower has as many parameters as Mamba's.

    Raises:
        ValueError: no width comes within 2 %.
    """
    wanted = encoder_params(quality_spec("mamba", "auto", n_layers=n_layers, d_model=d_model, d_ffn=None), ONE_COLUMN)
    base = quality_spec("attention", "auto", n_layers=n_layers, d_model=d_model, d_ffn=1)
    assert isinstance(base.mixer, AttentionSpec)
    params = [
        encoder_params(replace(base, mixer=replace(base.mixer, d_ffn=width)), ONE_COLUMN) for width in (1, 2)
    ]  # it grows by the same number with every unit of width
    width = max(1, 1 + round((wanted - params[0]) / (params[1] - params[0])))
    found = params[0] + (width - 1) * (params[1] - params[0])
    if abs(found - wanted) > TOLERANCE * wanted:
        raise ValueError(
            f"no width of attention's feed-forward layer gives the {wanted:,} parameters of Mamba within 2 % "
            f"at {n_layers} layers and d_model {d_model}; the closest has {found:,}"
        )
    return width
