"""The training loop: pairs in, a two-tower model out, with its learning curve and what it took."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.baselines.known import item_popularity
from bench.data.dataset import DataSet
from bench.plan.axes import BIGGEST
from bench.plan.cell import Cell
from bench.training import checkpoint
from bench.training.pairs import Pairs, sampler_of
from bench.training.search import Budget, Trial
from bench.training.towers import Encoded, Model, build
from ftmamba.columns import UNSEEN
from ftmamba.features import FeatureBatch
from ftmamba.losses import LOSSES, EmbeddedPairs
from ftmamba.optim import parameter_groups

CHECKS = 10  # looks at the validation split a training
PATIENCE = 5  # looks without a new best, after which training ends
WARM_UP_STEPS = 50  # of the learning rate

Validate = Callable[[Model], float]
Step = Callable[[], Tensor]


class DivergedError(ArithmeticError):
    """The training loss is no longer a number."""


@dataclass
class Training:
    """One training from the first step to the last.

    Attributes:
        model: with the weights that were best on validation, or the last ones where validation was not looked at.
        trial: what it was trained with.
        steps: that were taken.
        wall_s: seconds in steps, validation not counted.
        best: highest validation score, NaN where it was not looked at.
        best_step: when it was reached.
        curve: ``step``, ``train_loss`` (mean since the last look), ``train_step_s`` and ``validation_ndcg@10``.
    """

    model: Model
    trial: Trial
    steps: int = 0
    wall_s: float = 0.0
    best: float = math.nan
    best_step: int = 0
    curve: dict[str, list[float]] = field(default_factory=dict)

    def note(self, **values: float) -> None:
        for name, value in values.items():
            self.curve.setdefault(name, []).append(value)


class Trainer:
    """Makes trainings of one cell.

    Args:
        cell: of a trained model.
        data: the data set.
        encoded: its tables.
        budget: of a training.
        validate: gives the score that chooses weights and learning rate; None where the protocol has no validation.
        saved: file that keeps the state of an unfinished training; None keeps none.
        graphed: makes one graph of a step, which takes any number of steps to begin with; None takes steps as they are.
    """

    def __init__(
        self,
        cell: Cell,
        data: DataSet,
        encoded: Encoded,
        budget: Budget,
        validate: Validate | None,
        saved: Path | None = None,
        *,
        graphed: Callable[[Step], Step] | None = None,
    ) -> None:
        self.cell, self.data, self.encoded, self.budget = cell, data, encoded, budget
        self._validate, self._saved, self._graphed = validate, saved, graphed
        popularity = item_popularity(data)
        share = np.maximum(popularity, 1) / popularity.sum()
        self.log_q = torch.from_numpy(np.log(share)).to(cell.device, encoded.items.numeric.dtype)

    def run(self, trial: Trial) -> Training:
        """Train from fresh weights, or from where an earlier process was cut off.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        training = Training(build(self.cell, self.encoded, trial.dropout), trial)
        stepper = Stepper(self, training.model, trial, self._graphed)
        key = "/".join(map(str, (self.cell.id, *trial, *self.budget)))
        best = self._resume(training, stepper, key)
        every, until = max(1, self.budget.steps // CHECKS), self.budget.until
        while training.steps < until and training.steps - training.best_step < PATIENCE * every:
            self._advance(training, stepper, min(every, until - training.steps))
            if self._validate is None:
                training.best_step = training.steps
            else:
                score = self._validate(training.model)
                training.note(**{"validation_ndcg@10": score})
                if not score <= training.best:
                    training.best, training.best_step = score, training.steps
                    best = copy.deepcopy(training.model.state_dict())
            if self._saved is not None:
                checkpoint.save(self._saved, key, stepper.state(training, best))
        if best:
            training.model.load_state_dict(best)
        return training

    def _advance(self, training: Training, stepper: Stepper, n_steps: int) -> None:
        training.model.train()
        torch.manual_seed(self.cell.seed * BIGGEST + training.steps)  # so that a resumed training drops the same
        started = time.perf_counter()
        losses = [stepper() for _ in range(n_steps)]
        loss = float(torch.stack(losses).mean())  # waits for the device
        seconds = time.perf_counter() - started
        training.steps += n_steps
        training.wall_s += seconds
        training.note(step=training.steps, train_loss=loss, train_step_s=seconds / n_steps)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} after {training.steps} steps; a lower learning rate may help")

    def _resume(self, training: Training, stepper: Stepper, key: str) -> dict[str, Tensor]:
        state = None if self._saved is None else checkpoint.load(self._saved, key, self.cell.device)
        if state is None:
            return {}
        stepper.restore(state)
        for name, value in state.progress.items():
            setattr(training, name, math.nan if value is None else value)
        return dict(state.best)


