"""Mamba-2: a state space model whose states decay alike in each head."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftmamba.backends import ANY, NUMBA, Backend, Backends
from ftmamba.spec import MixerSpec, Part, causal_filter, linear, parameter

EPS = 1e-5  # of the gated norm


@dataclass(frozen=True, kw_only=True)
class Mamba2Spec(MixerSpec):
    """Mamba-2 as in arXiv 2405.21060, sections 6 and 7, with one group of B and C; defaults are its authors'."""

    d_state: int = parameter(128, low=1, high=1024, about="states a channel (N)")
    d_conv: int = parameter(4, low=1, high=1024, about="taps of the causal convolution")
    expand: int = parameter(2, low=1, high=1024, about="width of the inner channels over d_model")
    d_head: int = parameter(64, low=1, high=1024, about="channels of a head; expand * d_model must be a multiple")
    chunk: int = parameter(64, low=1, high=4096, about="tokens that are weighed pair by pair")

    name = "mamba2"
    about = "Mamba-2, a state space model by matrix products (SSD)"
    causal = True
    head_ffn = True
    layer = "layer:Mamba2Mixer"
    backends = Backends(
        __name__,
        replace(NUMBA, about="our CPU kernel; a token that is read alone by matrix products"),
        Backend(name="chunked", about="matrix products over chunks of tokens", devices=ANY),
        Backend(name="reference", about="plain torch, a loop over tokens", devices=ANY),
    )

    def check(self, d_model: int) -> None:
        if self.d_inner(d_model) % self.d_head:
            raise ValueError(f"expand * d_model, {self.d_inner(d_model)}, is not a multiple of d_head {self.d_head}")

    def d_inner(self, d_model: int) -> int:
        return self.expand * d_model

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int:
        inner = self.d_inner(d_model)
        return ((inner + 2 * self.d_state) * (self.d_conv - 1) + inner * self.d_state) * itemsize

    def parts(self, d_model: int, n_tokens: int, n_read: int, *, first: bool) -> dict[str, Part]:
        inner, state, tokens = self.d_inner(d_model), self.d_state, n_tokens * d_model
        heads, mixed = inner // self.d_head, inner + 2 * state
        pairs = min(self.chunk, n_tokens) if n_read > 1 and self.backend != "reference" else 0
        return {
            "norm": Part(inputs=tokens, outputs=tokens, params=2 * d_model, live=tokens),
            "in_proj": linear(d_model, (n_tokens, mixed + heads), (n_read, inner), live=n_tokens * (mixed + inner)),
            "causal_conv": causal_filter(mixed, self.d_conv, n_tokens),
            "mixer": Part(
                2 * (n_tokens + n_read) * inner * state + 2 * n_read * pairs * (state + inner),
                exps=n_tokens * heads * (1 + pairs),
                inputs=n_tokens * mixed + n_read * inner,
                outputs=n_read * inner,
                params=3 * heads + inner,
                live=n_tokens * (inner + (inner * state // self.chunk if self.backend == "numba" else heads * pairs)),
            ),
            "out_proj": linear(inner, (n_read, d_model), live=tokens),
        }


SPEC = Mamba2Spec
