"""Models that read histories: a tower beside a table of items, alone or with what the user had most often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines.known import Scorer
from bench.data.dataset import Ints
from bench.data.targets import Stage
from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec
from bench.training.event_baselines import Known
from bench.training.histories import Batch, Floats, Histories, Positions, Rows, RowSampler
from bench.training.loop import Step, Stepper, Trainer
from bench.training.search import Budget, Trial
from ftmamba.features import FeatureBatch
from ftmamba.history import HistoryBatch, HistoryEncoder

MOST_SCORED = 50_000  # items of a catalogue that a step scores whole; of a larger one it draws
DRAWN = 4096
BLOCK_EVENTS = 2**15  # that are read at a time when nothing is learned


class HistoryModel(nn.Module):
    """Scores of all items after a history: inner product with the item's vector, a bias, and what the user had.

    The bias starts at the logarithm of the item's popularity, so that what nobody had yet begins at the end.

    Args:
        tower: reads histories, with a table of items of its own.
        log_q: logarithm of each item's share of all events, (n_items,).
        last: whether histories are read by [CLS]; else by their last event.
        own: ``vectors`` adds the sum of the items' vectors over the root of their number, times a learned weight, to
            what the tower has read: to rank by how often the user had something, a tower would have to learn to count.
            ``counts`` adds a learned weight times the logarithm of the item's share of all events plus so many times
            the own frequency, and another weight times the share's logarithm, for what was had equally often.
    """

    log_q: Tensor

    def __init__(self, tower: HistoryEncoder, log_q: Floats, *, last: bool, own: str) -> None:
        super().__init__()
        self.tower, self.last = tower, last
        self.register_buffer("log_q", torch.from_numpy(np.asarray(log_q, np.float32)))
        self.bias = nn.Parameter(torch.zeros(len(log_q)))
        width = tower.spec.output_width
        length = 1.0 if own == "vectors" else 0.05  # so that a sum counts; a tower begins by adding little to the rest
        reach = length * (3 / width) ** 0.5
        self.item_table = nn.Parameter(torch.empty(len(log_q), width).uniform_(-reach, reach))
        self.sum_weight = nn.Parameter(torch.ones(())) if own == "vectors" else None
        # Weight, log of "so many", weight of the share: from here one ranks well before a tower has learned anything.
        self.own = nn.Parameter(torch.tensor([1.0, -4.0, 0.1])) if own == "counts" else None

    def read(self, history: HistoryBatch, static: FeatureBatch | None, row: Tensor, column: Tensor) -> Tensor:
        """What has been read up to some positions, (n_positions, d_out)."""
        read: Tensor = self.tower(history, static)[row] if self.last else (
            self.tower(history, static, at="all")[row, column]
        )  # fmt: skip
        if self.sum_weight is None:
            return read
        item, time = history.item, history.time
        again = (item[:, 1:] == item[:, :-1]) & (time[:, 1:] == time[:, :-1])  # three of one item are one decision
        once = nn.functional.pad(~again, (1, 0), value=True)
        sums = (self.item_table[item] * once[..., None]).cumsum(1)[row, column]
        return read + self.sum_weight * sums / once.cumsum(1)[row, column].sqrt()[:, None]

    def score(self, read: Tensor, items: Tensor | slice, own: Tensor | None) -> Tensor:
        """Of some items, (n_positions, n_items)."""
        if self.own is None or own is None:
            return torch.addmm((self.bias + self.log_q)[items], read, self.item_table[items].T)
        log_q, (weight, times, popular) = self.log_q[items], self.own.unbind()
        scores = torch.addmm(self.bias[items] + popular * log_q, read, self.item_table[items].T)
        return scores + weight * torch.log(log_q.exp() + times.exp() * own)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of what followed against the catalogue, or against what was drawn to stand for it.

        Drawn items are corrected by their chance (log-Q); what is to be predicted was not drawn, and counts as it is.
        """
        read = self.read(batch.history, batch.static, batch.row, batch.column)
        scores = self.score(read, slice(None) if batch.items is None else batch.items, batch.own)
        found = scores[batch.which, batch.target]
        if batch.log_weight is None:
            return scores.logsumexp(1).mean() - (batch.weight * found).sum() / len(read)
        others = (scores + batch.log_weight).logsumexp(1)[batch.which]
        return (batch.weight * nn.functional.softplus(others - found)).sum() / len(read)


