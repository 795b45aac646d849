"""Losses of a batch of embedded pairs, one function each, listed in ``LOSSES``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class EmbeddedPairs(NamedTuple):
    """A batch after the towers.

    Attributes:
        users: (B, d).
        items: (B, d).
        labels: (B,), 1 liked, 0 not.
        item_rows: row number of each item, (B,).
        log_q: log of the probability that a random training positive has this item, (B,).

    Examples:
        >>> import torch
        >>> from ftmamba import EmbeddedPairs
        >>> log_q = torch.log(torch.tensor([0.75, 0.25]))
        >>> pairs = EmbeddedPairs(torch.eye(2), 2 * torch.eye(2), torch.ones(2), torch.tensor([7, 3]), log_q)
        >>> pairs.scores
        tensor([2., 2.])
    """

    users: Tensor
    items: Tensor
    labels: Tensor
    item_rows: Tensor
    log_q: Tensor

    @property
    def scores(self) -> Tensor:
        """Inner products, pair by pair, (B,)."""
        return (self.users * self.items).sum(-1)


def mse(pairs: EmbeddedPairs) -> Tensor:
    """Mean squared error of the score against the label, as in arXiv 2409.17165.

    Examples:
        >>> import torch
        >>> from ftmamba import EmbeddedPairs
        >>> from ftmamba.losses import mse
        >>> users, items, labels = torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([1.0])
        >>> mse(EmbeddedPairs(users, items, labels, torch.tensor([0]), torch.zeros(1)))
        tensor(4.)
    """
    return F.mse_loss(pairs.scores, pairs.labels)


def bce(pairs: EmbeddedPairs) -> Tensor:
    """Mean logistic loss of the score.

    Examples:
        >>> import torch
        >>> from ftmamba import EmbeddedPairs
        >>> from ftmamba.losses import bce
        >>> users, items, labels = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([1.0])
        >>> bce(EmbeddedPairs(users, items, labels, torch.tensor([0]), torch.zeros(1)))  # log 2
        tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(pairs.scores, pairs.labels)


def softmax(pairs: EmbeddedPairs, first: int = 0) -> Tensor:
    """Cross-entropy of each positive against the catalogue, whose other items the batch stands for.

    The other pairs' items come as often as they are liked, so each counts ``1 / ((B - 1) q)``: their sum is then an
    unbiased estimate of the sum over the catalogue without the positive (log-Q correction: Bengio and Senecal, 2008;
    Yi et al., RecSys 2019, doi 10.1145/3298689.3346996). The positive itself was not drawn, and counts as it is;
    where another pair has the same item, that is no negative. Labels are not looked at.

    Args:
        pairs: a batch, or the users of some consecutive pairs of it with the items of all.
        first: which item belongs to the first of the users.

    Raises:
        ValueError: less than two pairs.

    Examples:
        >>> import torch
        >>> from ftmamba import EmbeddedPairs
        >>> from ftmamba.losses import softmax
        >>> log_q = torch.log(torch.tensor([0.5, 0.5]))
        >>> pairs = EmbeddedPairs(torch.zeros(2, 4), torch.zeros(2, 4), torch.ones(2), torch.tensor([7, 3]), log_q)
        >>> softmax(pairs)  # log (1 + 1 / 0.5)
        tensor(1.0986)
    """
    n, own = len(pairs.items), slice(first, first + len(pairs.users))
    if n < 2:
        raise ValueError("softmax needs at least two pairs: the negatives of one are the items of the others")
    scores = pairs.users @ pairs.items.T
    logits = scores - pairs.log_q - math.log(n - 1)
    logits = logits.masked_fill(pairs.item_rows[own, None] == pairs.item_rows, -torch.inf)
    logits.diagonal(first).copy_(scores.diagonal(first))
    return F.cross_entropy(logits, torch.arange(n, device=logits.device)[own])


LOSSES: dict[str, Callable[[EmbeddedPairs], Tensor]] = {"mse": mse, "bce": bce, "softmax": softmax}
