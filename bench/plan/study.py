"""A study: which data sets, which models, which seeds; expanded to quality cells. What can be wrong is found here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bench.data import DATASETS, adapter
from bench.plan.cell import fingerprint
from bench.plan.choices import DEVICES
from bench.plan.match import MATCHES, matched_d_ffn, quality_spec
from bench.plan.sweep import MAX_CELLS, PlanError
from ftmamba.backends import BackendError
from ftmamba.mixers import BACKENDS_OF
from ftmamba.spec import MIXERS

TASK = "rank_quality"
MLP = "mlp"
UNTRAINED = ("random", "popularity", "oracle")
BASELINES = (*UNTRAINED, MLP)
PROTOCOLS = ("full", "paper")
FEATURES = ("ids", "attributes")
# What each loss takes where nothing else is asked for: pairs (for the softmax: positives) a step, and steps.
BATCH_SIZES = {"mse": 32, "bce": 32, "softmax": 256}  # 32 is that of arXiv 2409.17165
STEPS = {"mse": 3000, "bce": 3000, "softmax": 800}
LOSSES = tuple(BATCH_SIZES)


@dataclass(frozen=True, kw_only=True)
class QualityCell:
    """One model on one data set with one seed. What a model does not have is None.

    Attributes:
        dataset: name of the data set, with its settings.
        model: a mixer, whose two towers are trained, or a baseline.
        protocol: ``full`` (every test user, the best weights on validation kept) or ``paper`` (100 test users, a fixed
            number of steps over 160,000 pairs).
        seed: of weights, pairs and negatives.
        features: ``ids`` gives the towers the row's id as one more column, ``attributes`` does not.
        backend: implementation of the mixer's op.
        loss: ``mse``, ``bce`` or ``softmax`` (in-batch sampled softmax with log-Q correction).
        n_layers: blocks a tower.
        d_model: width of a token.
        d_ffn: width of attention's feed-forward layer where it is not attention's own.
        batch_size: pairs a step; positives a step with the softmax.
        steps: training steps, at most.
        learning_rates: tried in turn with the same budget; validation chooses.
        negatives: sampled for each positive; not used by the softmax, nor where negatives were observed.
        id_dropout: share of ids hidden in training, so that the towers learn to do without.
        dtype: of parameters and activations.
        device: ``cpu`` or ``cuda``.
        task: always ``rank_quality``.
    """

    dataset: str
    model: str
    protocol: str
    seed: int
    features: str | None = None
    backend: str | None = None
    loss: str | None = None
    n_layers: int | None = None
    d_model: int | None = None
    d_ffn: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    learning_rates: tuple[float, ...] | None = None
    negatives: int | None = None
    id_dropout: float | None = None
    dtype: str | None = None
    device: str = "cpu"
    task: str = TASK

    @property
    def trained(self) -> bool:
        return self.model not in UNTRAINED

    @property
    def id(self) -> str:
        """Readable and stable: the same cell has the same id in every run, on every machine."""
        loss = f"-{self.loss}" if self.loss else ""
        dataset = self.dataset.replace(":", "-")  # it becomes a file's name
        return f"{self.task}-{dataset}-{self.model}{loss}-S{self.seed}-{fingerprint(asdict(self))}"

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> QualityCell:
        """From a record or a request; lists become tuples again."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        return cls(**known)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The product of its axes. Names are those of ``QualityCell``, in the plural where they are axes.

    Attributes:
        match: ``depth`` gives every mixer the same layers, ``params`` also the same number of parameters.
        batch_size, steps: 0 takes the loss's own.
        ks: cut-offs of the metrics.
        threads: CPU threads of a cell; 0 until it is resolved.
        timeout_s: seconds after which a cell's process is ended.
    """

    datasets: tuple[str, ...]
    mixers: tuple[str, ...]
    baselines: tuple[str, ...]
    seeds: tuple[int, ...]
    protocol: str
    features: str
    losses: tuple[str, ...]
    match: str
    layers: int
    d_model: int
    batch_size: int
    steps: int
    learning_rates: tuple[float, ...]
    negatives: int
    id_dropout: float
    ks: tuple[int, ...]
    device: str
    threads: int
    timeout_s: float

    def __post_init__(self) -> None:
        for name, valid in (("mixers", tuple(MIXERS)), ("baselines", BASELINES), ("losses", LOSSES)):
            _one_of(name, getattr(self, name), valid)
        _one_of("datasets", [name.partition(":")[0] for name in self.datasets], tuple(DATASETS))
        for name, valid in (
            ("protocol", PROTOCOLS), ("features", FEATURES), ("match", MATCHES), ("device", ("auto", *DEVICES)),
        ):  # fmt: skip
            _one_of(name, (getattr(self, name),), valid)
        if not self.mixers and not self.baselines:
            raise PlanError("nothing to rank with: give at least one mixer or baseline")
        for name in ("datasets", "seeds", "losses", "learning_rates", "ks"):
            if not getattr(self, name):
                raise PlanError(f"{name} is an empty list; give at least one value")
        self._check_numbers()
        axes = (self.datasets, self.seeds, self.losses, self.learning_rates, (*self.mixers, *self.baselines))
        if math.prod(map(len, axes)) > MAX_CELLS:
            raise PlanError(f"the axes multiply to more than {MAX_CELLS} trainings; shorten one")

    def _check_numbers(self) -> None:
        lowest = {"layers": 1, "d_model": 1, "batch_size": 0, "steps": 0, "negatives": 1, "threads": 0}
        for name, low in lowest.items():
            if not low <= getattr(self, name) < 2**31:
                raise PlanError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.batch_size == 1:
            raise PlanError("batch_size must be at least 2, or 0 for the loss's own, got 1")
        if any(not 0 <= seed < 2**31 for seed in self.seeds):
            raise PlanError(f"seeds must be whole numbers from 0 to 2147483647, got {_shown(self.seeds)}")
        if any(not 0 < rate < 1 for rate in self.learning_rates):
            raise PlanError(f"learning_rates must lie between 0 and 1, got {_shown(self.learning_rates)}")
        if any(not 1 <= k < 2**31 for k in self.ks):
            raise PlanError(f"cut-offs must be at least 1, got {_shown(self.ks)}")
        if not 0 <= self.id_dropout < 1:
            raise PlanError(f"id_dropout must be at least 0 and less than 1, got {self.id_dropout}")
        if not 0 < self.timeout_s < 1e7:
            raise PlanError(f"timeout_s must be a positive number of seconds, got {self.timeout_s}")

    def cells(self) -> list[QualityCell]:
        """Untrained baselines first: they are cheap, and say at once when a data set cannot be read.

        Raises:
            PlanError: no backend of a mixer runs on the device, or a tower that cannot be.
        """
        cells = [
            QualityCell(dataset=dataset, model=model, protocol=self.protocol, seed=seed)
            for dataset, model in itertools.product(self.datasets, self.baselines)
            if model in UNTRAINED and (model != "oracle" or adapter(dataset).simulated)
            for seed in (self.seeds if model == "random" else self.seeds[:1])  # the others have no chance in them
        ]
        models = (*self.mixers, *(model for model in self.baselines if model not in UNTRAINED))
        trained = {model: self._trained(model) for model in models}
        for dataset, seed, loss, model in itertools.product(self.datasets, self.seeds, self.losses, models):
            cells.append(
                replace(
                    trained[model],
                    dataset=dataset,
                    seed=seed,
                    loss=loss,
                    batch_size=self.batch_size or BATCH_SIZES[loss],
                    steps=self.steps or STEPS[loss],
                    negatives=None if loss == "softmax" else self.negatives,
                )
            )
        return cells

    def _trained(self, model: str) -> QualityCell:
        """What all cells of a trained model share."""
        try:
            backend = BACKENDS_OF[model].resolve("auto", self.device) if model in MIXERS else None
            d_ffn = None
            if self.match == "params" and model == "attention":
                d_ffn = matched_d_ffn(n_layers=self.layers, d_model=self.d_model)
            if backend is not None:
                quality_spec(model, backend, n_layers=self.layers, d_model=self.d_model, d_ffn=d_ffn)
        except (BackendError, ValueError) as error:
            raise PlanError(str(error)) from None
        return QualityCell(
            dataset="", model=model, protocol=self.protocol, seed=0, features=self.features, backend=backend,
            n_layers=self.layers, d_model=self.d_model, d_ffn=d_ffn, learning_rates=self.learning_rates,
            id_dropout=self.id_dropout if self.features == "ids" else None, dtype="float32", device=self.device,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Study:
        """From plain data, such as a ``run.json``; lists become axes without repeats.

        Raises:
            PlanError: a setting is unknown, absent, or wrong.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in settings if name not in names]
        if unknown:
            raise PlanError(f"unknown setting {ascii(unknown[0])[:80]}; choose from {', '.join(names)}")
        absent = [name for name in names if name not in settings]
        if absent:
            raise PlanError(f"settings without a value: {', '.join(absent)}")
        try:
            known: dict[str, Any] = {
                name: tuple(dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value
                for name, value in settings.items()
            }
            return cls(**known)
        except (TypeError, AttributeError) as error:  # from a file, where anything can stand
            raise PlanError(f"a setting is of the wrong kind: {error}") from None


def _one_of(name: str, values: Sequence[str], valid: tuple[str, ...]) -> None:
    for value in values:
        if value not in valid:
            raise PlanError(f"unknown value {ascii(value)[:80]} for {name}; choose from {', '.join(valid)}")


def _shown(values: Sequence[object]) -> str:
    return ",".join(str(value) for value in values)[:80]
