"""Profiling one cell, in the child: time by region, the machine's roof, and what torch's profiler tells."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, feature_spec
from bench.records.region import Region
from bench.records.text import printable
from bench.run import measure, roof, stopping
from bench.run.probes import Reading, clocks, memory, wall
from bench.run.profiler.kernels import MOST_EVENTS, MOST_STEPS, Kernels, count_events, profile_step
from bench.run.profiler.timeline import Split, timeline_for
from bench.run.profiler.trace import write_trace
from bench.run.profiler.work import step_work
from bench.run.tasks.train_step import training
from ftmamba.encoder import FTEncoder
from ftmamba.features import random_batch
from ftmamba.threads import set_threads
from ftmamba.two_tower import TwoTower

FEWEST = 3  # steps, with the instrument and without
MOST = 200
SMALL_SHARE = 1e-3  # of the time of all ops; ops of less are counted together
SMALL_OPS = "(small ops)"


def profile_cell(cell: Cell, request: dict[str, Any], trace: Path, content_tokens: int = 0) -> dict[str, Any]:
    """Time the cell's step plain and by region, in turns, then profile it.

    Args:
        cell: executed eagerly.
        request: the runner's, with the number of threads, and seconds of timed iterations, plain and marked together.
        trace: file to write.
        content_tokens: where positive, a second tower of this many tokens makes the step a two-tower one.

    Raises:
        WrongResultError: the result is not finite.
    """
    set_threads(request["threads"])
    outside = Region(name="loss" if cell.task == "train_step" else "other")
    build(cell.but(n_tokens=min(cell.n_tokens, measure.WARM_UP_TOKENS)), content_tokens and 2)()
    step = build(cell, content_tokens)
    started = time.perf_counter()
    first_s, reading = measure.first_step(step, cell.device)
    memory.keep_heap()
    roof_before = roof.measure(cell.device, getattr(torch, cell.dtype))
    gc.collect()
    gc.disable()
    sampler = clocks.sampler_for(cell.device)
    sampler.start()
    plain, splits = time_in_turns(step, outside, cell.device, request["settings"]["budget_s"], first_s)
    reading += sampler.stop()
    samples = {"wall_s": plain, "marked_wall_s": [sum(split.values()) for split in splits]}
    for region in dict.fromkeys(region for split in splits for region in split):
        samples[f"region_s:{region}"] = [split.get(region, 0.0) for split in splits]
    gc.enable()
    reading += roof.highest(roof_before, roof.measure(cell.device, getattr(torch, cell.dtype)))
    fused = any(region.name == "mamba_layer" for split in splits for region in split)
    for region, work in step_work(cell, content_tokens, fused=fused).items():
        least = {"flops": work.flops, "exps": work.exps, "min_bytes": work.n_bytes}
        reading.values.update({f"{name}:{region}": amount for name, amount in least.items() if amount})
    reading += profiled(step, outside, cell.device, trace)
    samples = {name: [round(seconds, 9) for seconds in each] for name, each in samples.items()}
    return measure.reply_of(samples, reading, time.perf_counter() - started)


def build(cell: Cell, content_tokens: int = 0) -> Callable[[], Tensor]:
    """The cell's step; with ``content_tokens`` the same step of two towers, of which the cell's is the user tower."""
    if not content_tokens:
        return measure.build(cell)
    torch.manual_seed(cell.seed)
    tables = [feature_spec(n) for n in (cell.n_tokens, content_tokens)]
    dtype = getattr(torch, cell.dtype)
    model = TwoTower(*(FTEncoder(encoder_spec(cell), table) for table in tables)).to(cell.device, dtype)
    generator = torch.Generator().manual_seed(cell.seed)
    users, contents = (random_batch(table, cell.batch_size, generator).to(cell.device, dtype) for table in tables)
    model.train(cell.task == "train_step")

    def score() -> Tensor:
        return model(users, contents)  # type: ignore[no-any-return]

    labels = (torch.arange(cell.batch_size, device=cell.device) % 2).to(dtype)
    return training(score, labels, model.parameters()) if model.training else torch.no_grad()(score)


def time_in_turns(
    step: Callable[[], object], outside: Region, device: str, budget_s: float, first_s: float
) -> tuple[list[float], list[Split]]:
    """Seconds of plain steps, and of marked steps by region; a few of each in turn, so that drift meets both."""
    clock, timeline = wall.clock_for(device), timeline_for(device, outside)
    typical_s = stopping.warm_up(clock, step, budget_s * stopping.WARM_UP_SHARE, first_s)
    n = max(1, int(stopping.READING_S / typical_s))
    plain: list[float] = []
    splits: list[Split] = []
    spent = 0.0
    while len(splits) < FEWEST or (spent < budget_s and len(splits) < MOST):
        plain += clock.read(step, n)
        splits += timeline.read(step, n)
        spent = sum(plain) + sum(sum(split.values()) for split in splits)
    return plain, splits


def profiled(step: Callable[[], object], outside: Region, device: str, trace: Path) -> Reading:
    """What torch's profiler tells of the step. Whatever goes wrong in it, the times by region are not lost."""
    found = Reading()
    try:
        n_events = count_events(step)
        if n_events > MOST_EVENTS:
            reason = f"{n_events:,} events a step are more than torch's profiler can list in a minute"
            return Reading(notes={"op_s": reason})
        kernels = profile_step(step, outside, device, min(MOST_STEPS, max(1, MOST_EVENTS // n_events - 1)))
        found = reading_of(kernels)
        write_trace(kernels, trace)
    except Exception as error:  # torch's profiler, no memory for its tables, a full disk
        what = "trace" if found.values else "op_s"
        found.notes[what] = f"{type(error).__name__}: {printable(str(error))[:300]}"
    return found


def reading_of(kernels: Kernels) -> Reading:
    """The profiler's figures, by name of region and op."""
    values: dict[str, float | int | None] = {}
    for (name, op), (seconds, calls) in merged(kernels).items():
        values[f"op_s:{name}:{op}"] = round(seconds, 9)
        values[f"op_calls:{name}:{op}"] = calls
    values |= {f"live_bytes:{region}": size for region, size in kernels.live_bytes.items()}
    values["profiled_s"] = kernels.step_s
    if kernels.kernel_s is not None:
        values["kernel_s"] = kernels.kernel_s
    return Reading(values)


def merged(kernels: Kernels) -> dict[tuple[str, str], tuple[float, float]]:
    """Seconds and calls by region and op, small ops of a region together."""
    least = SMALL_SHARE * sum(kernels.op_s.values())
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for (region, op), seconds in kernels.op_s.items():
        key = (str(region), op if seconds >= least else SMALL_OPS)
        before = found.get(key, (0.0, 0.0))
        found[key] = (before[0] + seconds, before[1] + kernels.op_calls[region, op])
    return found
