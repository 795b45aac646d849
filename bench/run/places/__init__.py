"""Places where cells run: this machine, a Ray cluster, jobs of Slurm; one file each.

The driver alone writes records. It hands out requests, plain data, and takes what comes back; see ``bench.run.fleet``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plan import tasks
from bench.plan.plan import Plan
from bench.run import environment, provenance
from bench.run.environment import IDENTITY, MachineError

LOCAL = "local"
NAMES = (LOCAL, "ray", "slurm")
PROBE_S = 3600.0  # until a machine answers: a job may wait in a queue


@dataclass(frozen=True)
class Berth:
    """What a place can give work to: a node of Ray, a job of Slurm.

    Attributes:
        key: by which the place knows it.
        cpus: that may be asked for at once.
        gpus: likewise.
        most: slots that it can have.
    """

    key: str
    cpus: int
    gpus: int
    most: int


@dataclass(frozen=True)
class Slot:
    """Where one cell runs at a time, on processors that no other slot has.

    Attributes:
        berth: it belongs to.
        machine: the machine's name, see ``bench.run.provenance.machine_name``.
        cpus: its own processors.
    """

    berth: Berth
    machine: str
    cpus: tuple[int, ...]


class Place(ABC):
    """Runs what is asked for somewhere. Use as a context manager; what still runs at its end is stopped.

    Attributes:
        berths: what there is.
    """

    berths: list[Berth]

    @abstractmethod
    def submit(self, berth: Berth, what: str, request: dict[str, Any], n_cpus: int) -> int:
        """Ask a berth for a function of ``bench.run.places.remote``; returns the number of the call."""

    @abstractmethod
    def wait(self, timeout_s: float) -> list[tuple[int, dict[str, Any] | str]]:
        """Calls that have ended meanwhile, each with its reply or why it was lost; perhaps none."""

    @abstractmethod
    def renewed(self, berth: Berth) -> Berth | None:
        """The berth after a call to it was lost, or None where it is gone."""

    @abstractmethod
    def close(self) -> None:
        """Stop what runs, and let go of it."""

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, berths: Sequence[Berth], what: str, request: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The replies of berths, by their keys.

        Raises:
            MachineError: one gave none.
        """
        calls = {self.submit(berth, what, request, berth.cpus): berth.key for berth in berths}
        replies: dict[str, dict[str, Any]] = {}
        while calls:
            for call, reply in self.wait(PROBE_S):
                if isinstance(reply, str) or "failed" in reply:
                    raise MachineError(
                        f"a worker gave no answer: {reply if isinstance(reply, str) else reply['failed']}"
                    )
                replies[calls.pop(call)] = reply
        return replies


def open_place(on: str, folder: Path, plan: Plan, workers: int) -> Place:
    """The place of that name, which may say where: ``ray:local``, ``ray:ADDRESS``, ``slurm:local``.

    Args:
        on: not ``local``.
        folder: that a place may use beside the records.
        plan: what will be run.
        workers: jobs of Slurm that measure at the same time.

    Raises:
        MachineError: its engine is not installed, or not running; the message is one line.
    """
    name, _, where = on.partition(":")
    if name == "ray":
        from bench.run.places.ray import Ray

        return Ray(where)
    from bench.run.places.slurm import Slurm

    return Slurm(where, folder, plan, workers)


def look_around(place: Place, plan: Plan, *, unlike: bool) -> tuple[dict[str, dict[str, Any]], list[Slot]]:
    """What machines there are, and their slots.

    Args:
        place: open.
        plan: for whose tasks; one slot a machine where the CPU is timed.
        unlike: let machines take part that are not alike.

    Returns:
        Facts of each machine by its name, with ``kind``, the same for machines that are alike; and the slots.

    Raises:
        MachineError: no machine, another version of the project on one, or machines that are not alike.
    """
    seen = place.ask(place.berths, "look", {"variables": environment.thread_variables()})
    if not seen:
        raise MachineError("the cluster has no machine with a processor to give")
    own = provenance.code_id()
    if stale := sum(each["code"] != own for each in seen.values()):
        raise MachineError(
            f"{stale} of {len(seen)} workers have another version of this project; install the same on all"
        )
    first: dict[str, str] = {}
    for key, each in seen.items():
        first.setdefault(each["machine"], key)
    probed = place.ask(
        [berth for berth in place.berths if berth.key in first.values()], "probe",
        {"variables": environment.thread_variables(), "probe": environment.wanted_of(plan)},
    )  # fmt: skip
    machines = {name: {**probed[key], "kind": kind_of(probed[key])} for name, key in first.items()}
    kinds = dict.fromkeys(facts["kind"] for facts in machines.values())
    if len(kinds) > 1 and not unlike:
        raise MachineError(f"machines are not alike: {' | '.join(kinds)}; take some away, or give --unlike-machines")
    device = environment.resolve_device(plan.device, next(iter(machines.values())))
    timed = any(tasks.find(each).timed for each in plan.tasks)
    slots = slots_of(place.berths, seen, timed=timed, device=device, threads=plan.get("threads", 0))
    if not slots:
        raise MachineError("no worker has what a cell asks for: its threads, or a GPU")
    return machines, slots


def kind_of(machine: dict[str, Any]) -> str:
    """What machines that are alike have in common."""
    return ", ".join(f"{what} {identify(machine)}" for what, identify in IDENTITY.items())


def slots_of(
    berths: Sequence[Berth], seen: dict[str, dict[str, Any]], *, timed: bool, device: str, threads: int
) -> list[Slot]:
    """Slots with processors of their own: one a GPU; one a machine where its CPU is timed; else as many as fit.

    Args:
        berths: of the place; several may be on one machine.
        seen: by their keys, ``machine`` and ``cpus``, the processors that each may run on.
        timed: whether a neighbour would spoil the readings.
        device: of the cells.
        threads: of a cell; 0 gives it all processors of a berth.
    """
    taken: dict[str, set[int]] = {}
    slots: list[Slot] = []
    berths_of = {key: [each for each in berths if seen[each.key]["machine"] == seen[key]["machine"]] for key in seen}
    for turn in range(max((berth.most for berth in berths), default=0)):
        for berth in berths:
            machine, own = seen[berth.key]["machine"], seen[berth.key]["cpus"]
            used = taken.setdefault(machine, set())
            free = [each for each in own if each not in used]
            if device == "cuda":
                n_gpus = sum(each.gpus for each in berths_of[berth.key])
                n, fits = len(own) // n_gpus if n_gpus else 0, turn < berth.gpus
            else:
                n, fits = min(len(own) if timed or not threads else threads, berth.cpus), not (timed and used)
            if turn < berth.most and fits and 0 < n <= len(free):
                used.update(free[:n])
                slots.append(Slot(berth, machine, tuple(free[:n])))
    return slots
