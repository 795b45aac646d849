"""Training on pairs: what a step of the two towers sees, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines.known import item_popularity
from bench.data.dataset import DataSet
from bench.plan.cell import Cell
from bench.training import ranks
from bench.training.loop import Step, Stepper, Trainer
from bench.training.pairs import Pairs, sampler_of
from bench.training.search import Budget, Trial
from bench.training.towers import Encoded, Model, build
from ftmamba.columns import UNSEEN
from ftmamba.features import FeatureBatch
from ftmamba.losses import LOSSES, EmbeddedPairs, softmax


class PairTrainer(Trainer):
    """Trains two towers on the training split of a data set, whose tables are ``encoded``; see ``Trainer``."""

    def __init__(
        self, cell: Cell, data: DataSet, encoded: Encoded, budget: Budget, validate: Callable[[Model], float] | None,
        saved: Path | None = None, *, graphed: Callable[[Step], Step] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(cell, budget, validate, saved, graphed)
        self.data, self.encoded = data, encoded
        popularity = item_popularity(data)
        share = np.maximum(popularity, 1) / popularity.sum()
        self.log_q = torch.from_numpy(np.log(share)).to(cell.device, encoded.items.numeric.dtype)

    def fresh(self, dropout: float) -> Model:
        return build(self.cell, self.encoded, dropout)

    def stepper(self, model: Model, trial: Trial) -> PairStepper:
        return PairStepper(self, model, trial)


@dataclass(frozen=True)
class Batch:
    """Pairs of one step, in tensors that stay where they are: row numbers, labels, and whose ids are hidden; (B,)."""

    users: Tensor
    items: Tensor
    labels: Tensor
    hidden_users: Tensor
    hidden_items: Tensor


class PairStepper(Stepper):
    """A step on a batch of pairs."""

    def __init__(self, trainer: PairTrainer, model: Model, trial: Trial) -> None:
        cell = trainer.cell
        super().__init__(trainer, model, trial, sampler_of(cell, trainer.data).batches(cell.batch_size))
        self._towers, self._encoded, self._log_q = ranks.joined(BothTowers(model)), trainer.encoded, trainer.log_q
        self._part = ranks.part(cell.batch_size)
        self._hidden_share = cell.get("id_dropout", 0.0)
        self._loss_of = LOSSES[cell.loss]
        rows, flags = torch.zeros(cell.batch_size, dtype=torch.long), torch.zeros(cell.batch_size, dtype=torch.bool)
        own = (rows, rows, rows.to(self._log_q.dtype), flags, flags)
        self._batch = Batch(*(each.clone().to(cell.device) for each in own))

    def fill(self, pairs: Pairs) -> None:
        batch, encoded = self._batch, self._encoded
        for name in ("users", "items", "labels"):
            getattr(batch, name).copy_(torch.from_numpy(getattr(pairs, name)))
        for hidden, ids in ((batch.hidden_users, encoded.user_ids), (batch.hidden_items, encoded.item_ids)):
            if ids and self._hidden_share:
                chances = torch.rand(len(hidden), generator=self._generator, device=hidden.device)
                torch.lt(chances, self._hidden_share, out=hidden)

    def loss(self) -> Tensor:
        encoded = self._encoded
        batch = Batch(*(getattr(self._batch, each.name)[self._part] for each in fields(Batch)))
        users, items = encoded.users.rows(batch.users), encoded.items.rows(batch.items)
        if encoded.user_ids:
            users = hide_ids(users, batch.hidden_users)
        if encoded.item_ids:
            items = hide_ids(items, batch.hidden_items)
        of_users, of_items = self._towers(users, items)
        embedded = EmbeddedPairs(of_users, of_items, batch.labels, batch.items, self._log_q[batch.items])
        if self._loss_of is softmax and ranks.n_ranks() > 1:
            own, first = ranks.gathered(embedded)
            return softmax(own, first)
        return self._loss_of(embedded)


class BothTowers(nn.Module):
    """Both towers as one call, for gradients that are shared between ranks."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: FeatureBatch, items: FeatureBatch) -> tuple[Tensor, Tensor]:
        return self.model.user(users), self.model.content(items)


def hide_ids(batch: FeatureBatch, hidden: Tensor) -> FeatureBatch:
    """Turns some rows' ids into the unseen one.

    No training row has it by itself, so that without this its embedding would still be noise when a new user meets it,
    and the towers would never learn to do without (the idea of DropoutNet, Volkovs et al., NeurIPS 2017).
    """
    categorical = batch.categorical.clone()
    categorical[:, -1].masked_fill_(hidden, UNSEEN)  # the id stands last
    return FeatureBatch(batch.numeric, categorical)
