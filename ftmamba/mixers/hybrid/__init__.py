"""Different mixers in different layers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ftmamba import mixers
from ftmamba.backends import ANY, Backend, Backends
from ftmamba.spec import EncoderSpec, MixerSpec, parameter


@dataclass(frozen=True, kw_only=True)
class HybridSpec(MixerSpec):
    """A mixer for each layer, over and over (Jamba, arXiv 2403.19887); a block that is measured alone is the first.

    Examples:
        >>> from ftmamba.mixers import find
        >>> hybrid = find("hybrid")(layers="mamba(d_state=8;expand=1)+attention")
        >>> [each.name for each in hybrid.kinds()]
        ['mamba', 'attention']
    """

    layers: str = parameter(
        "mamba+mamba+attention", about="mixers of the layers, repeated: mamba(d_state=8;expand=1)+attention"
    )

    name = "hybrid"
    about = "a mixer for each layer, such as mamba+mamba+attention"
    backends = Backends(
        __name__,
        Backend(name="preferred", about="each layer's preferred backend", devices=ANY),
        Backend(name="reference", about="each layer's reference", devices=ANY),
    )
    layer = "layer:first"

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether the last layer, which [CLS] is read from, is."""
        return self.kinds()[-1].causal

    @property
    def head_ffn(self) -> bool:  # type: ignore[override]
        return self.kinds()[-1].head_ffn

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kinds()

    def kinds(self) -> list[MixerSpec]:
        """One spec a layer, of the first period.

        Raises:
            ValueError: a layer that is no mixer of ours, or cannot be so.
        """
        backend = "reference" if self.backend == "reference" else "auto"
        found = []
        for text in self.layers.split("+"):
            name, params = mixers.parse(re.sub(r"[(;]", ":", text.removesuffix(")")))
            if name == self.name or mixers.find(name).is_peer():
                raise ValueError(f"a layer of a hybrid is one of our mixers, got {ascii(text)[:80]}")
            found.append(replace(mixers.find(name)(**params), backend=backend))
        return found

    def at(self, layer: int, tower: EncoderSpec) -> MixerSpec:
        self.backends.usable_on(self.backend, ("cpu", "cuda"))
        return self.kinds()[layer % self.period()].at(layer, tower)

    def period(self) -> int:
        return self.layers.count("+") + 1


SPEC = HybridSpec
