"""What a training step sees: every positive in turn, negatives that are none, the same for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from bench.data.dataset import TEST, TRAIN, DataSet, Table, interactions
from bench.training.pairs import Pairs, PairSampler


def data_set(
    pairs: list[tuple[int, int, float, int]], n_users: int = 4, n_items: int = 10, negatives: str = "sampled"
) -> DataSet:
    user, item, label, split = (np.array(part) for part in zip(*pairs, strict=True))
    return DataSet(
        name="toy",
        users=Table(frame=pd.DataFrame({"u": range(n_users)}), key="u"),
        items=Table(frame=pd.DataFrame({"i": range(n_items)}), key="i"),
        interactions=interactions(
            user, item, np.arange(len(user)), label.astype(np.float32), split.astype(np.int8)
        ),
        negatives=negatives,  # type: ignore[arg-type]
    )  # fmt: skip


LIKED = [(0, 1), (0, 2), (1, 1), (2, 3), (3, 9)]
DATA = data_set([*((u, i, 1, TRAIN) for u, i in LIKED), (0, 5, 0, TRAIN), (1, 7, 1, TEST)])


def take(sampler: PairSampler, n: int, size: int) -> Pairs:
    batches = list(itertools.islice(sampler.batches(size), n))
    assert all(len(batch) == size for batch in batches)
    return Pairs(*(np.concatenate([getattr(b, name) for b in batches]) for name in ("users", "items", "labels")))


def test_an_epoch_has_every_positive_once_and_its_negatives() -> None:
    pairs = take(PairSampler(DATA, negatives=3, seed=0), n=5, size=4)  # one epoch of 5 positives and 15 negatives
    positives = [(int(u), int(i)) for u, i, label in zip(pairs.users, pairs.items, pairs.labels, strict=True) if label]
    assert sorted(positives) == LIKED
    assert pairs.labels.sum() == 5
    negatives = np.bincount(pairs.users[pairs.labels == 0])
    assert negatives.tolist() == [6, 3, 3, 3]


def test_negatives_are_never_training_positives_and_cover_the_rest() -> None:
    pairs = take(PairSampler(DATA, negatives=5, seed=0), n=300, size=10)
    sampled = {
        (int(u), int(i)) for u, i, label in zip(pairs.users, pairs.items, pairs.labels, strict=True) if not label
    }
    assert not sampled & set(LIKED)
    # What was seen and not liked, and what will be liked in the test, may be drawn: training does not know the test.
    assert {(0, 5), (1, 7)} <= sampled
    assert len(sampled) == 4 * 10 - 5


def test_a_user_who_liked_everything_has_no_negatives() -> None:
    data = data_set([(0, i, 1, TRAIN) for i in range(3)], n_items=3)
    assert take(PairSampler(data, negatives=2, seed=0), n=2, size=3).labels.tolist() == [1.0] * 6


def test_same_seed_same_pairs() -> None:
    one, other, third = (take(PairSampler(DATA, negatives=2, seed=seed), n=9, size=7) for seed in (5, 5, 6))
    assert (one.items == other.items).all()
    assert (one.users == other.users).all()
    assert (one.items != third.items).any()


def test_fixed_pairs_are_gone_over_again_and_again() -> None:
    sampler = PairSampler(DATA, negatives=1, seed=0, fixed_pairs=8)
    epochs = [take(sampler, n=2, size=4) for _ in range(3)]
    as_sets = [sorted(zip(e.users.tolist(), e.items.tolist(), e.labels.tolist(), strict=True)) for e in epochs]
    assert as_sets[0] == as_sets[1] == as_sets[2]
    assert epochs[0].labels.sum() == 4


def test_observed_negatives_are_used_and_none_is_sampled() -> None:
    data = data_set([(0, 1, 1, TRAIN), (0, 2, 0, TRAIN), (1, 3, 0, TRAIN), (1, 4, 1, TEST)], negatives="observed")
    pairs = take(PairSampler(data, negatives=1, seed=0), n=1, size=3)
    assert sorted(zip(pairs.users.tolist(), pairs.items.tolist(), pairs.labels.tolist(), strict=True)) == [
        (0, 1, 1.0), (0, 2, 0.0), (1, 3, 0.0),
    ]  # fmt: skip
    alone = take(PairSampler(data, negatives=0, seed=0), n=2, size=1)  # as the softmax wants them
    assert alone.labels.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_batches_larger_than_an_epoch(size: int) -> None:
    take(PairSampler(DATA, negatives=1, seed=0), n=5, size=size)
