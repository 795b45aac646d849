"""What the sections of a page are made from: the runs, and what analysis says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bench.analysis.cells import (
    COURSE,
    LOAD,
    METRICS,
    OP,
    OP_CHECK,
    PROFILE,
    VARIANT,
    Variant,
    identity,
    variant_of,
    without,
)
from bench.analysis.cheapest import leading
from bench.analysis.crossover import Crossover, best_against_best
from bench.analysis.groups import grouped
from bench.analysis.history import HistoryCurve, history_curves
from bench.analysis.peers import is_own_mixer
from bench.analysis.quality import Quality, quality_of
from bench.analysis.scaling import Scaling, Summary, summarise
from bench.plan.axes import is_default
from bench.records.store import Run, by_kind
from bench.render import words
from bench.render.blocks import Column
from bench.render.styles import Style, cast

NOT_VERIFIED = "not verified"  # with the reference


@dataclass(frozen=True)
class Findings:
    """Everything that a section may draw on.

    Attributes:
        runs: with names that differ.
        summary: of all their records.
        quality: of their quality records.
        histories, history_problems: of their records of histories.
    """

    runs: tuple[Run, ...]
    summary: Summary
    quality: Quality = field(default_factory=lambda: Quality((), (), ()))
    histories: Sequence[HistoryCurve] = ()
    history_problems: Sequence[str] = ()

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Findings:
        named = _with_own_names(part for run in runs for part in by_kind(run))
        apart = (PROFILE, OP, OP_CHECK, LOAD, COURSE)
        timed = [record for run in named for record in run.records if record.cell.get("task") not in apart]
        return cls(named, summarise(timed), quality_of(*named), *history_curves(*named))

    @cached_property
    def metas(self) -> dict[str, dict[str, Any]]:
        """What each run says of itself and its machine, by its name."""
        return {run.name: run.meta for run in self.runs}

    @cached_property
    def axes(self) -> list[str]:
        """Fields that vary between the cells and name a setting."""
        names = words.varying(cell.cell for cell in self.summary.cells)
        return [name for name in names if name not in ("task", "n_tokens", *VARIANT)]

    @cached_property
    def styles(self) -> dict[str, Style]:
        """How each mixer of the page is drawn."""
        trained = (model.mixer for model in self.quality.models if model.trained)
        reading = (curve.mixer for curve in self.histories if curve.mixer)
        apart = (each.cell for run in self.runs for each in run.records if each.cell.get("task") in (LOAD, COURSE))
        live = (variant_of(cell).mixer for cell in apart if "mixer" in cell)
        return cast([*trained, *reading, *live, *(variant_of(cell.cell).mixer for cell in self.summary.cells)])

    def setting_column(self, place_of: Callable[[Any], tuple[str, Mapping[str, Any]]]) -> list[Column]:
        """The column that says which setting a row is of, from its run and fields; none where there is one setting."""
        return [Column("setting", lambda item: self.where(*place_of(item)))] if self.varies else []

    @cached_property
    def not_verified(self) -> frozenset[Variant]:
        """Those with a number from results that were not compared with the reference's."""
        return frozenset(variant_of(c.cell) for c in self.summary.cells if c.status == "ok" and not c.verified)

    def name(self, variant: Variant) -> str:
        """``mamba/numba``, and whether its numbers are verified."""
        return f"{variant} ({NOT_VERIFIED})" if variant in self.not_verified else str(variant)

    @cached_property
    def best(self) -> list[Crossover]:
        """Each mixer's best backend against the others'; only our own where other libraries' stand beside them."""
        found = best_against_best(self.summary.crossovers, self.summary.cells)
        ours = [each for each in found if is_own_mixer(each.cheaper.mixer) and is_own_mixer(each.dearer.mixer)]
        runs = {each.run for each in ours}
        return [each for each in found if each in ours or each.run not in runs]

    @cached_property
    def leading(self) -> list[Crossover]:
        """Of these the pairs that are worth a word: of two mixers all, of more those that are cheapest in turn."""
        return leading(self.best)

    @cached_property
    def settings(self) -> dict[str, list[Crossover]]:
        """The best crossovers by run and setting, tasks and metrics together; the one that says most comes first."""
        groups = grouped(self.best, lambda found: place(found.run, found.setting))
        reach = {key: sum(len(found.lengths) for found in group) for key, group in groups.items()}
        return dict(sorted(groups.items(), key=lambda item: -reach[item[0]]))

    def curves(self) -> dict[str, list[Scaling]]:
        """Scalings by run and setting, in the order of ``settings``."""
        curves = grouped(self.summary.scalings, lambda scaling: place(scaling.run, scaling.curve))
        return {key: curves.get(key, []) for key in (*self.settings, *curves)}

    @cached_property
    def varies(self) -> bool:
        """Whether there is more than one setting or run, so that a row or picture has to say which it is of."""
        return bool(self.axes) or self._several_runs

    @cached_property
    def _several_runs(self) -> bool:
        return len({cell.run for cell in self.summary.cells}) > 1

    def where(self, run: str, fields: Mapping[str, Any]) -> str:
        """The setting in words, as far as it varies on this page; empty when nothing does."""
        parts = [run] if self._several_runs else []
        return ", ".join(part for part in (*parts, words.setting(fields, only=self.axes)) if part)


def place(run: str, fields: Mapping[str, Any]) -> str:
    """One string for a run and a setting, whatever the task and the mixer; tasks share what is not a default."""
    shared = without(fields, "task", "n_tokens", *VARIANT).items()
    return identity({"run": run, "setting": {name: value for name, value in shared if not is_default(name, value)}})


def in_order(crossovers: Sequence[Crossover]) -> list[Crossover]:
    """By metric, then by task."""
    return sorted(crossovers, key=lambda found: (METRICS.index(found.metric), str(found.setting.get("task"))))


def _with_own_names(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Each run's records under the run's name, with a number added where two runs have the same."""
    named: list[Run] = []
    for run in runs:
        name, count = run.name, 1
        while any(name == other.name for other in named):
            count += 1
            name = f"{run.name} ({count})"
        named.append(replace(run, name=name, records=[replace(record, run=name) for record in run.records]))
    return tuple(named)
