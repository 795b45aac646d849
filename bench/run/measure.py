"""Measuring one cell, in the child: build, warm up, peak memory, then time."""

from __future__ import annotations

import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, table_spec
from bench.run import caches, ranks, stopping
from bench.run.graph import GraphedStep
from bench.run.precision import compute_as
from bench.run.probes import Reading, clocks, energy, memory, wall
from bench.run.verify import WrongResultError as WrongResultError  # part of what ``measure`` raises
from bench.run.verify import verify
from ftmamba import mixers
from ftmamba.encoder import FTEncoder
from ftmamba.features import random_batch
from ftmamba.threads import get_threads, set_threads

WARM_UP_TOKENS = 64


def measure(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Run the cell's step until its time is known.

    Args:
        cell: of a task that has ``prepare``.
        request: the runner's: ``threads``; ``verified``, whether the cell's results were compared with the reference
            before; ``settings`` with ``budget_s``, seconds of timed iterations; ``import_s``, what the imports of a
            fresh process took, absent or None in one that has measured a cell before, which has no first call.

    Returns:
        The reply: raw readings, single values and notes, and the state of this process. ``first_call_s`` is what it
        takes until a short sequence has gone through a new tower: kernels are compiled, or read from where an earlier
        process kept them, libraries are loaded, thread pools started.

    Raises:
        WrongResultError: the result is not finite, or not the reference's.
    """
    budget_s = request["settings"]["budget_s"]
    # A short sequence through the same code first: thread pools, compiled kernels and libraries' work space come into
    # being here, and are not the cell's memory.
    started = time.perf_counter()
    warm_up(cell, request["threads"])
    first_call = {"import_s": request.get("import_s"), "first_call_s": round(time.perf_counter() - started, 6)}
    notes = {} if request["verified"] else {"verify": verify(cell)}
    alone_s = ranks.alone_s(cell.device, lambda: build(cell))
    step = build(cell)
    started = time.perf_counter()
    first_s, reading = first_step(step, cell.device)
    if cell.cache == "cold":
        step, notes["cache"] = caches.in_turn(step, lambda: build(cell), cell.device)
    if cell.heap == "kept":
        memory.keep_heap()
    clock, sampler = wall.clock_for(cell.device), clocks.sampler_for(cell.device)
    gc.collect()
    gc.disable()
    sampler.start()
    if not cell.paired_with:
        seconds, ended_by = stopping.collect(clock, step, budget_s, first_s=first_s)
        samples = {"wall_s": seconds}
    else:
        text, _, backend = cell.paired_with.partition("/")
        mixer, params = mixers.parse(text)
        partner = cell.but(mixer=mixer, params=params, backend=backend)
        other = build(partner)
        other_first_s = first_s_of(other, cell.device)
        if cell.cache == "cold":
            other, _ = caches.in_turn(other, lambda: build(partner), cell.device)
        seconds, others, ratios, ended_by = stopping.collect_in_turns(
            clock, step, other, budget_s, first_s=first_s, other_first_s=other_first_s
        )
        samples = {"wall_s": seconds, "paired_wall_s": others, "paired_ratio": ratios}
        notes["paired_with"] = cell.paired_with
    reading += sampler.stop() + Reading(first_call if request.get("import_s") else {}, {**notes, "wall_s": ended_by})
    reading += Reading(ranks.efficiency(alone_s, statistics.median(seconds)))
    reading += energy.energy_of(energy.meter_for(cell.device), clock, step, statistics.median(seconds))
    return reply_of(samples, reading, time.perf_counter() - started)


def warm_up(cell: Cell, threads: int) -> None:
    """A short sequence through the cell's code.

    Raises:
        WrongResultError: the result is not finite.
    """
    set_threads(threads)
    check_finite(build(cell.but(n_tokens=min(cell.n_tokens, WARM_UP_TOKENS)))())  # which waits for a GPU


def reply_of(samples: dict[str, list[float]], reading: Reading, measured_s: float) -> dict[str, Any]:
    """What the runner is told; ``measured_s`` are the seconds spent in the cell's own iterations."""
    return {
        "samples": samples, "values": reading.values, "notes": reading.notes, "env": process_state(),
        "measured_s": measured_s,
    }  # fmt: skip


def first_step(step: Callable[[], Tensor], device: str) -> tuple[float, Reading]:
    """Run ``step`` once; its seconds, roughly, and its peak memory. On CUDA it runs once more for its seconds.

    Raises:
        WrongResultError: the result is not finite.
    """
    results: list[Tensor] = []
    clock = wall.clock_for(device)  # inside of the probe, which takes its time to start and end
    (first_s,), reading = memory.peak_of(lambda: clock.read(lambda: results.append(step()), 1), device)
    check_finite(results[0])
    return first_s_of(step, device, begun=True) if device == "cuda" else first_s, reading


def first_s_of(step: Callable[[], object], device: str, *, begun: bool = False) -> float:
    """Seconds of an iteration, roughly: on CUDA of the second, as the first may compile, allocate, make a graph."""
    clock = wall.clock_for(device)
    if device == "cuda" and not begun:
        clock.read(step, 1)
    return clock.read(step, 1)[0]


def check_finite(result: Tensor) -> None:
    """Wait for a result.

    Raises:
        WrongResultError: it is not finite.
    """
    if not bool(torch.isfinite(result).all()):
        raise WrongResultError("the result is not finite")


def build(cell: Cell) -> Callable[[], Tensor]:
    """The cell's step: its tower and its batch, made from the cell's seed, on its device."""
    torch.manual_seed(cell.seed)
    dtype = getattr(torch, cell.dtype)
    features = table_spec(cell)
    tower = FTEncoder(encoder_spec(cell), features).to(cell.device, dtype)
    batch = random_batch(features, cell.batch_size, torch.Generator().manual_seed(cell.seed)).to(cell.device, dtype)
    compute_as(cell, tower)
    prepare = importlib.import_module(f"bench.run.tasks.{cell.task}").prepare
    if cell.execution == "compile":
        tower.compile(fullgraph=True)  # a graph break is an error, not a slower result
        prepare(tower, batch)()  # compiles now, with an optimizer of its own: the compiler's memory is not the cell's
    step: Callable[[], Tensor] = prepare(tower, batch)
    return GraphedStep(step) if cell.execution == "graph" else step


def process_state() -> dict[str, Any]:
    """What may differ between the processes of one run."""
    state: dict[str, Any] = {"threads": get_threads(), "precision": precision()}
    if hasattr(os, "sched_getaffinity"):
        state["affinity"] = sorted(os.sched_getaffinity(0))
    return state


def precision() -> dict[str, Any]:
    """Settings of this process under which the same code computes other digits, at another speed."""
    return {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "flush_denormal": not (torch.tensor([1e-40]) * 0.5).item(),
        "autocast": [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)],
    }
