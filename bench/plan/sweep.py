"""A sweep: axes as data, expanded to cells. Everything that can be wrong with a plan is found here, before any run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from bench.plan.cell import Cell
from bench.plan.choices import DEVICES, DTYPES, EXECUTIONS, HEAPS, MIXERS, TASKS
from bench.plan.tower import encoder_spec
from ftmamba.backends import BackendError
from ftmamba.mixers import BACKENDS_OF

MAX_CELLS = 100_000
NAMES = {"tasks": TASKS, "mixers": MIXERS, "dtype": DTYPES, "execution": EXECUTIONS}
SIZES = {  # lowest and highest value of each size axis; the highest only keeps slips of the finger out
    "lengths": (2, 10_000_000),
    "batch_sizes": (1, 10_000_000),
    "layers": (1, 10_000),
    "d_model": (1, 1_000_000),
}


class PlanError(ValueError):
    """A sweep that cannot be; the message is one line for people."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The product of its axes, and how much time to give it.

    Attributes:
        lengths: numbers of tokens L, [CLS] included.
        batch_sizes: rows a step.
        layers: blocks a tower.
        mixers: names of ``MIXERS``.
        tasks: names of ``TASKS``.
        backends: each mixer takes the names that are its own, and ``auto`` when none is.
        d_model: widths of a token.
        dtype: names of ``DTYPES``.
        execution: names of ``EXECUTIONS``.
        device: ``cpu``, ``cuda``, or ``auto`` until it is resolved.
        rounds: passes over all cells.
        budget_s: seconds of timed iterations a cell and round.
        timeout_s: seconds after which a cell's process is ended.
        most_tokens: points of more tokens a step (batch times L) are left out; 0 leaves out none.
        threads: CPU threads of a cell; 0 until it is resolved to what torch takes by itself.
        seed: of weights, inputs and the order of cells.
        paired_with: a mixer, with ``/BACKEND`` behind it where it has several, that every other cell is timed in turn
            with in one process, for ratios on a noisy machine; empty for none.
        heap: ``kept`` lets a process keep freed memory while it is timed, ``system`` leaves that to the C library.
    """

    lengths: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    layers: tuple[int, ...]
    mixers: tuple[str, ...]
    tasks: tuple[str, ...]
    backends: tuple[str, ...]
    d_model: tuple[int, ...]
    dtype: tuple[str, ...]
    execution: tuple[str, ...]
    device: str
    rounds: int
    budget_s: float
    timeout_s: float
    most_tokens: int
    threads: int
    seed: int
    paired_with: str = ""
    heap: str = "kept"

    def __post_init__(self) -> None:
        for name, (low, high) in SIZES.items():
            _check_axis(name, getattr(self, name))
            for size in getattr(self, name):
                if not _is_int(size) or not low <= size <= high:
                    raise PlanError(f"{name} takes whole numbers from {low} to {high}, got {_shown(size)}")
        for name, valid in NAMES.items():
            _check_axis(name, getattr(self, name))
            for value in getattr(self, name):
                if not isinstance(value, str) or value not in valid:
                    raise PlanError(f"unknown value {_shown(value)} for {name}; choose from {', '.join(valid)}")
        if self.device not in ("auto", *DEVICES):
            raise PlanError(f"unknown device {_shown(self.device)}; choose from auto, {', '.join(DEVICES)}")
        for name, low in {"rounds": 1, "most_tokens": 0, "threads": 0, "seed": 0}.items():
            if not _is_int(getattr(self, name)) or not low <= getattr(self, name) < 2**31:
                raise PlanError(f"{name} must be a whole number of at least {low}, got {_shown(getattr(self, name))}")
        for name in ("budget_s", "timeout_s"):
            seconds = getattr(self, name)
            if not (_is_int(seconds) or isinstance(seconds, float)) or not 0 < seconds < 1e7:
                raise PlanError(f"{name} must be a positive number of seconds, got {_shown(seconds)}")
        self._check_backend_names()
        self._check_pair()
        if self.heap not in HEAPS:
            raise PlanError(f"unknown heap {_shown(self.heap)}; choose from {', '.join(HEAPS)}")
        n_cells = math.prod(len(getattr(self, name)) for name in (*SIZES, *NAMES, "backends"))
        if n_cells > MAX_CELLS:
            raise PlanError(f"the axes multiply to {n_cells} cells, more than {MAX_CELLS}; shorten one")

    def _check_pair(self) -> None:
        mixer, _, backend = self.paired_with.partition("/") if isinstance(self.paired_with, str) else ("?", "", "")
        if self.paired_with != "" and (mixer not in MIXERS or backend not in ("", "auto", *BACKENDS_OF[mixer])):
            told = _shown(self.paired_with)
            raise PlanError(f"paired_with takes MIXER or MIXER/BACKEND, such as mamba/auto, got {told}")

    def _check_backend_names(self) -> None:
        _check_axis("backends", self.backends)
        valid = {"auto"}.union(*(BACKENDS_OF[mixer] for mixer in self.mixers))
        for name in self.backends:
            if not isinstance(name, str) or name not in valid:
                choices = "; ".join(f"for {mixer}: auto, {', '.join(BACKENDS_OF[mixer])}" for mixer in self.mixers)
                raise PlanError(f"unknown backend {_shown(name)}; choose {choices}")

    def resolved(self, device: str, threads: int = 0) -> Sweep:
        """The same sweep on an exact device with a count of threads, every backend name exact.

        Raises:
            PlanError: a backend or execution that was asked for cannot run there; the message says why.
        """
        if device == "cpu" and "graph" in self.execution:
            raise PlanError("execution graph means CUDA graphs, which need a GPU; on the CPU choose eager or compile")
        sweep = replace(self, device=device, threads=threads or self.threads)
        names = dict.fromkeys(name for mixer in self.mixers for name in sweep.backends_of(mixer))
        if self.paired_with:
            mixer, _, backend = self.paired_with.partition("/")
            try:
                paired_with = f"{mixer}/{BACKENDS_OF[mixer].resolve(backend or 'auto', device)}"
            except BackendError as error:
                raise PlanError(str(error)) from None
            sweep = replace(sweep, paired_with=paired_with)
        return replace(sweep, backends=tuple(names))

    def backends_of(self, mixer: str) -> tuple[str, ...]:
        """Exact names of the backends that this sweep runs ``mixer`` with."""
        backends = BACKENDS_OF[mixer]
        own = [name for name in self.backends if name == "auto" or name in backends] or ["auto"]
        try:
            return tuple(dict.fromkeys(backends.resolve(name, self.device) for name in own))
        except BackendError as error:
            raise PlanError(str(error)) from None

    def pair_of(self, cell: Cell) -> Cell | None:
        """What a cell of the resolved sweep is timed in turn with; None where that would be the cell itself."""
        mixer, _, backend = self.paired_with.partition("/")
        pair = replace(cell, mixer=mixer, backend=backend) if mixer else cell
        return None if pair == cell else pair

    def cells(self) -> list[Cell]:
        """All points, in the order of the axes; names are exact only when the sweep is resolved.

        Raises:
            PlanError: a point whose tower cannot be.
        """
        cells = [
            Cell(
                task=task, mixer=mixer, backend=backend, n_tokens=n_tokens, batch_size=batch_size, n_layers=n_layers,
                d_model=d_model, dtype=dtype, execution=execution, device=self.device, seed=self.seed,
            )
            for task, mixer in itertools.product(self.tasks, self.mixers)
            for backend in self.backends_of(mixer)
            for dtype, execution, d_model, n_layers, batch_size, n_tokens in itertools.product(
                self.dtype, self.execution, self.d_model, self.layers, self.batch_sizes, self.lengths
            )
            if not self.most_tokens or n_tokens * batch_size <= self.most_tokens
        ]  # fmt: skip
        if not cells:
            raise PlanError(f"every point has more than {self.most_tokens} tokens a step (most_tokens)")
        for cell in cells:
            try:
                encoder_spec(cell)
            except ValueError as error:
                raise PlanError(str(error)) from None
        return cells

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Sweep:
        """From plain data, such as a preset or a ``run.json``; lists become axes without repeats.

        Raises:
            PlanError: a setting is unknown, absent, or wrong.
        """
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                raise PlanError(f"unknown setting {_shown(name)}; choose from {', '.join(names)}")
        absent = [field.name for field in fields(cls) if field.name not in settings and field.default is MISSING]
        if absent:
            raise PlanError(f"settings without a value: {', '.join(absent)}")
        checked: dict[str, Any] = {
            name: _axis(value) if isinstance(value, (list, tuple)) else value for name, value in settings.items()
        }
        return cls(**checked)


def _check_axis(name: str, values: object) -> None:
    if not isinstance(values, tuple):
        raise PlanError(f"{name} must be a list, got {_shown(values)}")
    if not values:
        raise PlanError(f"{name} is an empty list; give at least one value")


def _axis(values: Sequence[Any]) -> tuple[Any, ...]:
    try:
        return tuple(dict.fromkeys(values))
    except TypeError:  # a list or a table among them, which no axis takes
        return tuple(values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """What the user gave, quoted, without control characters, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
