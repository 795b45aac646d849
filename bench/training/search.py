"""What is tried for a model, and for how long: the same number of trials for every model."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

from bench.data.dataset import DataSet
from bench.plan.cell import Cell
from bench.training.pairs import sampler_of


class Trial(NamedTuple):
    """One point of the search.

    Attributes:
        learning_rate: of the optimiser.
        dropout: share of what a block (of the MLP: its hidden layer) adds that is set to 0 in training.
        weight_decay: of the optimiser.
    """

    learning_rate: float
    dropout: float = 0.0
    weight_decay: float = 1e-5


def trials_of(cell: Cell) -> list[Trial]:
    """All points of the cell's grid, or as many as it asks for, drawn once for all models."""
    points = [Trial(*each) for each in itertools.product(cell.learning_rates, cell.dropouts, cell.weight_decays)]
    if not 0 < cell.trials < len(points):
        return points
    return [points[i] for i in sorted(random.Random(0).sample(range(len(points)), cell.trials))]


class Budget(NamedTuple):
    """How long a training takes.

    Attributes:
        steps: over which the learning rate falls to 0.
        until: after which it ends.
    """

    steps: int
    until: int

    @classmethod
    def of(cls, cell: Cell, data: DataSet) -> Budget:
        """The cell's own: its steps, or as many as its epochs have."""
        if not cell.epochs:
            return cls(cell.steps, cell.steps)
        steps = max(1, round(cell.epochs * len(sampler_of(cell, data)) / cell.batch_size))
        return cls(steps, steps)

    def times(self, factor: float) -> Budget:
        """So many times as long."""
        return Budget(*(max(1, round(factor * each)) for each in self))

    def refitted(self, cell: Cell, data: DataSet, best_step: int) -> Budget:
        """The same epochs on the training and validation splits, to where the best weights were."""
        larger = len(sampler_of(cell, data.refitted())) / len(sampler_of(cell, data))
        return Budget(round(self.steps * larger), max(1, round(best_step * larger)))
