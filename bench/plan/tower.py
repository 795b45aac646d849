"""What a cell measures, as specs: its tower and its synthetic table."""

from __future__ import annotations

from bench.plan.cell import Cell
from bench.plan.choices import DTYPE_BYTES
from ftmamba.cost import Cost, block_cost, encoder_cost
from ftmamba.spec import MIXERS, EncoderSpec, FeatureSpec

CARDINALITY = 16  # rows of each categorical column's table; small, so that tables do not swamp the mixer's memory


def encoder_spec(cell: Cell) -> EncoderSpec:
    """The cell's tower.

    Raises:
        ValueError: a tower that cannot be, such as a d_model that the heads do not divide.
    """
    return EncoderSpec(mixer=MIXERS[cell.mixer](backend=cell.backend), d_model=cell.d_model, n_layers=cell.n_layers)


def feature_spec(n_tokens: int) -> FeatureSpec:
    """A table that becomes ``n_tokens`` tokens with [CLS]: half of its columns numeric, half categorical."""
    n_columns = n_tokens - 1
    n_categorical = n_columns // 2
    return FeatureSpec(n_columns - n_categorical, (CARDINALITY,) * n_categorical)


def cell_cost(cell: Cell) -> Cost:
    """Analytic cost of one iteration of the cell's task."""
    spec, dtype_bytes = encoder_spec(cell), DTYPE_BYTES[cell.dtype]
    if cell.task.startswith("block_"):
        training = cell.task == "block_train"
        return block_cost(spec, cell.n_tokens, cell.batch_size, training=training, dtype_bytes=dtype_bytes)
    return encoder_cost(spec, feature_spec(cell.n_tokens), cell.batch_size, cell.task, dtype_bytes)
