"""Mamba-1, the selective state space model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftmamba.ops import selective_scan
from ftmamba.spec import MixerSpec, Part, causal_filter, linear, parameter

SCAN_FLOPS = 7  # a state: dt*A, exp, *h, dt*x*B as multiply-add (2), C*h as multiply-add (2)
CHECKPOINT_EVERY = 32  # tokens between the states that a backward pass starts from


@dataclass(frozen=True, kw_only=True)
class MambaSpec(MixerSpec):
    """Mamba-1 as in arXiv 2312.00752, section 3.4; defaults are the paper's.

    Examples:
        >>> from ftmamba import MambaSpec
        >>> MambaSpec(d_state=32).d_inner(64)
        128
    """

    d_state: int = parameter(16, low=1, high=1024, about="states a channel (N)")
    d_conv: int = parameter(4, low=1, high=1024, about="taps of the causal convolution")
    expand: int = parameter(2, low=1, high=1024, about="width of the inner channels over d_model")

    name = "mamba"
    about = "Mamba-1, a selective state space model (FT-Mamba)"
    causal = True
    head_ffn = True
    backends = selective_scan.BACKENDS
    layer = "layer:MambaMixer"

    def d_inner(self, d_model: int) -> int:
        return self.expand * d_model

    def dt_rank(self, d_model: int) -> int:
        return math.ceil(d_model / 16)

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int | None:
        numbers = (self.d_conv - 1) * itemsize + self.d_state * max(itemsize, 4)
        return self.d_inner(d_model) * numbers if self.causal and not self.is_peer() else None

    def parts(self, d_model: int, n_tokens: int, n_read: int, *, first: bool) -> dict[str, Part]:
        inner, rank, state = self.d_inner(d_model), self.dt_rank(d_model), self.d_state
        width = 0 if self.backend == "numba" else n_tokens * inner  # one kernel may do the whole layer and keep nothing
        states = inner * state // (1 if self.backend == "reference" else CHECKPOINT_EVERY)
        tokens = n_tokens * d_model
        return {
            "norm": Part(inputs=tokens, outputs=tokens, params=2 * d_model, live=tokens),
            "in_proj": linear(d_model, (n_tokens, inner), (n_read, inner), live=2 * width),
            "causal_conv": causal_filter(inner, self.d_conv, n_tokens, live=width),
            "x_proj": linear(inner, (n_tokens, rank + state), (n_read, state)),
            "dt_proj": linear(rank, (n_tokens, inner), live=width),
            "selective_scan": Part(
                ((SCAN_FLOPS - 2) * n_tokens + 2 * n_read) * inner * state,
                exps=n_tokens * inner * state,
                inputs=n_tokens * (2 * inner + state) + n_read * (inner + state),
                outputs=n_read * inner,
                params=inner * (state + 2),
                live=width + n_tokens * states,
            ),
            "out_proj": linear(inner, (n_read, d_model), live=tokens),
        }


SPEC = MambaSpec
