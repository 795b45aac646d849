"""What a cell took over runs, machine by machine, oldest first, and the steps in it.

A step is a verdict of `bench.compare` between two runs that follow one another on a machine. A cell that the run before
did not have is held against the last one that did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.cells import identity
from bench.analysis.compare import CellChange, RunChange
from bench.analysis.estimate import Estimate
from bench.records.store import Run

STEPS = ("slower", "worse", "faster", "better")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One cell in one run.

    Attributes:
        run, when, commit: of it; ``when`` as ISO 8601, ``commit`` short, with a plus where the tree had changes.
        estimate: of the metric.
        change: from the run before; None in the first.
    """

    run: str
    when: str
    commit: str
    estimate: Estimate
    change: CellChange | None

    @property
    def is_step(self) -> bool:
        return self.change is not None and self.change.verdict in STEPS


@dataclass(frozen=True, kw_only=True)
class Past:
    """One cell on one machine."""

    cell_id: str
    cell: Mapping[str, Any]
    machine: str
    readings: Sequence[Reading]

    @property
    def steps(self) -> list[Reading]:
        return [reading for reading in self.readings if reading.is_step]


def pasts(runs: Sequence[Run], compare: Callable[[Run, Run], RunChange]) -> list[Past]:
    """Every cell on every machine, those with most steps first.

    Args:
        compare: two runs, by the metric that is asked for.
    """
    found: dict[tuple[str, str], list[Reading]] = {}
    about: dict[tuple[str, str], CellChange] = {}
    latest: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: str(run.meta.get("started_at") or "")):
        machine = machine_of(run.meta)
        own = {(machine, _key(each)): each for each in compare(run, run).cells if each.after}
        earlier = {latest[key].folder: latest[key] for key in own if key in latest}
        changes = {folder: {_key(each): each for each in compare(old, run).cells} for folder, old in earlier.items()}
        for key, each in own.items():
            assert each.after is not None
            change = changes[latest[key].folder].get(key[1]) if key in latest else None
            found.setdefault(key, []).append(
                Reading(run=run.name, when=str(run.meta.get("started_at") or ""), commit=commit_of(run.meta),
                        estimate=each.after, change=change)
            )  # fmt: skip
            about[key], latest[key] = each, run
    listed = [
        Past(cell_id=about[key].cell_id, cell=about[key].cell, machine=key[0], readings=readings)
        for key, readings in found.items()
    ]
    return sorted(listed, key=lambda past: (-len(past.steps), -len(past.readings)))


def machine_of(meta: Mapping[str, Any]) -> str:
    """``AMD EPYC, 2 cores``, or a GPU's name; empty where the run does not say."""
    machine = meta.get("machine")
    parts = machine if isinstance(machine, Mapping) else {}
    cpu, gpus = parts.get("cpu"), parts.get("gpus")
    named = [str(gpu["name"]) for gpu in gpus if isinstance(gpu, Mapping) and "name" in gpu] if gpus else []
    told = cpu if isinstance(cpu, Mapping) else {}
    cores = told.get("usable_cores") or told.get("cores")
    return ", ".join([*named, str(told.get("model", "")), f"{cores} core{'s' * (cores != 1)}" if cores else ""]).strip(
        ", "
    )


def commit_of(meta: Mapping[str, Any]) -> str:
    git = meta.get("git")
    told = git if isinstance(git, Mapping) else {}
    return str(told.get("commit") or "")[:9] + ("+" if told.get("dirty") else "")


def _key(change: CellChange) -> str:
    """Heap, threads and partner are in it, though bench.compare looks past them: other settings are no step."""
    return identity(change.cell)
