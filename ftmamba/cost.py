"""What one step must cost: parameters, floating-point operations, bytes. Arithmetic on specs, without torch.

Conventions. A multiply-add is two operations, an exponential one; norms, activations and residual sums are left out.
A training step counts its forward pass three times (a gradient for the inputs and one for the weights) and 12
operations a parameter for AdamW. ``exps`` are those of the scan's decays and of the softmax, taken once more in a
backward pass, since keeping them would cost more. ``min_bytes`` is what even a perfectly fused program has to move:
every parameter and input once, every block's input and output once. ``peak_bytes`` is a lower estimate of the memory in
use at the worst moment; a step that does not fit by this estimate does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ftmamba.rows import N_FREQUENCIES
from ftmamba.spec import EncoderSpec, EventSpec, FeatureSpec, Part, feed_forward, linear

ADAMW_FLOPS = 12  # a parameter
ADAMW_PASSES = 7  # parameter, gradient and both moments read; all but the gradient written


@dataclass(frozen=True)
class Cost:
    """Cost of one step of one tower.

    Attributes:
        params: count of trainable numbers.
        flops: floating-point operations.
        exps: exponentials among them.
        min_bytes: least memory traffic.
        peak_bytes: lower estimate of the peak memory, parameters included.

    Examples:
        >>> from ftmamba import PRESETS, FeatureSpec, encoder_cost
        >>> cost = encoder_cost(PRESETS["paper-mamba"], FeatureSpec(30), n_rows=32, task="forward")
        >>> cost.exps  # of the scan: rows * blocks * tokens * d_inner * d_state
        16252928
    """

    params: int
    flops: int
    exps: int
    min_bytes: int
    peak_bytes: int


def tower_parts(spec: EncoderSpec, features: FeatureSpec) -> dict[tuple[str, int | None], Part] | None:
    """Forward work of a tower by region and block (None outside them); None where its mixer has no model of it."""
    alone = spec.reads_one and spec.last_layer == "readout"
    return _parts(spec, _columns(spec, features), spec.n_tokens(features), alone, 1)


def _columns(spec: EncoderSpec, features: FeatureSpec) -> Part:
    """The tokenizer of a table's columns and [CLS]."""
    d, n_numeric, n_categorical = spec.d_model, features.n_numeric, len(features.cardinalities)
    # Features of each number, what they cost (a sine counts as one operation), and their own parameters.
    width, flops, params = {
        "linear": (1, 0, 0),
        "periodic": (2 * N_FREQUENCIES, 3 * N_FREQUENCIES, N_FREQUENCIES),
        "piecewise_linear": (features.n_bins, 2 * features.n_bins, 0),
    }[spec.numeric_tokens]
    return Part(
        flops=n_numeric * (flops + 2 * width * d) + n_categorical * d,
        inputs=features.n_columns,
        outputs=spec.n_tokens(features) * d,
        params=n_numeric * (params + (width + 1) * d)
        + d * ((spec.readout == "cls") + sum(features.cardinalities) + n_categorical),
    )


def _parts(
    spec: EncoderSpec, tokenizer: Part, n_tokens: int, alone: bool, n_out: int
) -> dict[tuple[str, int | None], Part] | None:
    """As ``tower_parts``; ``alone``: the last block computes one token, ``n_out``: tokens that the head gets."""
    d = spec.d_model
    parts: dict[tuple[str, int | None], Part] = {("tokenizer", None): tokenizer}
    for i in range(spec.n_layers):
        n_read = 1 if i == spec.n_layers - 1 and alone else n_tokens
        block = spec.mixer_of(i).parts(d, n_tokens, n_read, first=i == 0)
        if block is None:
            return None
        parts |= {(name, i): part for name, part in block.items()}
    norm = Part(params=2 * d)
    head = [norm, linear(d, (n_out, spec.output_width), bias=True)]
    if spec.readout == "mean":
        head.append(Part(flops=n_tokens * d))
    elif spec.readout == "attention_pooling":
        head.append(Part(flops=4 * n_tokens * d, exps=n_tokens, params=d))
    if spec.head_width:
        head += [norm, feed_forward(d, spec.head_width, "reglu", n_out)]
    n_in = n_out if spec.reads_one else n_tokens
    parts["head", None] = total(head)._replace(inputs=n_in * d, outputs=n_out * spec.output_width)
    return parts


