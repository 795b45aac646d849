"""Rows of different lengths in one tensor: each row's valid tokens stand first, and what stands behind them is a pad.

A pad influences nothing and gets no gradient, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def valid(lengths: Tensor, n_tokens: int) -> Tensor:
    """Which tokens are no pads, (batch, n_tokens)."""
    return torch.arange(n_tokens, device=lengths.device) < lengths[:, None]


def without_pads(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(batch, n_tokens, ...) with zeros, without a gradient, in place of pads."""
    if lengths is None:
        return x
    pads = ~valid(lengths.to(x.device), x.shape[1])
    if x.is_cpu and not torch.compiler.is_compiling():  # a fifth of the time of what reads the mask for each number
        return x.index_put(pads.nonzero(as_tuple=True), x.new_zeros(()))
    return x.masked_fill(pads.view(*pads.shape, *[1] * (x.dim() - 2)), 0.0)


def check_read(read: int | None) -> None:
    """Raise ValueError where of ragged rows another token than their last is to be read."""
    if read not in (None, -1):
        raise ValueError(f"rows of different lengths can be read only at their last token, -1, not at {read}")


def last(x: Tensor, lengths: Tensor, read: int = -1) -> Tensor:
    """Each row's last valid token of (batch, n_tokens, ...), as (batch, 1, ...)."""
    check_read(read)
    return token(x, lengths.to(x.device) - 1)


def token(x: Tensor, at: Tensor) -> Tensor:
    """The token ``at``, (1,) the same one of all rows or (batch,) each row's own, as (batch, 1, ...)."""
    if len(at) == 1:
        return x.index_select(1, at)
    return x.gather(1, at.view(-1, *[1] * (x.dim() - 1)).expand(-1, 1, *x.shape[2:]))


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each row's valid tokens from the last to the first; pads stay."""
    place, ends = torch.arange(x.shape[1], device=x.device), lengths.to(x.device)[:, None]
    from_end = torch.where(place < ends, ends - 1 - place, place)
    return x.gather(1, from_end.unsqueeze(-1).expand_as(x))


def without_looking_ahead(mix: Callable[[Tensor], Tensor], x: Tensor, read: int | None, lengths: Tensor) -> Tensor:
    """A causal mixer of full rows on ragged ones: no token sees the pads behind it, which need only be numbers."""
    y = mix(without_pads(x, lengths))
    return without_pads(y, lengths) if read is None else last(y, lengths, read)


def by_length(mix: Callable[[Tensor], Tensor], x: Tensor, read: int | None, lengths: Tensor) -> Tensor:
    """A mixer whose formula needs a row's own length: the rows of each length by themselves."""
    y, lengths = torch.zeros_like(x), lengths.to(x.device)
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero().squeeze(1)
        y[rows, :length] = mix(x[rows, :length])
    return y if read is None else last(y, lengths, read)


def groups(lengths: Tensor, worth: int) -> list[Tensor]:
    """Rows of like length together, longest first: a split is made where it spares at least ``worth`` pads."""
    ends, order = lengths.sort(descending=True, stable=True)
    found, todo = [], [(0, len(order))]
    while todo:
        first, end = todo.pop()
        spared = (ends[first] - ends[first:end]) * torch.arange(end - first, 0, -1)
        if end - first > 1 and spared.max() >= worth:
            middle = first + int(spared.argmax())
            todo += [(middle, end), (first, middle)]
        else:
            found.append(order[first:end])
    return found
