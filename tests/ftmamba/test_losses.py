"""Losses against values worked out one by one."""

from __future__ import annotations

import math

import pytest
import torch

from ftmamba.losses import LOSSES, EmbeddedPairs


def pairs() -> EmbeddedPairs:
    generator = torch.Generator().manual_seed(0)
    return EmbeddedPairs(
        users=torch.randn(4, 3, generator=generator, dtype=torch.float64),
        items=torch.randn(4, 3, generator=generator, dtype=torch.float64),
        labels=torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64),
        item_rows=torch.tensor([7, 2, 7, 5]),
        log_q=torch.log(torch.tensor([0.5, 0.3, 0.5, 0.2], dtype=torch.float64)),
    )


def test_mse_and_bce() -> None:
    batch = pairs()
    scores = [float(u @ i) for u, i in zip(batch.users, batch.items, strict=True)]
    labels = batch.labels.tolist()
    assert float(LOSSES["mse"](batch)) == pytest.approx(
        sum((s - y) ** 2 for s, y in zip(scores, labels, strict=True)) / 4
    )
    logistic = [math.log1p(math.exp(-s)) if y else math.log1p(math.exp(s)) for s, y in zip(scores, labels, strict=True)]
    assert float(LOSSES["bce"](batch)) == pytest.approx(sum(logistic) / 4)


def test_softmax_by_hand() -> None:
    """The positive as it is; every other item over how often it would come among the three others."""
    batch = pairs()
    total = 0.0
    for row in range(4):
        scores = [float(batch.users[row] @ item) for item in batch.items]
        others = [
            math.exp(scores[column]) / (3 * math.exp(float(batch.log_q[column])))
            for column in range(4)
            if batch.item_rows[column] != batch.item_rows[row]
        ]
        total += math.log(math.exp(scores[row]) + sum(others)) - scores[row]
    assert float(LOSSES["softmax"](batch)) == pytest.approx(total / 4)


def test_softmax_learns_how_often_items_are_liked() -> None:
    """With one user and log-Q correction the best scores are the log frequencies, whatever the batch's items."""
    frequency = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([scores], lr=0.03)
    for _ in range(400):
        rows = torch.multinomial(frequency, 64, replacement=True, generator=generator)
        batch = EmbeddedPairs(
            torch.ones(64, 1, dtype=torch.float64), scores[rows, None], torch.ones(64), rows, frequency.log()[rows]
        )
        optimizer.zero_grad()
        LOSSES["softmax"](batch).backward()
        optimizer.step()
    learned = torch.softmax(scores.detach(), 0)
    assert learned.tolist() == pytest.approx(frequency.tolist(), abs=0.05)
