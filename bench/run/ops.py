"""Single operators: are they right, and how fast are they next to their peers and the machine's limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.plan.cell import Cell
from bench.run import caches, stopping
from bench.run.graph import GraphedStep
from bench.run.measure import first_s_of, process_state
from bench.run.precision import set_precision
from bench.run.probes import wall
from ftmamba.ops import backends_of
from ftmamba.ops.selective_scan import ScanInputs

SCAN, CONV, ATTENTION = "selective_scan", "causal_conv", "attention"
GRAPH_S = 2e-4  # a graph lasts so long at least: what is shorter is measured at the pace of its launches
MOST_IN_A_GRAPH = 100  # iterations
Tensors = dict[str, Tensor]


def check(cell: Cell) -> dict[str, Any]:
    """Largest error of every output and gradient, and what is allowed; status ``error`` where one is larger."""
    values = errors(cell)
    reason = wrong(values)
    finite = {name: value if value is not None and value == value else None for name, value in values.items()}
    return {"status": "error" if reason else "ok", "reason": reason, "values": finite}


def time_of(cell: Cell, budget_s: float) -> dict[str, Any]:
    """Seconds of each iteration, and its least work."""
    one = build(cell)
    one()
    times = 1
    if cell.execution == "graph":
        times = math.ceil(GRAPH_S / max(first_s_of(GraphedStep(one), cell.device), GRAPH_S / MOST_IN_A_GRAPH))

    def captured(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return GraphedStep(step, times) if cell.execution == "graph" else step

    step, notes = captured(one), {}
    if cell.cache == "cold":
        step, notes["cache"] = caches.in_turn(step, lambda: captured(build(cell)), cell.device)
    samples, ended_by = stopping.collect(
        wall.clock_for(cell.device), step, budget_s, first_s=first_s_of(step, cell.device)
    )
    return {
        "samples": {"wall_s": [seconds / times for seconds in samples]},
        "values": least_work(cell),
        "notes": {**notes, "wall_s": ended_by if times == 1 else f"{ended_by}, {times} iterations a graph"},
        "env": process_state(),
    }


def build(cell: Cell) -> Callable[[], Tensor]:
    """The operator's step on inputs of its own."""
    tensors = inputs(cell, getattr(torch, cell.dtype))
    function = operator(cell, cell.backend)
    return stepped(lambda: function(**tensors)[0], list(tensors.values()), cell)