@dataclass(frozen=True)
class Batch:
    """Pairs of one step, in tensors that stay where they are: row numbers, labels, and whose ids are hidden; (B,)."""

    users: Tensor
    items: Tensor
    labels: Tensor
    hidden_users: Tensor
    hidden_items: Tensor


class Stepper:
    """Takes one training step a call and returns the loss of its batch, still on the device."""

    def __init__(
        self, trainer: Trainer, model: Model, trial: Trial, graphed: Callable[[Step], Step] | None = None
    ) -> None:
        cell = trainer.cell
        self._model, self._encoded, self._log_q = model, trainer.encoded, trainer.log_q
        self._batches = sampler_of(cell, trainer.data).batches(cell.batch_size)
        groups = [{**each, "weight_decay": trial.weight_decay} for each in parameter_groups(model, trial.learning_rate)]
        self._optimizer = torch.optim.AdamW(groups, fused=True, capturable=cell.device == "cuda")
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._hidden_share = cell.get("id_dropout", 0.0)
        self._generator = torch.Generator(cell.device).manual_seed(cell.seed)
        self._loss_of = LOSSES[cell.loss]
        self._total, self._done = trainer.budget.steps, 0
        rows, flags = torch.zeros(cell.batch_size, dtype=torch.long), torch.zeros(cell.batch_size, dtype=torch.bool)
        fields = (rows, rows, rows.to(self._log_q.dtype), flags, flags)
        self._batch = Batch(*(each.clone().to(cell.device) for each in fields))
        self._step = self._train if graphed is None else graphed(self._train)
        self._is_begun = graphed is None
        if graphed is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=cell.device)  # a graph would keep a plain number

    def __call__(self) -> Tensor:
        self._fill(next(self._batches))
        factor = min((self._done + 1) / WARM_UP_STEPS, 1 - self._done / self._total)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor
        if not self._is_begun:
            self._begin()
        self._done += 1
        return self._step().clone()

    def _fill(self, pairs: Pairs) -> None:
        batch, encoded = self._batch, self._encoded
        for name in ("users", "items", "labels"):
            getattr(batch, name).copy_(torch.from_numpy(getattr(pairs, name)))
        for hidden, ids in ((batch.hidden_users, encoded.user_ids), (batch.hidden_items, encoded.item_ids)):
            if ids and self._hidden_share:
                chances = torch.rand(len(hidden), generator=self._generator, device=hidden.device)
                torch.lt(chances, self._hidden_share, out=hidden)

    def _train(self) -> Tensor:
        batch, encoded = self._batch, self._encoded
        users, items = encoded.users.rows(batch.users), encoded.items.rows(batch.items)
        if encoded.user_ids:
            users = hide_ids(users, batch.hidden_users)
        if encoded.item_ids:
            items = hide_ids(items, batch.hidden_items)
        embedded = EmbeddedPairs(
            self._model.user(users), self._model.content(items), batch.labels, batch.items, self._log_q[batch.items]
        )
        loss = self._loss_of(embedded)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _begin(self) -> None:
        """Make the graph, and undo the steps that this takes."""
        weights = [each.detach().clone() for each in self._model.parameters()]
        moments = {key: value.clone() for key, value in checkpoint.optimizer_tensors(self._optimizer).items()}
        self._step()
        with torch.no_grad():
            for each, before in zip(self._model.parameters(), weights, strict=True):
                each.copy_(before)
        for key, value in checkpoint.optimizer_tensors(self._optimizer).items():
            value.copy_(moments[key]) if key in moments else value.zero_()
        self._is_begun = True

    def state(self, training: Training, best: dict[str, Tensor]) -> checkpoint.State:
        names = ("steps", "wall_s", "best", "best_step", "curve")
        progress = {name: getattr(training, name) for name in names}
        progress["best"] = None if math.isnan(training.best) else training.best
        moments = checkpoint.optimizer_tensors(self._optimizer)
        return checkpoint.State(self._model.state_dict(), best, moments, self._generator.get_state(), progress)

    def restore(self, state: checkpoint.State) -> None:
        self._model.load_state_dict(dict(state.model))
        checkpoint.restore_optimizer(self._optimizer, state.optimizer)
        self._generator.set_state(state.generator)
        self._done = int(state.progress["steps"])
        for _ in range(self._done):
            next(self._batches)


def hide_ids(batch: FeatureBatch, hidden: Tensor) -> FeatureBatch:
    """Turns some rows' ids into the unseen one.

    No training row has it by itself, so that without this its embedding would still be noise when a new user meets it,
    and the towers would never learn to do without (the idea of DropoutNet, Volkovs et al., NeurIPS 2017).
    """
    categorical = batch.categorical.clone()
    categorical[:, -1].masked_fill_(hidden, UNSEEN)  # the id stands last
    return FeatureBatch(batch.numeric, categorical)