def total(parts: Iterable[Part]) -> Part:
    """All of them as one, which hands on to itself what they hand to each other."""
    return Part(*map(sum, zip(*parts, strict=True)))


def encoder_cost(spec: EncoderSpec, features: FeatureSpec, n_rows: int, task: str, dtype_bytes: int = 4) -> Cost | None:
    """Cost of one ``forward`` or ``train_step`` of one tower; None where its mixer has no model of it.

    Args:
        spec: the tower.
        features: the table's columns, which set the number of tokens.
        n_rows: rows a step.
        task: ``forward`` or ``train_step``.
        dtype_bytes: bytes of a parameter and of an activation.

    Raises:
        ValueError: unknown task.

    Examples:
        >>> from ftmamba import EncoderSpec, FeatureSpec, MambaSpec, encoder_cost
        >>> spec, features = EncoderSpec(mixer=MambaSpec()), FeatureSpec(30)
        >>> forward, train = (encoder_cost(spec, features, 32, task) for task in ("forward", "train_step"))
        >>> train.flops == 3 * forward.flops + 12 * forward.params
        True
    """
    row_bytes = features.n_numeric * dtype_bytes + len(features.cardinalities) * 8
    return _cost(spec, tower_parts(spec, features), spec.n_tokens(features), row_bytes, 1, n_rows, task, dtype_bytes)


def history_cost(
    spec: EncoderSpec,
    events: EventSpec,
    n_events: int,
    n_rows: int,
    task: str,
    static: FeatureSpec | None = None,
    *,
    n_positions: int = 0,
    at: str = "last",
    dtype_bytes: int = 4,
) -> Cost | None:
    """As ``encoder_cost``, of a ``HistoryEncoder`` with an item table of its own that reads ``n_events`` events a row.

    Examples:
        >>> from ftmamba import EncoderSpec, EventSpec, HistoryEncoder, MambaSpec, history_cost
        >>> spec, events = EncoderSpec(mixer=MambaSpec(), d_model=32), EventSpec(100, 1, (5,))
        >>> tower = HistoryEncoder(spec, events)
        >>> history_cost(spec, events, 50, 32, "forward").params == sum(each.numel() for each in tower.parameters())
        True
    """
    d, n_summed = spec.d_model, 1 + len(events.cardinalities) + (n_positions > 0)
    columns = Part(params=d) if static is None else _columns(spec, static)
    n_tokens = n_events + (static.n_columns if static else 0) + (at == "last")
    row_bytes = n_events * (events.n_numeric * dtype_bytes + 8 * (2 + len(events.cardinalities)))
    if static:
        row_bytes += static.n_numeric * dtype_bytes + len(static.cardinalities) * 8
    table = Part(
        flops=n_events * n_summed * d,
        inputs=n_events * (n_summed + 1),
        outputs=n_tokens * d,
        params=d * (events.n_items + sum(events.cardinalities) + n_positions),
    )
    numbers = linear(1 + events.n_numeric, (n_events, d), bias=True)
    n_out = 1 if at == "last" else n_events
    tokenizer = total((columns, table, numbers))
    parts = _parts(spec, tokenizer, n_tokens, n_out == 1 and spec.last_layer == "readout", n_out)
    return _cost(spec, parts, n_tokens, row_bytes, n_out, n_rows, task, dtype_bytes)