def log_shares(stage: Stage, n_items: int) -> Floats:
    """Logarithm of each item's share of the known targets, everything counted once more than it occurred."""
    known = stage.known
    counts = np.bincount(known.column("item")[known.target], minlength=n_items) + 1.0
    return np.asarray(np.log(counts / counts.sum()))


class HistoryTrainer(Trainer):
    """Trains a model on what is known at a stage; see ``Trainer``.

    Args:
        half_life: of an own event, in days; None leaves the own frequency out of the model.
    """

    def __init__(
        self, cell: Cell, histories: Histories, budget: Budget, validate: Callable[[HistoryModel], float] | None,
        saved: Path | None = None, *, half_life: float | None = None, graphed: Callable[[Step], Step] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(cell, budget, validate, saved, graphed)
        self.histories, self.half_life = histories, half_life
        self.log_q = log_shares(histories.stage, histories.events.n_items)

    def fresh(self, dropout: float) -> HistoryModel:
        cell = self.cell
        torch.manual_seed(cell.seed)
        spec = replace(encoder_spec(cell), dropout=dropout, d_out=cell.d_out or None)
        tower = HistoryEncoder(
            spec, self.histories.events, self.histories.static, max_events=cell.history_length,
            positions=cell.positions,
        )  # fmt: skip
        model = HistoryModel(tower, self.log_q, last=cell.read_at == "last", own=cell.own)
        return model.to(cell.device, getattr(torch, cell.dtype))

    def stepper(self, model: HistoryModel, trial: Trial) -> HistoryStepper:
        return HistoryStepper(self, model, trial)


def sampler_of(cell: Cell, histories: Histories) -> tuple[Positions, RowSampler]:
    """Where a cell's model learns to predict, and the rows that it is trained on."""
    positions = Positions.of(histories.stage, cell.targets)
    rows = RowSampler(
        histories.known, positions, cell.history_length, cell.batch_size, cell.seed, last=cell.read_at == "last"
    )  # fmt: skip
    return positions, rows


class HistoryStepper(Stepper):
    """A step on a batch of histories."""

    def __init__(self, trainer: HistoryTrainer, model: HistoryModel, trial: Trial) -> None:
        self._positions, rows = sampler_of(trainer.cell, trainer.histories)
        super().__init__(trainer, model, trial, rows.batches())
        self._scores, self._histories, self._half_life = model, trainer.histories, trainer.half_life
        self._log_q = trainer.log_q if len(trainer.log_q) > MOST_SCORED else None

    def fill(self, batch: Rows) -> None:
        drawn = None
        if self._log_q is not None:
            chances = torch.from_numpy(self._log_q).exp()
            drawn = torch.multinomial(chances, DRAWN, replacement=True, generator=self._generator).numpy()
        self._batch = Batch.of(self._histories, self._positions, batch, self._half_life, drawn, self._log_q)

    def loss(self) -> Tensor:
        return self._scores.loss(self._batch)


@torch.inference_mode()
def embed_users(model: HistoryModel, histories: Histories, users: Ints, history_length: int) -> Tensor:
    """What the model has read of users' last events, (n_users, d_out); 0 where there are none."""
    model.eval()
    first, stop = histories.latest(users, history_length)
    order = np.argsort(first - stop, kind="stable")
    order = order[stop[order] > first[order]]
    found = torch.zeros(len(users), model.tower.spec.output_width, device=model.bias.device, dtype=model.bias.dtype)
    while len(order):
        longest = int(stop[order[0]] - first[order[0]])
        block, order = np.split(order, [max(1, BLOCK_EVENTS // longest)])
        history, static = histories.read(first[block], stop[block])
        rows = torch.arange(len(block), device=found.device)
        found[torch.from_numpy(block).to(found.device)] = model.read(history, static, rows, history.lengths - 1)
    return found


def scorer(
    model: HistoryModel, histories: Histories, stage: Stage, history_length: int, half_life: float | None = None
) -> Scorer:
    """Scores of the stage's users for every item, from what is known before it."""
    read = embed_users(model, histories, stage.users, history_length)
    counts = None
    if half_life is not None:
        known = Known.at(stage, histories.events.n_items, history_length)
        counts = known.counts(known.history, half_life, visits=True)[stage.users]

    def scores(block: slice, items: slice) -> Tensor:
        own = None if counts is None else torch.from_numpy(counts[block, items].toarray()).to(read)
        return model.score(read[block], items, own)

    return torch.inference_mode()(scores)
