"""Pre-norm residual blocks and their feed-forward layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ftmamba.mixers import build_mixer
from ftmamba.ragged import last, without_pads
from ftmamba.spec import Activation, MixerSpec


class FeedForward(nn.Module):
    """Two linear layers, applied to every token alone.

    ``reglu`` gates one half of the hidden layer by the ReLU of the other (Shazeer, arXiv 2002.05202; used in
    arXiv 2106.11959); ``relu`` is the layer of arXiv 1706.03762.

    Shape:
        (..., d_model) -> (..., d_model).
    """

    def __init__(self, d_model: int, d_hidden: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.expand = nn.Linear(d_model, 2 * d_hidden if activation == "reglu" else d_hidden)
        self.contract = nn.Linear(d_hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.expand(x)
        if self.activation == "reglu":
            value, gate = hidden.chunk(2, dim=-1)
            return self.contract(value * gate.relu())  # type: ignore[no-any-return]
        return self.contract(hidden.relu())  # type: ignore[no-any-return]


class Block(nn.Module):
    """``x + mixer(norm(x))`` and, where the mixer has a feed-forward layer, ``x + ffn(norm(x))``.

    With ``post_norm`` the norms stand behind the sums: ``norm(x + mixer(x))`` and ``norm(x + ffn(x))``.

    Args:
        spec: the mixer.
        d_model: width of a token.
        n_tokens: tokens of a row; only mixers whose weights belong to their number ask for it.
        first: the first block of the tower; the FT-Transformer's does not normalise its input.
        dropout: share of the mixer's and of the feed-forward layer's output that is set to 0 in training.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given. ``lengths`` (batch,) are
        those of ragged rows, as in ``ftmamba.mixers``; their pads must hold numbers here.
    """

    def __init__(
        self, spec: MixerSpec, d_model: int, n_tokens: int, *, first: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.mixer_norm = nn.LayerNorm(d_model) if spec.normed(first) else nn.Identity()
        self.sum_norm = nn.LayerNorm(d_model) if spec.post_norm else None
        self.mixer = build_mixer(spec, d_model, n_tokens)
        self.ffn: FeedForward | None = None
        if (ffn := spec.ffn(d_model)) is not None:
            self.ffn_norm = nn.LayerNorm(d_model)
            self.ffn = FeedForward(d_model, *ffn)

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        normed = self.mixer_norm(x)
        residual = x = x if self.sum_norm is None else normed
        if read is not None:
            residual = x.select(1, read).unsqueeze(1) if lengths is None else last(x, lengths, read)
        ragged = {} if lengths is None else {"lengths": lengths}  # of which a user's mixer need not know
        return self._finish(residual, self.mixer(normed, read, **ragged))

    def prefill(self, x: Tensor, lengths: Tensor, room: int | None) -> tuple[Tensor, Any]:
        """``forward`` of ragged rows, and the mixer's state behind each; ``room`` as for ``start``."""
        normed = self.mixer_norm(x)
        if x.shape[1] == 0:
            return x, self.mixer.start(len(x), room)  # type: ignore[operator]
        mixed, state = self.mixer.prefill(without_pads(normed, lengths), lengths, room)  # type: ignore[operator]
        return self._finish(x if self.sum_norm is None else normed, mixed), state

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One token more, (batch, 1, d_model), from the mixer's state: its output, and the state behind it."""
        normed = self.mixer_norm(x)
        mixed, state = self.mixer.step(normed, state)  # type: ignore[operator]
        return self._finish(x if self.sum_norm is None else normed, mixed), state

    def peek(self, x: Tensor, state: Any) -> Tensor:
        """The output of ``step`` alone; the state stays as it is."""
        normed = self.mixer_norm(x)
        return self._finish(x if self.sum_norm is None else normed, self.mixer.peek(normed, state))  # type: ignore[operator]

    def _finish(self, residual: Tensor, mixed: Tensor) -> Tensor:
        x = residual + self._drop(mixed)
        if self.sum_norm is not None:
            x = self.sum_norm(x)
            return x if self.ffn is None else self.ffn_norm(x + self._drop(self.ffn(x)))  # type: ignore[no-any-return]
        if self.ffn is not None:
            x = x + self._drop(self.ffn(self.ffn_norm(x)))
        return x

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x


def build_block(
    spec: MixerSpec, d_model: int, n_tokens: int = 64, *, first: bool = False, dropout: float = 0.0
) -> nn.Module:
    """A ``Block`` around the mixer, or a peer's layer that is a whole block by itself."""
    if spec.whole_block:
        return build_mixer(spec, d_model, n_tokens)
    return Block(spec, d_model, n_tokens, first=first, dropout=dropout)
