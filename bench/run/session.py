"""One sitting of running a plan into a results folder: begun or resumed, run, perhaps interrupted, concluded.

Every command that runs a plan does it here, whatever the plan's tasks are.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.plan.plan import NOT_MEASURED, Plan
from bench.records.store import RunError, run_name
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.run import environment, places, provenance
from bench.run.attempt import busy_cpu_s
from bench.run.fleet import Fleet
from bench.run.probes import clocks
from bench.run.progress import Progress
from bench.run.runner import Runner, missing, planned

LOOK_S = 0.5  # at what else the machine does, before a run
LOOK_CORES = 0.2  # taken by others in that look, above which it is told


class InterruptedRunError(Exception):
    """Stopped by a person, or by its deadline; the message says what is kept and how to go on."""


class TimeIsUpError(InterruptedRunError):
    """Stopped by its deadline."""


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How a session is held; none of it changes what is measured.

    Attributes:
        command: what continues it, such as ``bench.sweep``.
        argv: the command line after ``python -m``.
        verify: compare each cell's results with the reference before it is timed.
        skip_ahead: leave out cells larger than one that ran out of memory or time.
        retry: run cells again that ended in an error.
        seconds: after so many, finish the cell that runs and stop; 0 for no deadline.
        at_least: so many points are run whatever the time.
        data: folder of the data set, where it is not in the cache.
        quiet: no progress.
        say, warn: where lines for people go.
        on: the place where cells run; see ``bench.run.places``.
        workers: jobs that measure at the same time, where a place asks for jobs.
        unlike: let machines take part that are not alike.
        check: refuses a plan before anything runs, such as one whose data cannot be read.
        about: what else ``run.json`` says.
    """

    command: str
    argv: Sequence[str]
    verify: bool = True
    skip_ahead: bool = True
    retry: bool = False
    seconds: float = 0.0
    at_least: int = 0
    data: Path | None = None
    quiet: bool = False
    on: str = places.LOCAL
    workers: int = 1
    unlike: bool = False
    say: Callable[[str], None] = field(default=print)
    warn: Callable[[str], None] = field(default=print)
    check: Callable[[Plan], None] = field(default=lambda plan: None)
    about: Mapping[str, Any] = field(default_factory=dict)


def begin(plan: Plan, folder: Path, conduct: Conduct) -> None:
    """Run a plan into a new folder.

    Raises:
        PlanError, MachineError: the plan cannot be run here.
        RunError: the folder cannot be used.
        InterruptedRunError: not all of it was run.
    """
    conduct.check(plan)
    with somewhere(plan, folder, conduct) as (machine, runner):
        resolved = plan.resolved(environment.resolve_device(plan.device, machine))
        check_processes(resolved, machine)
        resolved.cells()
        meta = provenance.run_meta(conduct.command, run_name(folder), conduct.argv, resolved.to_dict(), machine)
        with RunWriter.create(folder, {**meta, **conduct.about}) as writer:
            execute(resolved, machine, writer, conduct, runner)


def resume(folder: Path, given: dict[str, Any], typed: frozenset[str], conduct: Conduct) -> None:
    """Run what is missing in ``folder``, on the same machine and with the same settings.

    Args:
        given: settings that were asked for: those of the run, or more rounds, or another way to go about it.
        typed: those of them that a person typed, the others came with a preset.

    Raises:
        As ``begin``; RunError also where a setting or the machine differs.
    """
    with RunWriter.resume(folder) as writer, contextlib.ExitStack() as stack:
        if not isinstance(writer.meta.get("spec"), dict):
            raise RunError(f"{folder} does not hold a run that can be continued")
        saved = Plan(writer.meta["spec"])
        machine, runner = stack.enter_context(somewhere(saved, folder, conduct))
        if not conduct.unlike:
            check_same_machine(folder, writer.meta.get("machine") or {}, machine)
        device = environment.resolve_device(given.get("device", saved.device), machine)
        wanted = Plan({**saved, **given}, typed).resolved(device)
        check_processes(wanted, machine)
        begun = saved.resolved(device)
        for name in wanted:
            value = begun.get(name)
            fewer = name == "rounds" and wanted[name] < begun.rounds
            if fewer or (wanted[name] != value and name not in NOT_MEASURED):
                raise RunError(
                    f"{folder} was begun with {name} {told(value)}, not {told(wanted[name])}; "
                    "leave it out or choose another --out"
                )
        conduct.check(wanted)
        writer.update_meta(spec=wanted.to_dict())
        for problem in writer.problems:
            conduct.warn(problem)
        execute(wanted, machine, writer, conduct, runner)


