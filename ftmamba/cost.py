"""What one step must cost: parameters, floating-point operations, bytes. Arithmetic on specs, without torch.

Conventions. A multiply-add is two operations, an exponential one; norms, activations and residual sums are left out.
A training step counts its forward pass three times (a gradient for the inputs and one for the weights) and 12
operations a parameter for AdamW. ``exps`` are those of the scan's decays and of the softmax, taken once more in a
backward pass, since keeping them would cost more. ``min_bytes`` is what even a perfectly fused program has to move:
every parameter and input once, every block's input and output once. ``peak_bytes`` is a lower estimate of the memory in
use at the worst moment; a step that does not fit by this estimate does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftmamba.spec import AttentionSpec, EncoderSpec, FeatureSpec, MambaSpec

SCAN_FLOPS = 7  # a state: dt*A, exp, *h, dt*x*B as multiply-add (2), C*h as multiply-add (2)
CHECKPOINT_EVERY = 32  # tokens between the states that a backward pass starts from
ADAMW_FLOPS = 12  # a parameter
ADAMW_PASSES = 9  # gradient written; parameter, gradient and both moments read; three of them written; one forward read


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


def encoder_cost(spec: EncoderSpec, features: FeatureSpec, n_rows: int, task: str, dtype_bytes: int = 4) -> Cost:
    """Cost of one ``forward`` or ``train_step`` of one tower.

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
    if task not in ("forward", "train_step"):
        raise ValueError(f"no cost model for task {task!r}; choose forward or train_step")
    training = task == "train_step"
    n_tokens, d = features.n_tokens, spec.d_model
    params = encoder_params(spec, features)
    row_flops, row_exps = _tokenizer_flops(features, d) + _head_flops(spec), 0
    for layer in range(spec.n_layers):
        n_read = 1 if layer == spec.n_layers - 1 and spec.last_layer == "readout" else n_tokens
        row_flops += _block_flops(spec, n_tokens, n_read)
        row_exps += _block_exps(spec, n_tokens, n_read)
    flops = n_rows * row_flops * (3 if training else 1) + (ADAMW_FLOPS * params if training else 0)

    table_bytes = n_rows * (features.n_numeric * dtype_bytes + len(features.cardinalities) * 8)
    token_bytes = n_rows * n_tokens * d * dtype_bytes
    passes_a_block = 5 if training else 2  # forward: in, out; backward: in again, gradient of out, gradient of in
    min_bytes = (
        params * dtype_bytes * (ADAMW_PASSES if training else 1)
        + table_bytes
        + token_bytes * (1 + passes_a_block * spec.n_layers)
        + n_rows * spec.output_width * dtype_bytes
    )
    block_bytes = n_rows * _block_live_elements(spec, n_tokens) * dtype_bytes
    kept_blocks = max(1, spec.n_layers - 1) if training else 1
    peak_bytes = params * dtype_bytes * (4 if training else 1) + table_bytes + token_bytes + kept_blocks * block_bytes
    exps = n_rows * row_exps * (2 if training else 1)
    return Cost(params=params, flops=flops, exps=exps, min_bytes=min_bytes, peak_bytes=peak_bytes)


def block_cost(spec: EncoderSpec, n_tokens: int, n_rows: int, *, training: bool, dtype_bytes: int = 4) -> Cost:
    """Cost of one full block on ``n_rows`` rows of tokens: its forward pass, or forward and backward (no optimizer).

    Examples:
        >>> from ftmamba import EncoderSpec, MambaSpec, block_cost
        >>> spec = EncoderSpec(mixer=MambaSpec())
        >>> forward, both = (block_cost(spec, 100, 32, training=training) for training in (False, True))
        >>> both.flops == 3 * forward.flops
        True
    """
    params = blocks_params(replace(spec, n_layers=2)) - blocks_params(replace(spec, n_layers=1))  # not the first one
    token_bytes = n_rows * n_tokens * spec.d_model * dtype_bytes
    live_bytes = n_rows * _block_live_elements(spec, n_tokens) * dtype_bytes
    return Cost(
        params=params,
        flops=n_rows * _block_flops(spec, n_tokens, n_tokens) * (3 if training else 1),
        exps=n_rows * _block_exps(spec, n_tokens, n_tokens) * (2 if training else 1),
        min_bytes=params * dtype_bytes * (2 if training else 1) + token_bytes * (5 if training else 2),
        peak_bytes=params * dtype_bytes * (2 if training else 1) + token_bytes + live_bytes,
    )


