"""Running the cells of `bench.gpu_check`: is it right, and how fast is it next to its peers and the machine's roof."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bench.plan.kernels import ATTENTION, BLOCK, CONV, HEAD, ROOF, SCAN, KernelCell
from bench.records.record import Record, Status
from bench.run import roof, stopping
from bench.run.graph import GraphedStep
from bench.run.probes import wall
from bench.run.provenance import utc_now
from ftmamba.backends import Backends
from ftmamba.mixers import BACKENDS_OF, build_mixer
from ftmamba.ops import attention, causal_conv, selective_scan
from ftmamba.spec import MIXERS

OPS: dict[str, Backends] = {
    SCAN: selective_scan.BACKENDS,
    CONV: causal_conv.BACKENDS,
    ATTENTION: attention.BACKENDS,
}
Tensors = dict[str, Tensor]


def run(cell: KernelCell, run_name: str, budget_s: float, roofs: dict[str, Any]) -> Record:
    """One record of one cell, whatever happens; a broken context also sets ``env["poisoned"]``."""
    fields: dict[str, Any] = {"started_at": utc_now()}
    status: Status = "ok"
    try:
        reason = refusal(cell)
        if reason is not None:
            status, fields["reason"] = "skipped", reason
        elif cell.op == ROOF:
            reading = roof.measure(cell.device, getattr(torch, cell.dtype))
            fields |= {"values": reading.values, "notes": reading.notes}
        elif cell.task == "correctness":
            fields["values"] = errors(cell)
            status, fields["reason"] = verdict(fields["values"])
        else:
            samples, notes = time_of(cell, budget_s)
            values = bounds(cell, roofs, statistics.median(samples))
            fields |= {"samples": {"wall_s": samples}, "values": values, "notes": {"wall_s": notes}}
    except torch.OutOfMemoryError as error:
        status, fields["reason"] = "oom", one_line(error)
    except Exception as error:
        status, fields["reason"] = "error", one_line(error)
        fields["env"] = {"poisoned": "CUDA error" in str(error)}
    finally:
        if cell.device == "cuda" and not fields.get("env", {}).get("poisoned"):
            torch.cuda.empty_cache()
    assert status in get_args(Status)
    return Record(run=run_name, cell_id=cell.id, round=0, cell=vars(cell), status=status, **fields)


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def refusal(cell: KernelCell) -> str | None:
    """Why this backend cannot run here, or None."""
    if cell.op == ROOF:
        return None
    mixer, _, name = cell.backend.rpartition(":")
    backends = BACKENDS_OF[mixer] if cell.op == BLOCK else OPS[cell.op]
    if name not in backends:
        return f"{cell.op} has no backend {name}"
    if cell.device == "cpu" and cell.op != BLOCK and name == "triton":
        return None  # a rehearsal: interpreted
    return backends[name].refusal(cell.device)


def inputs(cell: KernelCell, dtype: torch.dtype) -> Tensors:
    """Tensors of an operator, from the cell's seed; parameters in float32 as models hold them.

    mamba_ssm gets the memory layout that it is made for, channels before tokens, so that it need not copy.
    """
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
        heads = (batch, length, width // HEAD, HEAD)
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


def operator(cell: KernelCell, backend: str) -> Callable[..., tuple[Tensor, ...]]:
    """The operator as a function of `inputs`."""
    module = OPS[cell.op].load(backend)
    if cell.op == SCAN:
        return lambda **tensors: tuple(module.selective_scan(**tensors, readout=cell.readout))
    if cell.op == CONV:
        return lambda **tensors: (module.causal_conv(**tensors),)
    return lambda **tensors: (module.attention(**tensors),)


def errors(cell: KernelCell) -> dict[str, float | int | None]:
    """For each output and gradient: its largest error against float64, and that of plain torch at the same dtype.

    Plain torch's counts twice, and a few roundings are allowed, since sums are ordered differently.
    """
    dtype = getattr(torch, cell.dtype)
    truth = results(cell, "reference", torch.float64)
    plain, ours = results(cell, "reference", dtype), results(cell, cell.backend, dtype)
    values: dict[str, float | int | None] = {}
    for name, exact in truth.items():
        rounding = torch.finfo(ours[name].dtype).eps * exact.abs().max()
        usual = (plain[name].double() - exact).abs().max()
        values[f"error:{name}"] = float((ours[name].double() - exact).abs().max())
        values[f"allowed:{name}"] = float(2 * usual + 4 * rounding)
    return values


def verdict(values: dict[str, float | int | None]) -> tuple[Status, str]:
    wrong = []
    for key, error in values.items():
        kind, _, name = key.partition(":")
        allowed = values.get(f"allowed:{name}")
        if kind == "error" and not (error is not None and allowed is not None and error <= allowed):
            wrong.append(f"{name} is off by {error:.2g}, allowed {allowed:.2g}")
    return ("error", "; ".join(wrong)) if wrong else ("ok", "")


def results(cell: KernelCell, backend: str, dtype: torch.dtype) -> Tensors:
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


def time_of(cell: KernelCell, budget_s: float) -> tuple[list[float], str]:
    """Seconds of each iteration, and what ended the timing."""
    step = block_step(cell) if cell.op == BLOCK else operator_step(cell)
    if cell.execution == "graph":
        step = GraphedStep(step)
    step()
    clock = wall.clock_for(cell.device)
    first_s = clock.read(step, 1)[0]
    return stopping.collect(clock, step, budget_s, first_s=first_s)


def operator_step(cell: KernelCell) -> Callable[[], Tensor]:
    tensors = inputs(cell, getattr(torch, cell.dtype))
    function = operator(cell, cell.backend)
    return _step(lambda: function(**tensors)[0], list(tensors.values()), cell)


def block_step(cell: KernelCell) -> Callable[[], Tensor]:
    torch.manual_seed(cell.seed)
    name, _, backend = cell.backend.rpartition(":")
    dtype = getattr(torch, cell.dtype)
    block: nn.Module = build_mixer(MIXERS[name](backend=backend), cell.width).to(cell.device, dtype)
    shape = (cell.batch_size, cell.n_tokens, cell.width)
    x = torch.randn(shape, device=cell.device).to(dtype).requires_grad_()
    return _step(lambda: block(x), [x, *block.parameters()], cell)


def _step(forward: Callable[[], Tensor], leaves: list[Tensor], cell: KernelCell) -> Callable[[], Tensor]:
    if cell.direction == "forward":
        return torch.no_grad()(forward)
    dy = torch.randn_like(forward())

    def train() -> Tensor:
        y = forward()
        torch.autograd.grad(y, leaves, dy)
        return y

    return train


def bounds(cell: KernelCell, roofs: dict[str, Any], seconds: float) -> dict[str, float | int | None]:
    """What a scan or convolution must at least move and compute, and its share of the measured roofs."""
    values: dict[str, float | int | None] = {}
    if cell.op not in (SCAN, CONV):
        return values
    element = getattr(torch, cell.dtype).itemsize
    tokens = cell.batch_size * cell.n_tokens
    train = cell.direction == "train"
    read_all = cell.readout == "all"
    if cell.op == CONV:
        vectors, special = (5 if train else 2), (4 if train else 2) * cell.width
        values["min_bytes"] = tokens * vectors * cell.width * element
    else:
        forward, backward = (4, 7) if read_all else (2, 4)
        vectors = forward + (backward if train else 0)
        values["min_bytes"] = tokens * element * (vectors * cell.width + (3 if train else 1) * 2 * cell.d_state)
        # One exponential a state, and two special functions each for softplus and, with all outputs, for the gate.
        special = cell.width * (cell.d_state + (4 if read_all else 2)) * (2 if train else 1)
    values["min_special_functions"] = tokens * special
    copy = max((rate for name, rate in roofs.items() if name.startswith("roof_bytes_per_s:") and rate), default=None)
    exps = roofs.get("roof_exps_per_s")
    needs = [values["min_bytes"] / copy] if copy and values["min_bytes"] else []
    needs += [values["min_special_functions"] / exps] if exps and values["min_special_functions"] else []
    if needs:
        values["roof_s"] = max(needs)
        values["roof_share"] = max(needs) / seconds
    values |= expected(cell, element) if cell.op == SCAN and cell.backend == "triton" else {}
    return values


def expected(cell: KernelCell, element: int) -> dict[str, float | int | None]:
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


def load_first() -> None:
    """Import what a missing package would otherwise break in the middle of a part."""
    for name in ("ftmamba.ops.selective_scan.triton", "ftmamba.ops.causal_conv.triton"):
        importlib.import_module(name)
