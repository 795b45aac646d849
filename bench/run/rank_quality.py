"""One cell of ranking quality: train where there is something to train, rank, and tell what it took."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.baselines import BASELINES
from bench.baselines.known import Scorer
from bench.data.dataset import TEST, VALIDATION, DataSet
from bench.plan.cell import Cell
from bench.plan.setting import AUTO
from bench.run import ranks
from bench.run.graph import GraphedStep
from bench.run.probes import Reading, clocks, energy, memory, wall
from bench.training.evaluate import PAPER_USERS, HeldOut, Ranking, ndcg_at_10, rank
from bench.training.loop import Trainer, Training
from bench.training.pair_training import PairTrainer
from bench.training.ranking import inner_product
from bench.training.search import Budget, Trial, trials_of
from bench.training.towers import Encoded, Model, encode
from ftmamba.embedding import embed

TURNS, WARM_UP = 18, 3  # steps that are timed to match two mixers, and those of them that do not count


def measure(
    cell: Cell, data: DataSet, ks: Sequence[int], saved: Path | None = None
) -> tuple[Ranking, dict[str, list[float]], Reading]:
    """What the model's lists are worth, its learning curve, and its cost.

    Args:
        cell: what to train and rank.
        data: its data set.
        ks: cut-offs of the metrics.
        saved: file that keeps the state of an unfinished training.

    Raises:
        ValueError: the data set has nobody to rank for.
    """
    test = HeldOut.of(data, TEST, PAPER_USERS if cell.protocol == "paper" else None, cell.leave_out)
    if not len(test.users):
        raise ValueError(f"{data.name}: no user of the test split liked anything, so that nothing can be evaluated")
    if "baseline" in cell and not BASELINES[cell.baseline].trained:
        score, samples, reading = fit_baseline(cell, data, test)
        return rank(data, test, score, ks), samples, reading
    encoded = encode(cell, data)
    graphed = GraphedStep if cell.device == "cuda" and cell.processes == 1 else None
    budget = Budget.of(cell, data)
    trainer = PairTrainer(cell, data, encoded, budget, validator(cell, data, encoded), saved, graphed=graphed)
    peak = step_memory(trainer)
    alone_s = ranks.alone_s(cell.device, lambda: trainer.stepper(trainer.fresh(0.0), Trial(1e-6)))
    if cell.as_long_as:
        other = cell.but(mixer=cell.as_long_as, backend=AUTO)
        faster = times_as_fast(trainer, PairTrainer(other, data, encoded, budget, None, graphed=graphed))
        budget = trainer.budget = budget.times(faster)
        peak += Reading({"steps_factor": faster})
    meter, sampler = energy.meter_for(cell.device), clocks.sampler_for(cell.device)
    meter.start()
    sampler.start()
    trainings = [trainer.run(trial) for trial in trials_of(cell)]
    joules, slowed = meter.stop(1), sampler.stop()
    best = max(trainings, key=lambda training: -math.inf if math.isnan(training.best) else training.best)
    last, known = best, encoded
    if cell.refit:
        whole = data.refitted()
        known, longer = encode(cell, whole), budget.refitted(cell, data, best.best_step)
        last = PairTrainer(cell, whole, known, longer, None, saved, graphed=graphed).run(best.trial)
    score = scorer(last.model, known, test)
    (seconds,) = wall.clock_for(cell.device).read(lambda: scorer(last.model, known, test), 1)
    speed = Reading({"inference_rows_per_s": (len(test.users) + encoded.items.n_rows) / seconds})
    again = Reading({"refit_wall_s": last.wall_s} if cell.refit else {})
    scaling = Reading(ranks.efficiency(alone_s, best.wall_s / best.steps))
    cost = (
        scaling
        + peak
        + slowed
        + renamed(joules, "energy_j", "train_energy_j")
        + speed
        + facts(cell, encoded, best)
        + again
    )
    return rank(data, test, score, ks), samples_of(best, trainings), cost + scaling


def validator(cell: Cell, data: DataSet, encoded: Encoded) -> Callable[[Model], float] | None:
    """NDCG@10 on the validation split, where choices are made by it."""
    validation = validation_of(cell, data)
    if validation is None:
        return None
    return lambda model: ndcg_at_10(validation, scorer(model, encoded, validation))


def validation_of(cell: Cell, data: DataSet) -> HeldOut | None:
    """What choices are made by; None where the protocol makes none, or nobody liked anything in it."""
    validation = HeldOut.of(data, VALIDATION, leave_out=cell.leave_out)
    return validation if cell.protocol != "paper" and len(validation.users) else None


def fit_baseline(cell: Cell, data: DataSet, test: HeldOut) -> tuple[Scorer, dict[str, list[float]], Reading]:
    """Scores of a baseline whose settings validation has chosen, what was tried, and what it took."""
    baseline, validation = BASELINES[cell.baseline], validation_of(cell, data)
    points = [dict(zip(baseline.grid, values, strict=True)) for values in itertools.product(*baseline.grid.values())]
    started = time.perf_counter()
    values: dict[str, float | int | None] = {}
    samples: dict[str, list[float]] = {}
    best = points[0]
    if len(points) > 1 and validation is not None:
        fits = (baseline.fit(data, cell.seed, **point)(validation.users) for point in points)
        scores = [ndcg_at_10(validation, score) for score in fits]
        best = points[scores.index(max(scores))]
        samples = {f"grid_{name}": [point[name] for point in points] for name in baseline.grid}
        samples["grid_validation_ndcg@10"] = scores
        values["validation_ndcg@10"] = max(scores)
    score = baseline.fit(data.refitted() if cell.refit else data, cell.seed, **best)(test.users)
    return score, samples, Reading({**values, **best, "fit_wall_s": time.perf_counter() - started})


def facts(cell: Cell, encoded: Encoded, best: Training) -> Reading:
    """Sizes of the model and of its training."""
    encoders = (encoded.user_encoder, encoded.item_encoder)
    validated = not math.isnan(best.best)
    return Reading(
        {
            "params": sum(each.numel() for each in best.model.parameters() if each.requires_grad),
            "user_tokens": encoded.user_encoder.features.n_tokens,
            "item_tokens": encoded.item_encoder.features.n_tokens,
            "table_bytes": sum(encoder.table_bytes(cell.d_model) for encoder in encoders),
            **best.trial._asdict(),
            "steps": best.steps,
            "best_step": best.best_step if validated else best.steps,
            "validation_ndcg@10": best.best if validated else None,
            "train_wall_s": best.wall_s,
            "train_steps_per_s": best.steps / best.wall_s,
        },
        {} if validated else {"validation_ndcg@10": "not looked at: by protocol, or for want of validation positives"},
    )


def scorer(model: Model, encoded: Encoded, test: HeldOut) -> Scorer:
    """Scores of the test's users for every item."""
    users = encoded.users.rows(torch.from_numpy(test.users).to(encoded.users.numeric.device))
    return inner_product(embed(model.user, users), embed(model.content, encoded.items))


