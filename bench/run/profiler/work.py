"""What each region of a step has to do at least: the conventions of ``ftmamba.cost``, region by region.

Bytes are those of a region that reads its inputs and weights once and writes its output once; its backward pass reads
them again with the output's gradient, and writes the gradients of both. Exponentials are those of the scan's decays and
of the softmax, computed again in the backward pass: keeping them would cost more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.plan.axes import DTYPE_BYTES
from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, feature_spec
from bench.records.region import Region
from ftmamba.cost import ADAMW_FLOPS, SCAN_FLOPS, encoder_params
from ftmamba.spec import AttentionSpec, EncoderSpec, FeatureSpec, MambaSpec

ADAMW_PASSES = 7  # parameter, gradient and both moments read; all but the gradient written


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


@dataclass(frozen=True)
class _Part:
    """Forward work of one row (``weights`` of all rows together), in numbers, not bytes."""

    flops: int = 0
    exps: int = 0
    inputs: int = 0
    outputs: int = 0
    weights: int = 0


def step_work(cell: Cell, content_tokens: int = 0, *, fused: bool = False) -> dict[Region, Work]:
    """By region, for the steps that ``build`` makes; empty for other libraries' layers, whose insides are their own.

    Args:
        cell: what is measured; with ``content_tokens`` it is the user tower of two.
        content_tokens: length of the content tower, 0 for none.
        fused: whether one kernel does each Mamba layer, which is then one region.
    """
    spec = encoder_spec(cell)
    if type(spec.mixer) not in (MambaSpec, AttentionSpec):
        return {}
    tables = {"user": feature_spec(cell.n_tokens), "content": feature_spec(content_tokens)} if content_tokens else {}
    work: dict[Region, Work] = {}
    params = 0
    for tower, features in (tables or {"": feature_spec(cell.n_tokens)}).items():
        params += encoder_params(spec, features)
        for region, part in _parts(spec, features, fused).items():
            work |= _passes(replace(region, tower=tower), part, cell)
    if cell.task == "train_step":
        n_bytes = ADAMW_PASSES * params * DTYPE_BYTES[cell.dtype]
        work[Region(name="optimizer", phase="update")] = Work(ADAMW_FLOPS * params, 0, n_bytes)
    return work


def _passes(region: Region, part: _Part, cell: Cell) -> dict[Region, Work]:
    rows, size = cell.batch_size, DTYPE_BYTES[cell.dtype]
    n_bytes = (rows * (part.inputs + part.outputs) + part.weights) * size
    passes = {region: Work(rows * part.flops, rows * part.exps, n_bytes)}
    if cell.task == "train_step":
        n_bytes = (rows * (2 * part.inputs + part.outputs) + 2 * part.weights) * size
        passes[region.backward] = Work(2 * rows * part.flops, rows * part.exps, n_bytes)
    return passes


def _parts(spec: EncoderSpec, features: FeatureSpec, fused: bool) -> dict[Region, _Part]:
    d, n_tokens = spec.d_model, features.n_tokens
    n_categorical = len(features.cardinalities)
    parts = {
        Region(name="tokenizer"): _Part(
            flops=2 * features.n_numeric * d + n_categorical * d,
            inputs=features.n_columns,
            outputs=n_tokens * d,
            weights=d * (1 + 2 * features.n_numeric + 2 * n_categorical),  # of a column's table, one row at least
        )
    }
    blocks = {MambaSpec: _fused_mamba_block if fused else _mamba_block, AttentionSpec: _attention_block}
    block = blocks[type(spec.mixer)]
    for i in range(spec.n_layers):
        n_read = 1 if i == spec.n_layers - 1 and spec.last_layer == "readout" else n_tokens
        parts |= {Region(name=name, block=i): part for name, part in block(spec, n_tokens, n_read, i).items()}
    hidden = int(d * 4 / 3) if isinstance(spec.mixer, MambaSpec) else 0
    weights = 3 * hidden * d + d * spec.output_width
    parts[Region(name="head")] = _Part(2 * weights, inputs=d, outputs=spec.output_width, weights=weights)
    return parts


def _mamba_block(spec: EncoderSpec, n_tokens: int, n_read: int, i: int) -> dict[str, _Part]:
    mixer, d = spec.mixer, spec.d_model
    assert isinstance(mixer, MambaSpec)
    inner, rank, state = mixer.d_inner(d), mixer.dt_rank(d), mixer.d_state
    return {
        "norm": _Part(inputs=n_tokens * d, outputs=n_tokens * d),
        "in_proj": _projection(d, (n_tokens, inner), (n_read, inner)),
        "causal_conv": _Part(
            2 * n_tokens * inner * mixer.d_conv,
            inputs=n_tokens * inner,
            outputs=n_tokens * inner,
            weights=inner * (mixer.d_conv + 1),
        ),
        "x_proj": _projection(inner, (n_tokens, rank + state), (n_read, state)),
        "dt_proj": _projection(rank, (n_tokens, inner)),
        "selective_scan": _Part(
            ((SCAN_FLOPS - 2) * n_tokens + 2 * n_read) * inner * state,
            exps=n_tokens * inner * state,
            inputs=n_tokens * (2 * inner + state) + n_read * (inner + state),
            outputs=n_read * inner,
            weights=inner * (state + 2),
        ),
        "out_proj": _projection(inner, (n_read, d)),
    }


def _fused_mamba_block(spec: EncoderSpec, n_tokens: int, n_read: int, i: int) -> dict[str, _Part]:
    parts = _mamba_block(spec, n_tokens, n_read, i)
    norm = parts.pop("norm")
    layer = _Part(
        sum(part.flops for part in parts.values()),
        sum(part.exps for part in parts.values()),
        inputs=n_tokens * spec.d_model,  # what the parts hand to each other never leaves the cache
        outputs=n_read * spec.d_model,
        weights=sum(part.weights for part in parts.values()),
    )
    return {"norm": norm, "mamba_layer": layer}


def _attention_block(spec: EncoderSpec, n_tokens: int, n_read: int, i: int) -> dict[str, _Part]:
    mixer, d = spec.mixer, spec.d_model
    assert isinstance(mixer, AttentionSpec)
    hidden = mixer.ffn_width(d)
    halves = 2 if mixer.ffn_activation == "reglu" else 1
    normed = n_read + (n_tokens if i > 0 or mixer.first_norm else 0)
    return {
        "norm": _Part(inputs=normed * d, outputs=normed * d),
        "q_proj": _projection(d, (n_read, d)),
        "kv_proj": _projection(d, (n_tokens, 2 * d)),
        "attention": _Part(
            4 * n_read * n_tokens * d,
            exps=n_read * n_tokens * mixer.n_heads,
            inputs=(n_read + 2 * n_tokens) * d,
            outputs=n_read * d,
        ),
        "out_proj": _projection(d, (n_read, d)),
        "feed_forward": _Part(
            2 * (halves + 1) * n_read * hidden * d,
            inputs=n_read * d,
            outputs=n_read * d,
            weights=(halves + 1) * hidden * d,
        ),
    }


def _projection(d_in: int, *outputs: tuple[int, int]) -> _Part:
    """From ``d_in`` numbers a token to each of the (tokens, width) in ``outputs``."""
    return _Part(
        sum(2 * n * d_in * width for n, width in outputs),
        inputs=max(n for n, _ in outputs) * d_in,
        outputs=sum(n * width for n, width in outputs),
        weights=d_in * sum(width for _, width in outputs),
    )
