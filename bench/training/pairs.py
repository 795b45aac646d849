"""What a training step sees: pairs of users and items, liked ones and sampled ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.data.dataset import TRAIN, DataSet, Ints
from bench.metrics.ranking import Positives
from bench.plan.cell import Cell

Floats = npt.NDArray[np.float32]

PAPER_PAIRS = 160_000  # arXiv 2409.17165, section 4
RESAMPLINGS = 20


@dataclass(frozen=True)
class Pairs:
    """Some pairs: row numbers of users and items, and labels, all of shape (n,)."""

    users: Ints
    items: Ints
    labels: Floats

    def __len__(self) -> int:
        return len(self.users)

    def at(self, index: Ints) -> Pairs:
        return Pairs(self.users[index], self.items[index], self.labels[index])


class PairSampler:
    """Endless epochs of training pairs, the same for the same seed.

    Args:
        data: the training split of it is used.
        negatives: sampled a positive, uniformly over the catalogue, never one of the user's training positives. Zero
            gives the positives alone. Where the data set observed its negatives these are used, and none is sampled.
        seed: of order and negatives.
        fixed_pairs: when given, that many pairs are drawn once and every epoch goes over the same ones; else every
            epoch draws fresh negatives.
    """

    def __init__(self, data: DataSet, negatives: int, seed: int, fixed_pairs: int | None = None) -> None:
        self._random = np.random.default_rng(seed)
        self._n_items = data.items.n_rows
        self._observed = data.negatives == "observed"
        self._negatives = 0 if self._observed else negatives
        if self._observed and negatives:
            self._source = Pairs(*data.pairs(TRAIN))
        else:
            users, items = data.positives(TRAIN)
            self._source = Pairs(users, items, np.ones(len(users), np.float32))
        self._liked = Positives.of(*data.positives(TRAIN), data.users.n_rows, self._n_items)
        self._fixed = self._draw_fixed(fixed_pairs) if fixed_pairs is not None else None

    def __len__(self) -> int:
        """Pairs of an epoch; a few less where a user liked nearly everything."""
        return len(self._source) * (1 + self._negatives) if self._fixed is None else len(self._fixed)

    def batches(self, batch_size: int) -> Iterator[Pairs]:
        """Batches of exactly ``batch_size`` pairs, for ever; what is left of an epoch begins the next batch."""
        rest = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        while True:
            epoch = _joined(rest, self._epoch())
            whole = len(epoch) // batch_size * batch_size
            for start in range(0, whole, batch_size):
                yield epoch.at(np.arange(start, start + batch_size))
            rest = epoch.at(np.arange(whole, len(epoch)))

    def _epoch(self) -> Pairs:
        pairs = self._fixed if self._fixed is not None else self._with_negatives(self._source)
        return pairs.at(self._random.permutation(len(pairs)))

    def _draw_fixed(self, n_pairs: int) -> Pairs:
        """Positives in turn, each with its negatives, until there are ``n_pairs``."""
        n_sources = -(-n_pairs // (1 + self._negatives))
        order = np.concatenate(
            [self._random.permutation(len(self._source)) for _ in range(-(-n_sources // len(self._source)))]
        )
        pairs = self._with_negatives(self._source.at(order[:n_sources]))
        return pairs.at(self._random.permutation(len(pairs))[:n_pairs])

    def _with_negatives(self, positives: Pairs) -> Pairs:
        if not self._negatives:
            return positives
        users = np.repeat(positives.users, self._negatives)
        items = self._random.integers(self._n_items, size=len(users))
        for _ in range(RESAMPLINGS):
            liked = np.flatnonzero(self._liked.contains(users, items))
            if not len(liked):
                break
            items[liked] = self._random.integers(self._n_items, size=len(liked))
        keep = ~self._liked.contains(users, items)  # a user who liked nearly everything has few negatives
        users, items = users[keep], items[keep]
        return _joined(positives, Pairs(users, items, np.zeros(len(users), np.float32)))


def sampler_of(cell: Cell, data: DataSet) -> PairSampler:
    """The pairs that a cell is trained on."""
    fixed = PAPER_PAIRS if cell.protocol == "paper" else None
    return PairSampler(data, cell.get("negatives", 0), cell.seed, fixed)


def _joined(first: Pairs, second: Pairs) -> Pairs:
    return Pairs(
        np.concatenate([first.users, second.users]),
        np.concatenate([first.items, second.items]),
        np.concatenate([first.labels, second.labels]),
    )