def inputs(cell: Cell, dtype: torch.dtype) -> Tensors:
    """Tensors of an operator, from the cell's seed; parameters in float32 as models hold them.

    mamba_ssm gets the memory layout that it is made for, channels before tokens, so that it need not copy.
    """
    set_precision(cell)
    draw = torch.Generator(cell.device).manual_seed(cell.seed)
    batch, length, width = cell.batch_size, cell.n_tokens, cell.width

    def normal(*shape: int, shift: float = 0.0, of: torch.dtype = dtype) -> Tensor:
        value = torch.randn(*shape, generator=draw, device=cell.device).add_(shift)
        value = value.to(getattr(torch, cell.dtype)).to(of)
        if cell.backend == "mamba_ssm" and len(shape) == 3:
            value = value.transpose(1, 2).contiguous().transpose(1, 2)
        return value.requires_grad_(cell.direction == "train")

    wide = torch.promote_types(dtype, torch.float32)
    if cell.op == ATTENTION:
        heads = (batch, length, cell.n_heads, width // cell.n_heads)
        return {name: normal(*heads) for name in ("q", "k", "v")}
    if cell.op == CONV:
        return {"x": normal(batch, length, width), "weight": normal(width, cell.d_conv), "bias": normal(width)}
    n_read = length if cell.readout == "all" else 1
    rates = -torch.arange(1, cell.d_state + 1).float().repeat(width, 1)
    tensors = {
        "x": normal(batch, length, width),
        "dt": normal(batch, length, width),
        "A": rates.to(cell.device, wide).requires_grad_(cell.direction == "train"),
        "B": normal(batch, length, cell.d_state),
        "C": normal(batch, n_read, cell.d_state),
        "D": normal(width, of=wide),
        "z": normal(batch, n_read, width),
        "dt_bias": normal(width, shift=-4.0, of=wide),  # steps of about 0.02, as at the start of training
    }
    if cell.initial_state:
        tensors["initial_state"] = normal(batch, width, cell.d_state, of=wide)
    return tensors


def operator(cell: Cell, backend: str) -> Callable[..., tuple[Tensor, ...]]:
    """The operator as a function of `inputs`."""
    module = backends_of(cell.op).load(backend)
    if cell.op == SCAN:
        return lambda **tensors: tuple(module.selective_scan(ScanInputs(**tensors), readout=cell.readout))
    if cell.op == CONV:
        return lambda **tensors: (module.causal_conv(**tensors),)
    return lambda **tensors: (module.attention(**tensors),)


def errors(cell: Cell) -> dict[str, float | int | None]:
    """For each output and gradient: its largest error against float64, and that of plain torch at the same dtype.

    Of outputs plain torch's counts twice, and a few roundings are allowed, since sums are ordered differently. Of
    gradients it counts ten times, or ten roundings of the tensor's largest: many terms meet in few numbers, whose
    error in one order tells little of that in another.
    """
    dtype = getattr(torch, cell.dtype)
    truth = results(cell, "reference", torch.float64)
    plain, ours = results(cell, "reference", dtype), results(cell, cell.backend, dtype)
    values: dict[str, float | int | None] = {}
    for name, exact in truth.items():
        rounding = torch.finfo(ours[name].dtype).eps * exact.abs().max()
        usual = (plain[name].double() - exact).abs().max()
        values[f"error:{name}"] = float((ours[name].double() - exact).abs().max())
        gradient = name.startswith("d_")
        values[f"allowed:{name}"] = float(10 * max(usual, rounding) if gradient else 2 * usual + 4 * rounding)
    return values


def wrong(values: dict[str, float | int | None]) -> str:
    """What is off by more than is allowed, empty where nothing is."""
    found = []
    for key, error in values.items():
        kind, _, name = key.partition(":")
        allowed = values.get(f"allowed:{name}")
        if kind == "error" and not (error is not None and allowed is not None and error <= allowed):
            found.append(f"{name} is off by {error:.2g}, allowed {allowed:.2g}")
    return "; ".join(found)


def results(cell: Cell, backend: str, dtype: torch.dtype) -> Tensors:
    """Outputs, and the gradients of a fixed random projection of them."""
    tensors = inputs(cell, dtype)
    function = operator(cell, backend)
    draw = torch.Generator(cell.device).manual_seed(cell.seed + 1)
    weights: list[Tensor] = []

    def step() -> Tensor:
        outputs = function(**tensors)
        if not weights:
            weights.extend(torch.randn(o.shape, generator=draw, device=o.device) for o in outputs)
        gradients = torch.autograd.grad(
            outputs, list(tensors.values()), [w.to(o.dtype) for w, o in zip(weights, outputs, strict=True)]
        )
        found.update(zip(["y", "final_state"], outputs, strict=False))
        found.update(zip([f"d_{name}" for name in tensors], gradients, strict=True))
        return outputs[0]

    found: Tensors = {}
    (GraphedStep(step) if cell.execution == "graph" and backend != "reference" else step)()
    return {name: tensor.detach() for name, tensor in found.items()}


def stepped(forward: Callable[[], Tensor], leaves: list[Tensor], cell: Cell) -> Callable[[], Tensor]:
    if cell.direction == "forward":
        return torch.no_grad()(forward)
    dy = torch.randn_like(forward())

    def train() -> Tensor:
        y = forward()
        torch.autograd.grad(y, leaves, dy)
        return y

    return train


def least_work(cell: Cell) -> dict[str, float | int | None]:
    """What a scan or convolution must at least move and compute, and what the scan's own model of launches expects."""
    element = getattr(torch, cell.dtype).itemsize
    tokens = cell.batch_size * cell.n_tokens
    train, read_all = cell.direction == "train", cell.get("readout") == "all"
    if cell.op == CONV:
        return {
            "min_bytes": tokens * (5 if train else 2) * cell.width * element,
            "exps": tokens * (4 if train else 2) * cell.width,
        }
    if cell.op != SCAN:
        return {}
    forward, backward = (4, 7) if read_all else (2, 4)
    vectors = forward + (backward if train else 0)
    # One exponential a state, and two special functions each for softplus and, with all outputs, for the gate.
    exps = cell.width * (cell.d_state + (4 if read_all else 2)) * (2 if train else 1)
    return {
        "min_bytes": tokens * element * (vectors * cell.width + (3 if train else 1) * 2 * cell.d_state),
        "exps": tokens * exps,
        **(expected(cell, element) if cell.backend == "triton" and cell.device == "cuda" else {}),
    }


def expected(cell: Cell, element: int) -> dict[str, float | int | None]:
    """What the scan's own model of launches expects."""
    from ftmamba.ops.gpu import multiprocessors
    from ftmamba.ops.selective_scan.launch import Chip, backward_launch, forward_launch

    chip = Chip(multiprocessors(torch.device(cell.device)))
    shape = (cell.batch_size, cell.n_tokens, cell.width, cell.d_state)
    train = cell.direction == "train"
    launches = [forward_launch(shape, element, train, chip)]
    launches += [backward_launch(shape, element, chip)] if train else []
    return {
        "expected_s": sum(launch.seconds for launch in launches),
        **{f"chunks:{i}": launch.n_chunks for i, launch in enumerate(launches)},
    }