def step_memory(trainer: Trainer) -> Reading:
    """Peak memory of a training step above the built model, in a pass of its own with weights that are thrown away."""
    step = trainer.stepper(trainer.fresh(0.0), Trial(1e-6))
    step()  # thread pools, compiled kernels and the optimiser's state come into being here
    return memory.peak_of(step, trainer.cell.device)[1]


def times_as_fast(trainer: Trainer, other: Trainer) -> float:
    """The time of a training step of another trainer over that of this one, timed in turns."""
    clock = wall.clock_for(trainer.cell.device)
    own, others = (each.stepper(each.fresh(0.0), Trial(1e-6)) for each in (trainer, other))
    turns = [[clock.read(step, 1)[0] for step in (own, others)] for _ in range(TURNS)]
    return statistics.median(theirs / ours for ours, theirs in turns[WARM_UP:])


def renamed(reading: Reading, old: str, new: str) -> Reading:
    """The meter divides by iterations; here it counted the whole training, every learning rate included."""
    return Reading(
        {new if name == old else name: value for name, value in reading.values.items()},
        {new if name == old else name: note for name, note in reading.notes.items()},
    )


def samples_of(best: Training, trainings: Sequence[Training]) -> dict[str, list[float]]:
    """The learning curve of the chosen training, and the score of each trial."""
    samples = dict(best.curve)
    if len(trainings) > 1:
        samples |= {f"grid_{name}": [getattr(each.trial, name) for each in trainings] for name in Trial._fields}
        samples["grid_validation_ndcg@10"] = [training.best for training in trainings]
    return samples
