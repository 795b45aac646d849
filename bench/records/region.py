"""Region: a named part of a step, which time and memory are counted for."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

Phase = Literal["forward", "backward", "update"]
PHASES: tuple[str, ...] = get_args(Phase)
TOWERS = ("user", "content")

# What a table calls the regions that it adds up, in the order in which a step meets them. A ``*_proj`` is a projection.
GROUPS = {
    "tokenizer": "tokenizer",
    "norm": "norm",
    "projections": "projections",
    "causal_conv": "convolution",
    "conv1d": "convolution",
    "selective_scan": "scan",
    "mamba_layer": "fused layer",
    "attention": "attention",
    "mixer": "rest of mixer",
    "block": "block",
    "feed_forward": "feed-forward",
    "linear1": "feed-forward",
    "linear2": "feed-forward",
    "residual": "residual",
    "readout": "readout",
    "head": "head",
    "scoring": "scoring",
    "loss": "loss",
    "other": "other",
    "optimizer": "optimizer",
}


@dataclass(frozen=True, kw_only=True)
class Region:
    """One part of a step.

    Attributes:
        name: of the part, such as ``in_proj`` or ``selective_scan``.
        phase: pass that it is in; ``update`` is the optimizer's.
        tower: ``user`` or ``content`` in a two-tower step, else empty.
        block: index of the block, or None outside the blocks.
    """

    name: str
    phase: Phase = "forward"
    tower: str = ""
    block: int | None = None

    @functools.cached_property
    def backward(self) -> Region:
        """Where this region's gradients are computed."""
        return replace(self, phase="backward")

    @functools.cache  # noqa: B019 (there are few regions, and they are met again and again)
    def inner(self, name: str) -> Region:
        """The region of that name at the same place."""
        return replace(self, name=name)

    @property
    def group(self) -> str:
        """What a table that adds up blocks and projections calls it."""
        return GROUPS.get("projections" if self.name.endswith("_proj") else self.name, self.name)

    def __str__(self) -> str:
        """``backward/user/blocks.0/in_proj``"""
        block = "" if self.block is None else f"blocks.{self.block}"
        return "/".join(part for part in (self.phase, self.tower, block, self.name) if part)

    @classmethod
    def parse(cls, text: str) -> Region:
        """The region that ``str`` wrote.

        Raises:
            ValueError: not a region.
        """
        match = re.fullmatch(rf"({'|'.join(PHASES)})/(?:({'|'.join(TOWERS)})/)?(?:blocks\.(\d+)/)?([^/]+)", text)
        if match is None:
            raise ValueError(f"not a region: {ascii(text)[:80]}")
        phase, tower, block, name = match.groups()
        return cls(name=name, phase=phase, tower=tower or "", block=None if block is None else int(block))  # type: ignore[arg-type]
