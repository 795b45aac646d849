"""A plan: axes and their values, expanded to cells. Everything that can be wrong is found here, before any run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.plan import tasks
from bench.plan.axes import AXES, BEST, BY_NAME, OWN
from bench.plan.cell import PARAMS, Cell, Settings
from bench.plan.match import matched
from bench.plan.only import fits
from bench.plan.setting import AUTO, REQUIRED, Axis, PlanError, shown
from ftmamba import mixers
from ftmamba.backends import BackendError, Backends

MAX_CELLS = 100_000
# What says how to go about a plan, and may differ when it is continued.
NOT_MEASURED = ("rounds", "order", "timeout_s", "cells_per_process")


class Plan(Settings):
    """Values of settings, checked; read as ``plan.lengths`` or ``plan["lengths"]``.

    Args:
        settings: plain data, such as a preset or a ``run.json``; one value will do for a list.
        typed: names of the settings that a person asked for, the others came with a preset. What such a setting asks
            for has to run here; what a preset lists and this machine has not becomes skipped cells.

    Raises:
        PlanError: a setting is unknown, absent, wrong, or of no use to the plan's tasks.
    """

    def __init__(self, settings: Mapping[str, Any], typed: frozenset[str] = frozenset()) -> None:
        for name in settings:
            if name not in BY_NAME:
                raise PlanError(f"unknown setting {shown(name)}; choose from {', '.join(BY_NAME)}")
        self.typed = typed
        self._cells: list[Cell] = []
        self._settings = {name: BY_NAME[name].check(value) for name, value in settings.items()}
        if "tasks" not in self._settings:
            raise PlanError("a plan needs tasks")
        own = {"task"}.union(*(tasks.find(task).axes for task in self.tasks))
        for axis in AXES:
            if axis.field in own and axis.default is not REQUIRED:
                self._settings.setdefault(axis.name, (axis.default,) if axis.many and not axis.whole else axis.default)
            elif axis.field not in own and axis.name in typed:
                raise PlanError(f"{axis.name} says nothing to {', '.join(self.tasks)}; leave it out")
        absent = [axis.name for axis in AXES if axis.field in own and axis.name not in self._settings]
        if absent:
            raise PlanError(f"settings without a value: {', '.join(absent)}")
        if "mixers" in self._settings:
            self._settings.setdefault("heads", OWN)  # what runs from before this setting were begun with
            self._check_mixers()
        self._check_size()

    def but(self, **changes: Any) -> Plan:
        """The same plan with other values."""
        return Plan({**self, **changes}, self.typed)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.items()}

    def resolved(self, device: str) -> Plan:
        """The same plan on an exact device.

        Raises:
            PlanError: an execution or a backend that was asked for cannot run there; the message says why.
        """
        if device == "cpu" and "graph" in self.get("execution", ()):
            raise PlanError("execution graph means CUDA graphs, which need a GPU; on the CPU choose eager or compile")
        plan = self.but(device=device)
        if plan.get("paired_with"):
            text, _, backend = plan.paired_with.partition("/")
            name, _ = mixers.parse(text)
            (exact,) = plan.exact_backends(mixers.find(name).backends, (backend or AUTO,), strict=True)
            plan = plan.but(paired_with=f"{text}/{exact}")
        if "mixers" in plan and plan.mixers and "backends" in plan:
            plan = plan.but(backends=[f"{variant['mixer']}/{variant['backend']}" for variant in plan.variants()])
        return plan

    def cells(self) -> list[Cell]:
        """All points, task by task.

        Raises:
            PlanError: a point that cannot be, or none at all.
        """
        if self._cells:
            return list(self._cells)
        found: dict[Cell, None] = {}
        for plan, name in itertools.product([self, *map(self._varied, self.get("vary", ()))], self.tasks):
            task = tasks.find(name)
            try:
                for cell in task.cells(plan) if task.cells else plan.product(name):
                    if task.check is not None:
                        task.check(cell)
                    found[cell] = None
            except ValueError as error:
                raise error if isinstance(error, PlanError) else PlanError(str(error)) from None
        if self.get("only"):
            found = {cell: None for cell in found if fits(cell, self.only)}
        if not found:
            most = self.get("most_tokens")
            raise PlanError(
                "no point is left"
                + f" of those that only {shown(self.only)} lets through" * bool(self.get("only"))
                + (f": all have more than {most} tokens a step (most_tokens)" if most else "")
            )
        self._cells = list(found)
        return list(found)

    def _varied(self, text: str) -> Plan:
        """The same plan with the factors of one entry of ``vary``; baselines stand beside the centre alone."""
        changes: dict[str, Any] = {"vary": (), **({"baselines": ()} if self.get("baselines") and self.mixers else {})}
        for part in text.split():
            name, _, values = part.partition("=")
            known = BY_NAME.get(name)
            is_factor = isinstance(known, Axis) or name in ("heads", "match")
            if known is None or not is_factor or name == "tasks" or not values:
                raise PlanError(f"vary takes axes with their values, such as layers=1|4, got {shown(text)}")
            read = [known.read(value) for value in values.split("|")]
            changes[name] = read if known.many or len(read) > 1 else read[0]
        return self.but(**changes)

    def product(self, task: str, **fixed: Any) -> Iterator[Cell]:
        """Every combination of the values of a task's axes, L innermost.

        Args:
            task: its name.
            fixed: fields that have one value; a field that is None is left out.
        """
        own = [axis for axis in AXES if axis.field in tasks.find(task).axes and axis.field not in fixed]
        free = sorted(own, key=lambda axis: axis.field == "n_tokens")
        variants = list(self.variants()) if "mixer" in [axis.field for axis in own] else [{}]
        names = [axis.field for axis in free if axis.field not in ("mixer", "backend")]
        for variant in variants:
            for values in itertools.product(*(self._values(axis) for axis in free if axis.field in names)):
                fields = self._with_params({**dict(zip(names, values, strict=True)), **variant, **fixed})
                if fields.get("dtype") != "float32":
                    fields.pop("precision", None)
                n_rows = fields.get("batch_size", 1)
                n_tokens = fields.get("n_tokens", 0) * (1 if n_rows == AUTO else n_rows)
                if not self.get("most_tokens") or n_tokens <= self.most_tokens:
                    cell = Cell(task=task, **{name: value for name, value in fields.items() if value is not None})
                    yield matched(cell, self.get("match", "depth"))

    def _with_params(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with all parameters of the mixer, and of the one that it is paired with, which is not itself."""
        if PARAMS not in fields:
            return fields
        fields[PARAMS] = self._params(fields["mixer"], fields[PARAMS], fields)
        if fields.get("paired_with"):
            text, _, backend = fields["paired_with"].partition("/")
            name, params = mixers.parse(text)
            other = f"{mixers.spell(name, self._params(name, params, fields))}/{backend}"
            own = f"{mixers.spell(fields['mixer'], fields[PARAMS])}/{fields['backend']}"
            fields["paired_with"] = "" if other == own else other
        return fields

    def _params(self, mixer: str, given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        best = mixers.find(mixer).best(fields["d_model"], fields["device"]) if self.heads == BEST else {}
        return {**mixers.defaults(mixer), **best, **given}

    def variants(self) -> Iterator[dict[str, Any]]:
        """Every mixer with the parameters that were given and each of its exact backends."""
        for text in self.mixers:
            name, params = mixers.parse(text)
            backends = mixers.find(name).backends
            own = [each for each in self._backends_of(name) if each == AUTO or each in backends] or [AUTO]
            for backend in self.exact_backends(backends, own, strict="backends" in self.typed):
                yield {"mixer": name, PARAMS: params, "backend": backend}

    def exact_backends(self, backends: Backends, names: Iterable[str], *, strict: bool) -> tuple[str, ...]:
        """Exact names, without repeats, that run on the plan's device with each of its dtypes.

        One that does not is refused or, where not ``strict``, kept.

        Raises:
            PlanError: refused, or ``auto`` is not the same for all dtypes; the message says why.
        """
        device, dtypes = self.get("device", "cpu"), self.get("dtype", ())
        found = []
        for name in names:
            try:
                found.append(backends.resolve(name, device, "float64" in dtypes))
                if len(dtypes) > 1 and (usual := backends.resolve(name, device)) != found[-1]:
                    raise PlanError(
                        f"dtype float64 runs on {found[-1]} and the others on {usual}: give float64 a run of its own, "
                        f"or name the backend of all"
                    )
            except BackendError as error:
                if strict or name not in backends:
                    raise PlanError(str(error)) from None
                found.append(name)
        return tuple(dict.fromkeys(found))

    def _backends_of(self, mixer: str) -> list[str]:
        """Names that a mixer may take: those of all mixers, and those that are written ``MIXER/BACKEND``."""
        split = [each.rpartition("/") for each in self.get("backends", ())]
        return [backend for owner, _, backend in split if owner in ("", mixer)]

    def _values(self, axis: Axis) -> tuple[Any, ...]:
        value = self[axis.name]
        return value if axis.many and not axis.whole else (value,)

    def _check_mixers(self) -> None:
        try:
            known = [mixers.find(mixers.parse(text)[0]) for text in self.mixers]
            if paired := self.get("paired_with"):
                known.append(mixers.find(mixers.parse(paired.partition("/")[0])[0]))
        except ValueError as error:
            raise PlanError(str(error)) from None
        valid = {AUTO}.union(*(spec.backends for spec in known))
        for name in (*self.get("backends", ()), paired.partition("/")[2] if paired else ""):
            name = name.rpartition("/")[2]
            if name and name not in valid:
                choices = "; ".join(f"for {spec.name}: {AUTO}, {', '.join(spec.backends)}" for spec in known)
                raise PlanError(f"unknown backend {shown(name)}; choose {choices}")

    def _check_size(self) -> None:
        apart = ("mixers", "backends", "ks", "learning_rates", "vary")
        n_cells = math.prod(len(each) for name, each in self.items() if isinstance(each, tuple) and name not in apart)
        names = [mixers.parse(text)[0] for text in self.get("mixers", ())]
        own = [(mixers.find(name).backends, self._backends_of(name)) for name in names]
        n_cells *= sum(max(1, sum(each in known for each in asked)) for known, asked in own) or 1
        if n_cells > MAX_CELLS:
            raise PlanError(f"the axes multiply to {n_cells:,} cells, more than {MAX_CELLS:,}; shorten one")
