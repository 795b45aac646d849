"""Ranking the catalogue in blocks: the same as sorting the whole matrix, ties in a stated order, bounded in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics.ranking import Positives
from bench.training import ranking
from bench.training.ranking import inner_product, stable_topk, top_items


def no_pairs(n_users: int, n_items: int) -> Positives:
    return Positives.of(np.empty(0, np.int64), np.empty(0, np.int64), n_users, n_items)


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(1, 9))
def test_equal_scores_keep_the_order_of_their_index(rows: list[list[int]], k: int) -> None:
    values, index = stable_topk(torch.tensor(rows, dtype=torch.float32), k)
    for row, found, at in zip(rows, values.tolist(), index.tolist(), strict=True):
        expected = sorted(range(7), key=lambda i: (-row[i], i))[:k]
        assert at == expected
        assert found == [row[i] for i in expected]


@pytest.mark.parametrize(("user_block", "item_block"), [(3, 5), (100, 100)])
def test_blocks_give_what_the_whole_matrix_gives(
    monkeypatch: pytest.MonkeyPatch, user_block: int, item_block: int
) -> None:
    monkeypatch.setattr(ranking, "USER_BLOCK", user_block)
    monkeypatch.setattr(ranking, "ITEM_BLOCK", item_block)
    random = np.random.default_rng(0)
    users, items = random.integers(-2, 3, (7, 2)), random.integers(-2, 3, (23, 2))  # many ties
    rows = np.array([4, 0, 9, 2, 7, 1, 5])
    pairs = Positives.of(random.integers(0, 10, 60), random.integers(0, 23, 60), 10, 23)
    found = top_items(inner_product(torch.tensor(users).float(), torch.tensor(items).float()), rows, pairs, 6)
    for position, row in enumerate(rows):
        scores = items @ users[position]
        allowed = [i for i in range(23) if not pairs.contains(np.array([row]), np.array([i]))[0]]
        assert found[position].tolist() == sorted(allowed, key=lambda i: (-scores[i], i))[:6]


def test_short_catalogue_is_filled_up() -> None:
    pairs = Positives.of(np.array([0]), np.array([1]), 1, 3)
    scores = torch.tensor([[1.0, 5.0, 2.0]])
    assert top_items(lambda u, i: scores[u, i], np.array([0]), pairs, 5).tolist() == [[2, 0, -1, -1, -1]]


def test_a_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a number"):
        top_items(lambda u, i: torch.full((1, 3), torch.nan), np.array([0]), no_pairs(1, 3), 2)


def test_large_catalogue_is_never_held_whole() -> None:
    n_users, n_items = 1000, 100_000
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 128, generator=generator) for n in (n_users, n_items))
    largest = 0

    def score(user: slice, item: slice) -> torch.Tensor:
        nonlocal largest
        block = users[user] @ items[item].T
        largest = max(largest, block.numel() * 4)
        return block

    found = top_items(score, np.arange(n_users), no_pairs(n_users, n_items), 10)
    assert largest <= 32 * 2**20  # the whole matrix would be 400 MB
    few = users[:20].double() @ items.double().T
    assert found[:20].tolist() == few.topk(10).indices.tolist()
