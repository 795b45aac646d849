"""FNet's mixing (Lee-Thorp et al., arXiv 2105.03824)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ftmamba.mixers.fnet import FNetSpec
from ftmamba.ragged import by_length


class FNetMixer(nn.Module):
    """Real part of the Fourier transform over tokens and width; the one token that is read is a sum over all.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: FNetSpec, d_model: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            return by_length(self, x, read, lengths)
        n_tokens = x.shape[1]
        if n_tokens < 1:
            raise ValueError("a Fourier transform needs at least one token")
        if not torch.compiler.is_compiling() and x.shape[0] == 0:  # which oneMKL refuses
            return x if read is None else x[:, :1]
        if read is None:
            return torch.fft.fft(torch.fft.fft(x, dim=-1), dim=1).real  # type: ignore[no-any-return]
        turns = torch.arange(n_tokens, device=x.device) * (read % n_tokens) % n_tokens
        angles = turns.to(x.dtype) * (-2 * math.pi / n_tokens)
        cosines, sines = (torch.einsum("btd,t->bd", x, each).unsqueeze(1) for each in (angles.cos(), angles.sin()))
        return torch.fft.fft(torch.complex(cosines, sines), dim=-1).real  # type: ignore[no-any-return]