def _cost(
    spec: EncoderSpec,
    parts: dict[tuple[str, int | None], Part] | None,
    n_tokens: int,
    row_bytes: int,
    n_out: int,
    n_rows: int,
    task: str,
    dtype_bytes: int,
) -> Cost | None:
    if task not in ("forward", "train_step"):
        raise ValueError(f"no cost model for task {task!r}; choose forward or train_step")
    full = [_block(spec, n_tokens, layer) for layer in range(max(1, spec.n_layers - 1))]
    if parts is None:
        return None
    training = task == "train_step"
    tower = total(parts.values())
    flops = n_rows * tower.flops * (3 if training else 1) + (ADAMW_FLOPS * tower.params if training else 0)

    table_bytes = n_rows * row_bytes
    token_bytes = n_rows * n_tokens * spec.d_model * dtype_bytes
    passes_a_block = 5 if training else 2  # forward: in, out; backward: in again, gradient of out, gradient of in
    min_bytes = (
        tower.params * dtype_bytes * (2 + ADAMW_PASSES if training else 1)  # read forward, gradient written
        + table_bytes
        + token_bytes * (1 + passes_a_block * spec.n_layers)
        + n_rows * n_out * spec.output_width * dtype_bytes
    )
    lives = [block.live for block in full if block is not None]
    kept_bytes = n_rows * dtype_bytes * (sum(lives) if training else max(lives))
    peak_bytes = tower.params * dtype_bytes * (4 if training else 1) + table_bytes + token_bytes + kept_bytes
    exps = n_rows * tower.exps * (2 if training else 1)
    return Cost(params=tower.params, flops=flops, exps=exps, min_bytes=min_bytes, peak_bytes=peak_bytes)


def block_cost(spec: EncoderSpec, n_tokens: int, n_rows: int, *, training: bool, dtype_bytes: int = 4) -> Cost | None:
    """Cost of one full block on ``n_rows`` rows of tokens: its forward pass, or forward and backward (no optimizer).

    None where its mixer has no model of it.

    Examples:
        >>> from ftmamba import EncoderSpec, MambaSpec, block_cost
        >>> spec = EncoderSpec(mixer=MambaSpec())
        >>> forward, both = (block_cost(spec, 100, 32, training=training) for training in (False, True))
        >>> both.flops == 3 * forward.flops
        True
    """
    block = _block(spec, n_tokens)
    if block is None:
        return None
    token_bytes = n_rows * n_tokens * spec.d_model * dtype_bytes
    params_bytes = block.params * dtype_bytes * (2 if training else 1)
    return Cost(
        params=block.params,
        flops=n_rows * block.flops * (3 if training else 1),
        exps=n_rows * block.exps * (2 if training else 1),
        min_bytes=params_bytes + token_bytes * (5 if training else 2),
        peak_bytes=params_bytes + token_bytes + n_rows * block.live * dtype_bytes,
    )


def _block(spec: EncoderSpec, n_tokens: int, layer: int = 0) -> Part | None:
    """One full block, as if it were not the first; where layers differ, the first one's mixer stands for all."""
    parts = spec.mixer_of(layer).parts(spec.d_model, n_tokens, n_tokens, first=False)
    return None if parts is None else total(parts.values())


def encoder_params(spec: EncoderSpec, features: FeatureSpec) -> int:
    """Trainable numbers of a tower: tokenizer, blocks and head.

    Raises:
        ValueError: its mixer has no model of its cost.

    Examples:
        >>> from ftmamba import EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, encoder_params
        >>> spec, features = EncoderSpec(mixer=MambaSpec(), d_model=32), FeatureSpec(3, (10, 20))
        >>> encoder_params(spec, features) == sum(each.numel() for each in FTEncoder(spec, features).parameters())
        True
    """
    return total(_known_parts(spec, features).values()).params


def blocks_params(spec: EncoderSpec) -> int:
    """Trainable numbers of the blocks alone, which is what arXiv 2409.17165 counts as the embedder.

    Raises:
        ValueError: its mixer has no model of its cost.

    Examples:
        >>> from ftmamba import PRESETS, blocks_params
        >>> blocks_params(PRESETS["paper-mamba"])
        479232
    """
    parts = _known_parts(spec, FeatureSpec(1))
    return sum(part.params for (_, block), part in parts.items() if block is not None)


def _known_parts(spec: EncoderSpec, features: FeatureSpec) -> dict[tuple[str, int | None], Part]:
    parts = tower_parts(spec, features)
    if parts is None:
        raise ValueError(f"mixer {spec.mixer.name} has no model of its cost")
    return parts
