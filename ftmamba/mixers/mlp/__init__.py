"""No mixing: every token has a feed-forward layer of its own, and the last block reads the mean of all."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, Backend, Backends
from ftmamba.mixers.attention import TransformerSpec
from ftmamba.mixers.mean import MeanSpec
from ftmamba.spec import EncoderSpec, MixerSpec, Part


@dataclass(frozen=True, kw_only=True)
class MLPSpec(TransformerSpec):
    """The tower without mixing. In its last block stands ``mean``, without which [CLS] would see no feature."""

    name = "mlp"
    about = "no mixing but the mean of all tokens in the last block"
    backends = Backends(__name__, Backend(name="reference", about="plain torch", devices=ANY))
    layer = "layer:NoMixer"

    def at(self, layer: int, tower: EncoderSpec) -> MixerSpec:
        if layer < tower.n_layers - 1:
            return self
        return MeanSpec(
            backend=self.backend, ffn_activation=self.ffn_activation, d_ffn=self.d_ffn, first_norm=self.first_norm
        )

    def normed(self, first: bool) -> bool:
        return False

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        return {}


SPEC = MLPSpec
