"""One cell of ranking quality from histories: choose on the window before the cut, refit on all before it, test."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.data.dataset import DataSet
from bench.data.targets import Stage, stages
from bench.plan.cell import Cell
from bench.run.probes import Reading, clocks, energy, wall
from bench.run.rank_quality import renamed, samples_of, step_memory
from bench.training import event_baselines
from bench.training.evaluate import Ranking
from bench.training.event_ranking import ndcg_at_10, rank_events
from bench.training.histories import Histories
from bench.training.history_model import HistoryModel, HistoryTrainer, embed_users, sampler_of, scorer
from bench.training.loop import Training
from bench.training.search import Budget, trials_of

LOOKED_AT = 500  # users of the validation window, drawn once; more would cost as much as the training
TRUNCATED = (20, 50, 100, 200, 500, 1000, 2000, 4000)  # events that a trained model is shown too where it has read more
TIMED_USERS = 5


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
        ValueError: the data set has no histories or fewer cuts.
        DataError: nobody to rank for.
    """
    if data.events is None:
        raise ValueError(f"{data.name} has no histories")
    if cell.cut >= len(data.events.cuts):
        raise ValueError(f"{data.name} has {len(data.events.cuts)} cuts, counted from 0; there is no cut {cell.cut}")
    moment, length = data.events.cuts[cell.cut], cell.history_length
    if "baseline" in cell:
        started = time.perf_counter()
        ranking, parameter = event_baselines.measure(cell.baseline, data, moment, length, ks)
        cost = {"fit_wall_s": time.perf_counter() - started, "parameter": parameter}
        return ranking, {}, Reading({name: value for name, value in cost.items() if math.isfinite(value)})
    validation, test = stages(data.events, moment)
    half_life = event_baselines.choose("visit-frequency", data, validation, length) if cell.own == "counts" else None
    model, samples, cost_of_training = train(cell, data, validation, test, half_life, saved)
    histories = Histories(data, test, cell.device, getattr(torch, cell.dtype))
    known = {n for n in TRUNCATED if n < length}
    samples |= {
        "truncated_length": [*map(float, sorted(known))],
        "truncated_ndcg@10": [
            ndcg_at_10(data, test, scorer(model, histories, test, n, half_life)) for n in sorted(known)
        ],
    }
    (seconds,) = wall.clock_for(cell.device).read(lambda: scorer(model, histories, test, length, half_life), 1)
    speed = Reading({"inference_rows_per_s": len(test.users) / seconds}) + embedding(cell, model, histories, test)
    ranking = rank_events(data, test, scorer(model, histories, test, length, half_life), ks)
    return ranking, samples, cost_of_training + speed


def train(
    cell: Cell, data: DataSet, validation: Stage, test: Stage, half_life: float | None, saved: Path | None
) -> tuple[HistoryModel, dict[str, list[float]], Reading]:
    """The model fitted on all before the test, with what validation chose; its learning curve; what it took."""
    dtype = getattr(torch, cell.dtype)
    histories, looked_at = Histories(data, validation, cell.device, dtype), some(validation, LOOKED_AT)
    steps = sampler_of(cell, histories)[1].steps_an_epoch
    total = max(1, round(cell.epochs * steps)) if cell.epochs else cell.steps

    def validate(model: HistoryModel) -> float:
        return ndcg_at_10(data, looked_at, scorer(model, histories, looked_at, cell.history_length, half_life))

    trainer = HistoryTrainer(cell, histories, Budget(total, total), validate, saved, half_life=half_life)
    peak = step_memory(trainer)
    meter, sampler = energy.meter_for(cell.device), clocks.sampler_for(cell.device)
    meter.start()
    sampler.start()
    trainings = [trainer.run(trial) for trial in trials_of(cell)]
    joules, slowed = meter.stop(1), sampler.stop()
    best = max(trainings, key=lambda training: -math.inf if math.isnan(training.best) else training.best)
    whole = Histories(data, test, cell.device, dtype)
    larger = sampler_of(cell, whole)[1].steps_an_epoch / steps
    n_steps = max(1, round(best.best_step * larger))  # at whose end the rate is 0: weights of a high rate are noisy
    last = HistoryTrainer(cell, whole, Budget(n_steps, n_steps), None, saved, half_life=half_life).run(best.trial)
    values = {**facts(best), "epochs": best.steps / steps, "refit_wall_s": last.wall_s}
    if half_life is not None and math.isfinite(half_life):
        values["half_life_days"] = half_life
    reading = peak + slowed + renamed(joules, "energy_j", "train_energy_j") + Reading(values)
    return last.model, samples_of(best, trainings), reading


def facts(best: Training) -> dict[str, float | int | None]:
    """Sizes of the model and of its training."""
    return {
        "params": sum(each.numel() for each in best.model.parameters() if each.requires_grad),
        **best.trial._asdict(),
        "steps": best.steps,
        "best_step": best.best_step,
        "validation_ndcg@10": best.best,
        "train_wall_s": best.wall_s,
        "train_step_s": statistics.median(best.curve["train_step_s"]),
        "train_steps_per_s": best.steps / best.wall_s,
    }


def embedding(cell: Cell, model: HistoryModel, histories: Histories, test: Stage) -> Reading:
    """Seconds to embed one user: median over some with the longest histories."""
    users = test.users[np.argsort(-test.n_before, kind="stable")[:TIMED_USERS]]
    clock = wall.clock_for(cell.device)

    def one(user: int) -> float:
        return min(clock.read(lambda: embed_users(model, histories, users[[user]], cell.history_length), 2))

    return Reading({"embed_user_s": statistics.median(map(one, range(len(users))))})


def some(stage: Stage, n: int) -> Stage:
    """The stage with at most so many of its users with a history, drawn with a fixed seed."""
    index = np.sort(np.random.default_rng(0).permutation(stage.warm)[:n])
    users = stage.users[index]
    keep = np.isin(stage.pairs[0], users)
    return replace(
        stage, users=users, n_before=stage.n_before[index], pairs=(stage.pairs[0][keep], stage.pairs[1][keep])
    )  # fmt: skip
