"""The training loop: batches in, a model out, with its learning curve and what it took."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.plan.cell import Cell
from bench.plan.setting import BIGGEST
from bench.training import checkpoint, ranks
from bench.training.search import Budget, Trial
from ftmamba.optim import parameter_groups

CHECKS = 10  # looks at the validation split a training
PATIENCE = 5  # looks without a new best, after which training ends
OF_A_RANK = 2**55  # between the seeds of ranks, above every seed of a step
WARM_UP_STEPS = 50  # of the learning rate

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

    model: Any
    trial: Trial
    steps: int = 0
    wall_s: float = 0.0
    best: float = math.nan
    best_step: int = 0
    curve: dict[str, list[float]] = field(default_factory=dict)

    def note(self, **values: float) -> None:
        for name, value in values.items():
            self.curve.setdefault(name, []).append(value)


class Trainer(ABC):
    """Makes trainings of one cell.

    Args:
        cell: of a trained model.
        budget: of a training.
        validate: gives the score that chooses weights and learning rate; None where the protocol has no validation.
        saved: file that keeps the state of an unfinished training; None keeps none.
        graphed: makes one graph of a step, which takes any number of steps to begin with; None takes steps as they are.
    """

    def __init__(
        self, cell: Cell, budget: Budget, validate: Callable[[Any], float] | None, saved: Path | None,
        graphed: Callable[[Step], Step] | None,
    ) -> None:  # fmt: skip
        self.cell, self.budget, self.graphed = cell, budget, graphed
        self._validate, self._saved = validate, saved

    @abstractmethod
    def fresh(self, dropout: float) -> nn.Module:
        """The model, its weights drawn from the cell's seed."""

    @abstractmethod
    def stepper(self, model: Any, trial: Trial) -> Stepper:
        """What takes its training steps."""

    def run(self, trial: Trial) -> Training:
        """Train from fresh weights, or from where an earlier process was cut off.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        training = Training(self.fresh(trial.dropout), trial)
        stepper = self.stepper(training.model, trial)
        again = ["last"] * (self._validate is None)  # what was chosen, on more rows, is not what was cut off before
        key = "/".join(map(str, (self.cell.id, *trial, *self.budget, *again)))
        best = self._resume(training, stepper, key)
        every, until = max(1, self.budget.steps // CHECKS), self.budget.until
        while training.steps < until and training.steps - training.best_step < PATIENCE * every:
            self._advance(training, stepper, min(every, until - training.steps))
            if self._validate is None:
                training.best_step = training.steps
            else:
                score = ranks.from_first(partial(self._validate, training.model))
                training.note(**{"validation_ndcg@10": score})
                if not score <= training.best:
                    training.best, training.best_step = score, training.steps
                    best = copy.deepcopy(training.model.state_dict())
            if self._saved is not None and ranks.rank() == 0:
                checkpoint.save(self._saved, key, stepper.state(training, best))
        if best:
            training.model.load_state_dict(best)
        return training

    def _advance(self, training: Training, stepper: Stepper, n_steps: int) -> None:
        training.model.train()
        torch.manual_seed(
            self.cell.seed * BIGGEST + training.steps + ranks.rank() * OF_A_RANK
        )  # so that a resumed training drops the same
        started = time.perf_counter()
        losses = [stepper() for _ in range(n_steps)]
        loss = float(ranks.mean(torch.stack(losses).mean()))  # waits for the device
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


class Stepper(ABC):
    """Takes one training step a call and returns the loss of its batch, still on the device.

    Args:
        trainer: whose step it is.
        model: whose weights learn.
        trial: how fast.
        batches: what ``fill`` takes, one a step, for ever.
    """

    def __init__(self, trainer: Trainer, model: nn.Module, trial: Trial, batches: Iterator[Any]) -> None:
        device, graphed = trainer.cell.device, trainer.graphed
        self._model, self._batches = model, batches
        groups = [{**each, "weight_decay": trial.weight_decay} for each in parameter_groups(model, trial.learning_rate)]
        self._optimizer = torch.optim.AdamW(groups, fused=True, capturable=device == "cuda")
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._generator = torch.Generator(device).manual_seed(trainer.cell.seed)
        self._total, self._done = trainer.budget.steps, 0
        self._step = self._train if graphed is None else graphed(self._train)
        self._is_begun = graphed is None
        if graphed is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)  # a graph would keep a plain number

    @abstractmethod
    def fill(self, batch: Any) -> None:
        """Put what the next step sees in its place."""

    @abstractmethod
    def loss(self) -> Tensor:
        """Of the batch that was filled in."""

    def __call__(self) -> Tensor:
        self.fill(next(self._batches))
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

    def _train(self) -> Tensor:
        loss = self.loss()
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
