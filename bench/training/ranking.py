"""Ranking the whole catalogue for many users, in blocks: memory does not grow with users times items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.baselines.known import Scorer
from bench.data.dataset import Ints
from bench.metrics.ranking import Positives

USER_BLOCK = 256
ITEM_BLOCK = 16_384


def inner_product(users: Tensor, items: Tensor) -> Scorer:
    """Scores of a two-tower model from the embeddings (n_users, d) and (n_items, d)."""
    return lambda user, item: users[user] @ items[item].T


@torch.inference_mode()
def top_items(score: Scorer, users: Ints, exclude: Positives, k: int) -> Ints:
    """The k best items of every user; of equal scores the item with the lower row number is better.

    Args:
        score: gives scores, higher is better.
        users: row numbers, (n_users,).
        exclude: pairs that must not be listed.
        k: length of a list.

    Returns:
        (n_users, k) item row numbers, best first; -1 where the catalogue has no more.

    Raises:
        ValueError: a score is not a number.
    """
    blocks = (slice(start, min(start + USER_BLOCK, len(users))) for start in range(0, len(users), USER_BLOCK))
    lists = [_top_of_block(score, block, users[block], exclude, k) for block in blocks]
    return np.concatenate(lists) if lists else np.empty((0, k), np.int64)


def _top_of_block(score: Scorer, block: slice, users: Ints, exclude: Positives, k: int) -> Ints:
    position, excluded = (torch.from_numpy(part) for part in exclude.of_users(users))
    best, index = torch.empty(len(users), 0), torch.empty(len(users), 0, dtype=torch.int64)
    for start in range(0, exclude.n_items, ITEM_BLOCK):
        stop = min(start + ITEM_BLOCK, exclude.n_items)
        scores = score(block, slice(start, stop)).float()
        here = (excluded >= start) & (excluded < stop)
        scores[position[here].to(scores.device), excluded[here].to(scores.device) - start] = -torch.inf
        block_best, block_index = stable_topk(scores, k)
        best = torch.cat([best, block_best.cpu()], dim=1)
        index = torch.cat([index, block_index.cpu() + start], dim=1)
        best, order = stable_topk(best, k)
        index = index.gather(1, order)
    if bool(torch.isnan(best).any()):
        raise ValueError("a score is not a number: the model has diverged")
    index = index.masked_fill(best == -torch.inf, -1)
    return torch.nn.functional.pad(index, (0, k - index.shape[1]), value=-1).numpy()


def stable_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Like ``torch.topk`` along the last of two axes, but among equal scores the lower index comes first.

    ``topk`` is right about all scores above the last one it returns; only rows where more entries tie for the last
    place than fit are sorted whole.
    """
    k = min(k, scores.shape[1])
    values, index = scores.topk(k, dim=1)
    # Bring equal values into the order of their index: sort by index first, then stably by value.
    index, order = index.sort(dim=1)
    values, by_value = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, by_value)
    tied = (scores >= values[:, -1:]).sum(dim=1) > k
    if bool(tied.any()):
        whole = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], index[tied] = whole.values[:, :k], whole.indices[:, :k]
    return values, index