def encoder_params(spec: EncoderSpec, features: FeatureSpec) -> int:
    """Trainable numbers of a tower: tokenizer, blocks and head.

    Examples:
        >>> from ftmamba import EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, encoder_params
        >>> spec, features = EncoderSpec(mixer=MambaSpec(), d_model=32), FeatureSpec(3, (10, 20))
        >>> encoder_params(spec, features) == sum(each.numel() for each in FTEncoder(spec, features).parameters())
        True
    """
    d = spec.d_model
    tokenizer = d * (1 + 2 * features.n_numeric + sum(features.cardinalities) + len(features.cardinalities))
    head = 2 * d + (d + 1) * spec.output_width
    if isinstance(spec.mixer, MambaSpec):
        head += 2 * d + _ffn_params(d, int(d * 4 / 3), 2)
    return tokenizer + blocks_params(spec) + head


def blocks_params(spec: EncoderSpec) -> int:
    """Trainable numbers of the blocks alone, which is what arXiv 2409.17165 counts as the embedder.

    Examples:
        >>> from ftmamba import PRESETS, blocks_params
        >>> blocks_params(PRESETS["paper-mamba"])
        479232
    """
    d, mixer = spec.d_model, spec.mixer
    if isinstance(mixer, MambaSpec):
        inner, rank = mixer.d_inner(d), mixer.dt_rank(d)
        projections = d * 2 * inner + inner * (rank + 2 * mixer.d_state) + (rank + 1) * inner + inner * d
        return spec.n_layers * (projections + inner * (mixer.d_conv + 1) + inner * (mixer.d_state + 1) + 2 * d)
    halves = 2 if mixer.ffn_activation == "reglu" else 1
    block = 4 * (d + 1) * d + _ffn_params(d, mixer.ffn_width(d), halves) + 4 * d
    return spec.n_layers * block - (0 if mixer.first_norm else 2 * d)


def _ffn_params(d: int, hidden: int, halves: int) -> int:
    return halves * hidden * (d + 1) + (hidden + 1) * d


def _tokenizer_flops(features: FeatureSpec, d: int) -> int:
    return 2 * features.n_numeric * d + len(features.cardinalities) * d


def _head_flops(spec: EncoderSpec) -> int:
    ffn = 6 * spec.d_model * int(spec.d_model * 4 / 3) if isinstance(spec.mixer, MambaSpec) else 0
    return ffn + 2 * spec.d_model * spec.output_width


def _block_flops(spec: EncoderSpec, n_tokens: int, n_read: int) -> int:
    """One block on one row, of which ``n_read`` tokens come out."""
    d, mixer = spec.d_model, spec.mixer
    if isinstance(mixer, MambaSpec):
        inner, rank, state = mixer.d_inner(d), mixer.dt_rank(d), mixer.d_state
        every_token = 2 * d * inner + 2 * inner * mixer.d_conv + 2 * inner * (rank + state) + 2 * rank * inner
        read_token = 2 * d * inner + 2 * inner * state + 2 * inner * d + 2 * inner * state
        return n_tokens * (every_token + (SCAN_FLOPS - 2) * inner * state) + n_read * read_token
    ffn = (6 if mixer.ffn_activation == "reglu" else 4) * d * mixer.ffn_width(d)
    return n_tokens * 4 * d * d + n_read * (4 * d * d + ffn + 4 * n_tokens * d)


def _block_exps(spec: EncoderSpec, n_tokens: int, n_read: int) -> int:
    mixer = spec.mixer
    if isinstance(mixer, MambaSpec):
        return n_tokens * mixer.d_inner(spec.d_model) * mixer.d_state
    return n_read * n_tokens * mixer.n_heads


def _block_live_elements(spec: EncoderSpec, n_tokens: int) -> int:
    """Numbers that one full block holds at once for one row (in training: keeps until its backward pass)."""
    d, mixer = spec.d_model, spec.mixer
    if isinstance(mixer, MambaSpec):
        inner, state = mixer.d_inner(d), mixer.d_state
        states = inner * state if mixer.backend == "reference" else inner * state // CHECKPOINT_EVERY
        parts = 0 if mixer.backend == "numba" else 5 * inner  # one kernel may do the whole layer
        return n_tokens * (parts + 2 * d + states)
    assert isinstance(mixer, AttentionSpec)
    weights = mixer.n_heads * n_tokens if mixer.backend == "reference" else 0
    return n_tokens * (6 * d + weights)
