"""What each region of a step has to do at least: the conventions of ``ftmamba.cost``, region by region.

Bytes are those of a region that reads its inputs and weights once and writes its output once; its backward pass reads
them again with the output's gradient, and writes the gradients of both. Exponentials are those of the scan's decays and
of the softmax, computed again in the backward pass: keeping them would cost more.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.plan.axes import DTYPE_BYTES
from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, feature_spec
from bench.records.region import Region
from ftmamba.cost import ADAMW_FLOPS, ADAMW_PASSES, total, tower_parts
from ftmamba.spec import Part


@dataclass(frozen=True)
class Work:
    """Least work of a region in a step.

    Attributes:
        flops: floating-point operations.
        exps: exponentials among them.
        n_bytes: memory traffic.
    """

    flops: float
    exps: float
    n_bytes: float


def step_work(cell: Cell, content_tokens: int = 0, *, fused: bool = False) -> dict[Region, Work]:
    """By region, for the steps that ``build`` makes; empty for other libraries' layers and unknown ones.

    Args:
        cell: what is measured; with ``content_tokens`` it is the user tower of two.
        content_tokens: length of the content tower, 0 for none.
        fused: whether one kernel does each Mamba layer, which is then one region.
    """
    spec = encoder_spec(cell)
    if spec.mixer.is_peer():
        return {}
    lengths = {"user": cell.n_tokens, "content": content_tokens} if content_tokens else {"": cell.n_tokens}
    work: dict[Region, Work] = {}
    params = 0
    for tower, n_tokens in lengths.items():
        features = feature_spec(n_tokens)
        parts = tower_parts(spec, features)
        if parts is None:
            return {}
        params += total(parts.values()).params
        if fused:
            _fuse(parts)
        tokenizer = parts["tokenizer", None]
        unread = spec.d_model * (sum(features.cardinalities) - len(features.cardinalities))  # but one row of a table
        parts["tokenizer", None] = tokenizer._replace(params=tokenizer.params - unread)
        for (name, block), part in parts.items():
            work |= _passes(Region(name=name, tower=tower, block=block), part, cell)
    if cell.task == "train_step":
        n_bytes = ADAMW_PASSES * params * DTYPE_BYTES[cell.dtype]
        work[Region(name="optimizer", phase="update")] = Work(ADAMW_FLOPS * params, 0, n_bytes)
    return work


def _fuse(parts: dict[tuple[str, int | None], Part]) -> None:
    """Make one region of each Mamba layer; what its parts hand to each other never leaves the cache."""
    for i in {block for _, block in parts if block is not None}:
        layer = [parts.pop(key) for key in [*parts] if key[1] == i and key[0] != "norm"]
        parts["mamba_layer", i] = total(layer)._replace(inputs=layer[0].inputs, outputs=layer[-1].outputs)


def _passes(region: Region, part: Part, cell: Cell) -> dict[Region, Work]:
    rows, size = cell.batch_size, DTYPE_BYTES[cell.dtype]
    n_bytes = (rows * (part.inputs + part.outputs) + part.params) * size
    passes = {region: Work(rows * part.flops, rows * part.exps, n_bytes)}
    if cell.task == "train_step":
        n_bytes = (rows * (2 * part.inputs + part.outputs) + 2 * part.params) * size
        passes[region.backward] = Work(2 * rows * part.flops, rows * part.exps, n_bytes)
    return passes