def told(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@contextlib.contextmanager
def somewhere(plan: Plan, folder: Path, conduct: Conduct) -> Iterator[tuple[dict[str, Any], Callable[..., Runner]]]:
    """Facts about the machine where cells run, or the first of several, and what makes a runner there.

    Raises:
        MachineError: the plan cannot be run there.
    """
    if conduct.on == places.LOCAL:
        yield environment.probe(**environment.wanted_of(plan)), Runner
        return
    with places.open_place(conduct.on, folder, plan, conduct.workers) as place:
        machines, slots = places.look_around(place, plan, unlike=conduct.unlike)
        conduct.say(f"{len(slots)} at a time, machines: {len(machines)}")
        first = {name: value for name, value in next(iter(machines.values())).items() if name != "kind"}
        yield first, partial(Fleet, place=place, machines=machines, slots=slots)


def check_same_machine(folder: Path, saved: object, machine: dict[str, Any]) -> None:
    """Refuse to mix machines, or versions of torch, in one run."""
    for what, identify in environment.IDENTITY.items():
        try:
            before = identify(saved)
        except (KeyError, TypeError):
            before = "unknown"
        if before != identify(machine):
            raise RunError(f"{folder} was begun with {what} {before}, and here is {identify(machine)}; start a new run")


def check_processes(plan: Plan, machine: dict[str, Any]) -> None:
    """Refuse more ranks than there are GPUs, or cores, for them."""
    most = max(plan.get("processes", (1,)))
    if most == 1:
        return
    have, what = (len(machine["gpus"]), "GPUs") if plan.device == "cuda" else (machine["cpu"]["usable_cores"], "cores")
    if most > have:
        raise environment.MachineError(f"processes {most} are more than the {have} {what} that a cell can have here")


def disturbance(device: str) -> str:
    """What takes from the machine's speed at this moment, while this process does nothing; empty if nothing does."""
    sampler, before = clocks.sampler_for(device), busy_cpu_s()
    sampler.start()
    time.sleep(LOOK_S)
    cores, slow = (busy_cpu_s() - before) / LOOK_S, sampler.stop().notes.get("throttled_fraction", "")
    busy = (
        f"busy, others take {cores:.1f} {'core' if f'{cores:.1f}' == '1.0' else 'cores'}" if cores > LOOK_CORES else ""
    )
    return ", ".join(each for each in (busy, slow if slow.startswith("throttled") else "") if each)


def execute(
    plan: Plan, machine: dict[str, Any], writer: RunWriter, conduct: Conduct, make: Callable[..., Runner]
) -> None:  # fmt: skip
    """Run what the open folder does not hold; every record is on the disk before the next cell starts."""
    session: dict[str, Any] = {
        "argv": list(conduct.argv), "git": provenance.git_state(), "started_at": provenance.utc_now(), "ended_at": None,
    }  # fmt: skip
    earlier = writer.meta.get("sessions")
    sessions = [*(earlier if isinstance(earlier, list) else []), session]
    writer.update_meta(sessions=sessions)
    folder = printable(str(writer.folder))
    if not conduct.quiet:
        conduct.say(f"records go to {folder}")
        if conduct.on == places.LOCAL and (found := disturbance(plan.device)):
            conduct.say(f"this machine is {found}: times may come out too long; ratios of --paired-with hold best")
    todo = missing(plan, writer.records, retry=conduct.retry)
    runner = make(plan, machine, writer, conduct)
    deadline = time.monotonic() + conduct.seconds if conduct.seconds else None
    why: type[InterruptedRunError] | None = None
    try:
        with Progress(len(todo), len(planned(plan)) - len(todo), quiet=conduct.quiet) as progress:
            if not runner.run(todo, progress.advance, deadline):
                why = TimeIsUpError
    except KeyboardInterrupt:
        why = InterruptedRunError
    session["ended_at"] = provenance.utc_now()
    writer.update_meta(sessions=sessions, **({} if why else {"ended_at": session["ended_at"]}))
    if why:
        how = f"python -m {conduct.command} --resume --out {shlex.quote(folder)}"
        what = "time is up" if why is TimeIsUpError else "interrupted"
        raise why(f"{what}; all finished records are in {folder}; continue with: {how}")
