"""The training loop: pairs in, a two-tower model out, with its learning curve and what it took."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, Ints
from bench.data.encode import UNSEEN
from bench.plan.study import QualityCell
from bench.training import checkpoint
from bench.training.baselines import item_popularity
from bench.training.losses import LOSSES, EmbeddedPairs
from bench.training.pairs import PAPER_PAIRS, PairSampler
from bench.training.towers import Encoded, Model, build
from ftmamba.features import FeatureBatch

CHECKS = 10  # looks at the validation split a training
PATIENCE = 5  # looks without a new best, after which training ends
WARM_UP_STEPS = 50  # of the learning rate
WEIGHT_DECAY = 1e-5  # the FT-Transformer's (arXiv 2106.11959, appendix)
# Lookup tables learn this much faster: a row is updated only when its value is met, and its token is one of many.
TABLE_RATE = 3.0

Validate = Callable[[Model], float]


class DivergedError(ArithmeticError):
    """The training loss is no longer a number."""


@dataclass
class Training:
    """One training from the first step to the last.

    Attributes:
        model: with the weights that were best on validation, or the last ones where validation was not looked at.
        learning_rate: of the optimiser.
        steps: that were taken.
        wall_s: seconds in steps, validation not counted.
        best: highest validation score, NaN where it was not looked at.
        best_step: when it was reached.
        curve: ``step``, ``train_loss`` (mean since the last look), ``train_step_s`` and ``validation_ndcg@10``.
    """

    model: Model
    learning_rate: float
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
        validate: gives the score that chooses weights and learning rate; None where the protocol has no validation.
        saved: file that keeps the state of an unfinished training; None keeps none.
    """

    def __init__(
        self, cell: QualityCell, data: DataSet, encoded: Encoded, validate: Validate | None, saved: Path | None = None
    ) -> None:
        assert cell.steps is not None
        self.cell, self.data, self.encoded = cell, data, encoded
        self._validate, self._saved, self._steps = validate, saved, cell.steps
        popularity = item_popularity(data)
        share = np.maximum(popularity, 1) / popularity.sum()
        self.log_q = torch.from_numpy(np.log(share)).to(cell.device, encoded.items.numeric.dtype)

    def run(self, learning_rate: float) -> Training:
        """Train from fresh weights, or from where an earlier process was cut off.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        training = Training(build(self.cell, self.encoded), learning_rate)
        stepper = Stepper(self, training.model, learning_rate)
        key = f"{self.cell.id}/{learning_rate}"
        best = self._resume(training, stepper, key)
        every = max(1, self._steps // CHECKS)
        while training.steps < self._steps and training.steps - training.best_step < PATIENCE * every:
            self._advance(training, stepper, min(every, self._steps - training.steps))
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


class Stepper:
    """Takes one training step a call and returns the loss of its batch, still on the device."""

    def __init__(self, trainer: Trainer, model: Model, learning_rate: float) -> None:
        cell = trainer.cell
        assert cell.batch_size is not None
        self._model, self._encoded, self._log_q, self._device = model, trainer.encoded, trainer.log_q, cell.device
        fixed = PAPER_PAIRS if cell.protocol == "paper" else None
        self._batches = PairSampler(trainer.data, cell.negatives or 0, cell.seed, fixed).batches(cell.batch_size)
        tables = [each for name, each in model.named_parameters() if name.endswith("categorical_table")]
        others = [each for name, each in model.named_parameters() if not name.endswith("categorical_table")]
        groups: list[dict[str, Any]] = [{"params": tables, "lr": learning_rate * TABLE_RATE}, {"params": others}]
        self._optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._hide = IdHider(cell.id_dropout or 0.0, torch.Generator(cell.device).manual_seed(cell.seed))
        self._loss_of = LOSSES[str(cell.loss)]
        self._total, self._done = cell.steps or 1, 0

    def __call__(self) -> Tensor:
        pairs = next(self._batches)
        factor = min((self._done + 1) / WARM_UP_STEPS, 1 - self._done / self._total)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        items = self._on_device(pairs.items)
        encoded = self._encoded
        users = self._hide(encoded.users.rows(self._on_device(pairs.users)), ids=encoded.user_encoder.ids)
        contents = self._hide(encoded.items.rows(items), ids=encoded.item_encoder.ids)
        embedded = EmbeddedPairs(
            self._model.user(users),
            self._model.content(contents),
            torch.from_numpy(pairs.labels).to(self._device, self._log_q.dtype),
            items,
            self._log_q[items],
        )
        loss = self._loss_of(embedded)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._done += 1
        return loss.detach()

    def state(self, training: Training, best: dict[str, Tensor]) -> checkpoint.State:
        names = ("steps", "wall_s", "best", "best_step", "curve")
        progress = {name: getattr(training, name) for name in names}
        progress["best"] = None if math.isnan(training.best) else training.best
        moments = checkpoint.optimizer_tensors(self._optimizer)
        return checkpoint.State(self._model.state_dict(), best, moments, self._hide.generator.get_state(), progress)

    def restore(self, state: checkpoint.State) -> None:
        self._model.load_state_dict(dict(state.model))
        checkpoint.restore_optimizer(self._optimizer, state.optimizer)
        self._hide.generator.set_state(state.generator)
        self._done = int(state.progress["steps"])
        for _ in range(self._done):
            next(self._batches)

    def _on_device(self, rows: Ints) -> Tensor:
        return torch.from_numpy(rows).to(self._device)


class IdHider:
    """Turns a share of the ids into the unseen one.

    No training row has it by itself, so that without this its embedding would still be noise when a new user meets it,
    and the towers would never learn to do without (the idea of DropoutNet, Volkovs et al., NeurIPS 2017).
    """

    def __init__(self, share: float, generator: torch.Generator) -> None:
        self._share = share
        self.generator = generator

    def __call__(self, batch: FeatureBatch, *, ids: bool) -> FeatureBatch:
        if not ids or not self._share:
            return batch
        categorical = batch.categorical.clone()
        hidden = torch.rand(len(categorical), generator=self.generator, device=categorical.device) < self._share
        categorical[:, -1].masked_fill_(hidden, UNSEEN)  # the id stands last
        return FeatureBatch(batch.numeric, categorical)
