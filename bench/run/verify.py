"""A wrong kernel must not get a number: a cell's backend against the reference, before it is timed."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.plan import tasks
from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, table_spec
from bench.run.precision import compute_as
from ftmamba import mixers
from ftmamba.encoder import FTEncoder
from ftmamba.features import random_batch

REFERENCE = "reference"
LONGEST = 1000  # tokens; long enough that kernels split the sequence, short enough for the reference's loop
MOST_ROWS = 2
ALLOWANCE = 10.0  # times the error that plain torch makes in the same dtype


class WrongResultError(ArithmeticError):
    """It ran, but what it computed cannot be right."""


def verify(cell: Cell) -> str:
    """Compare the tower's output, and for training its gradients, with those of the reference backend in float64.

    The scale of the error is what plain torch makes in the cell's own dtype, on the same weights and rows. Other
    libraries' Mamba layers name their weights as ours does, so they are held against our reference. A compiled tower
    is compiled here too; what a CUDA graph replays are the same kernels.

    Returns:
        One line on what was compared.

    Raises:
        WrongResultError: the error is too large.
    """
    mixer = mixers.find(cell.mixer).peer_of or cell.mixer
    if REFERENCE not in mixers.find(mixer).backends:
        return f"not compared: {cell.mixer} has no reference"
    period = mixers.find(cell.mixer)(**cell.params).period()
    small = cell.but(
        n_tokens=min(cell.n_tokens, LONGEST),
        batch_size=min(cell.batch_size, MOST_ROWS),
        n_layers=1 + max(cell.task.startswith("block_"), min(cell.n_layers - 1, period)),  # [CLS] alone in the last
    )
    params = {name: cell.params[name] for name in mixers.defaults(mixer) if name in cell.params}
    plain_cell = small.but(mixer=mixer, params=params, backend=REFERENCE, execution="eager")
    dtype, weights = getattr(torch, cell.dtype), build(small).state_dict()
    truth = results(plain_cell, torch.float64, weights)
    error, usual = (relative_error(results(each, dtype, weights), truth) for each in (small, plain_cell))
    bound = ALLOWANCE * max(usual, torch.finfo(dtype).eps)
    if not error <= bound:  # not a number is not within the bound either
        raise WrongResultError(
            f"backend {cell.backend} is off by {error:.2g} of the largest value at n_tokens {small.n_tokens}, "
            f"where plain torch is off by {usual:.2g}"
        )
    return f"off the float64 reference by {error:.1g} at n_tokens {small.n_tokens}, plain torch by {usual:.1g}"


def build(cell: Cell) -> FTEncoder:
    """The cell's tower; weights are rounded to its dtype."""
    torch.manual_seed(cell.seed)
    return FTEncoder(encoder_spec(cell), table_spec(cell)).to(cell.device, getattr(torch, cell.dtype))


def results(cell: Cell, dtype: torch.dtype, weights: dict[str, Tensor]) -> list[Tensor]:
    """The tower's output in ``dtype``, then for training the gradients of its squared sum by name, in float64."""
    tower = build(cell)
    tower.load_state_dict(weights)
    tower.to(dtype=dtype)
    compute_as(cell if dtype != torch.float64 else cell.but(precision="own"), tower)
    if cell.execution == "compile":
        tower.compile(fullgraph=True)
    rows = random_batch(table_spec(cell), cell.batch_size, torch.Generator().manual_seed(cell.seed))
    made_in = getattr(torch, cell.dtype)  # rounds the rows, whatever they are then computed in
    training = tasks.find(cell.task).training
    with torch.set_grad_enabled(training):
        output = tower(rows.to(cell.device, made_in).to(cell.device, dtype))
        if training:
            output.square().sum().backward()
    named = sorted(tower.named_parameters())  # libraries register them in orders of their own
    gradients = [parameter.grad for _, parameter in named if parameter.grad is not None]
    return [output.detach().double(), *(gradient.double() for gradient in gradients)]


def relative_error(found: list[Tensor], truth: list[Tensor]) -> float:
    """Largest deviation of any tensor over its largest true value; not a number where any is not.

    Gradients that are zero in theory are all rounding error, so small tensors count on the scale of the largest.
    """
    largest = max(float(tensor.abs().max()) for tensor in truth)
    scales = [max(float(tensor.abs().max()), 0.1 * largest) for tensor in truth]
    deviations = [float((a - b).abs().max()) for a, b in zip(found, truth, strict=True)]
    ratios = [deviation / scale for deviation, scale in zip(deviations, scales, strict=True)]
    return max(ratios) if all(ratio == ratio for ratio in ratios) else float("nan")
