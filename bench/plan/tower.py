"""What a cell measures, as specs: its tower and its synthetic table."""

from __future__ import annotations

from bench.plan.axes import AUTO, DTYPE_BYTES
from bench.plan.cell import Cell
from ftmamba import mixers
from ftmamba.cost import Cost, block_cost, encoder_cost
from ftmamba.spec import EncoderSpec, FeatureSpec

CARDINALITY = 16  # rows of each categorical column's table; small, so that tables do not swamp the mixer's memory
TOWER_AXES = (
    "mixer", "backend", "device", "dtype", "execution", "n_tokens", "batch_size", "n_layers", "d_model", "threads",
    "heap", "cache", "paired_with", "seed",
)  # fmt: skip


def encoder_spec(cell: Cell) -> EncoderSpec:
    """The cell's tower.

    Raises:
        ValueError: a tower that cannot be, such as a d_model that the heads do not divide.
    """
    mixer = mixers.find(cell.mixer)(backend=cell.backend, **cell.params)
    return EncoderSpec(mixer=mixer, d_model=cell.d_model, n_layers=cell.n_layers)


def feature_spec(n_tokens: int) -> FeatureSpec:
    """A table that becomes ``n_tokens`` tokens with [CLS]: half of its columns numeric, half categorical.

    Raises:
        ValueError: no column beside [CLS].
    """
    if n_tokens < 2:
        raise ValueError(f"a table has at least 2 tokens, one column and [CLS]; got lengths {n_tokens}")
    n_columns = n_tokens - 1
    n_categorical = n_columns // 2
    return FeatureSpec(n_columns - n_categorical, (CARDINALITY,) * n_categorical)


def check_tower(cell: Cell) -> None:
    """Refuse a cell whose tower or table cannot be.

    Raises:
        ValueError: why.
    """
    if cell.batch_size == AUTO:
        raise ValueError("batch_sizes auto is a loss's own; a step that is timed needs a number")
    if cell.get("cache") == "cold" and cell.execution == "compile":
        raise ValueError("cache cold takes many towers in turn, each of which would be compiled; take execution eager")
    feature_spec(cell.n_tokens)
    try:
        encoder_spec(cell)
        if cell.mixer not in mixers.NAMES:
            cell_block_cost(cell)
    except ValueError:
        raise
    except Exception as error:  # a user's own may fail in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"{cell.mixer} breaks the contract of a mixer: {reason}") from None


def tower_cost(cell: Cell) -> Cost | None:
    """Analytic cost of a ``forward`` or a ``train_step``."""
    features, dtype_bytes = feature_spec(cell.n_tokens), DTYPE_BYTES[cell.dtype]
    return encoder_cost(encoder_spec(cell), features, cell.batch_size, cell.task, dtype_bytes)


def cell_block_cost(cell: Cell) -> Cost | None:
    """Analytic cost of a block's forward pass, or of its forward and backward pass."""
    training = cell.task == "block_train"
    return block_cost(
        encoder_spec(cell), cell.n_tokens, cell.batch_size, training=training, dtype_bytes=DTYPE_BYTES[cell.dtype]
    )
