"""What a cell measures, as specs: its tower and its synthetic table."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from statistics import NormalDist

from bench.plan.axes import DTYPE_BYTES
from bench.plan.cell import Cell
from bench.plan.setting import AUTO
from ftmamba import mixers
from ftmamba.cost import Cost, block_cost, encoder_cost
from ftmamba.rows import N_BINS, FeatureSpec
from ftmamba.spec import EncoderSpec

CARDINALITY = 16  # rows of each categorical column's table; small, so that tables do not swamp the mixer's memory
TOWER_AXES = (
    "mixer", "backend", "device", "dtype", "execution", "n_tokens", "batch_size", "n_layers", "d_model", "threads",
    "heap", "cache", "paired_with", "seed",
)  # fmt: skip
ROW_AXES = ("tower_readout", "numeric_tokens", "column_order")  # of what reads a table's rows
TABLE, BY_IMPORTANCE = "table", "by_importance"  # orders of columns


def encoder_spec(cell: Cell) -> EncoderSpec:
    """The cell's tower.

    Raises:
        ValueError: a tower that cannot be, such as a d_model that the heads do not divide.
    """
    mixer = mixers.find(cell.mixer)(backend=cell.backend, **cell.params)
    readout = cell.get("tower_readout", "cls_last")
    has_cls = readout.startswith("cls_")
    return EncoderSpec(
        mixer=mixer, d_model=cell.d_model, n_layers=cell.n_layers, readout="cls" if has_cls else readout,
        cls_position="first" if readout == "cls_first" else "last", numeric_tokens=cell.get("numeric_tokens", "linear"),
    )  # fmt: skip


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


def table_spec(cell: Cell) -> FeatureSpec:
    """The cell's table, its columns in the cell's order; their numbers are standard-normal, and so are their bins.

    Raises:
        ValueError: no column, or an order that cannot be, such as one that only data have.
    """
    plain, order = feature_spec(cell.n_tokens), cell.get("column_order", TABLE)
    if order == BY_IMPORTANCE:
        raise ValueError(
            f"column_order {order} takes training rows, and a timed step has none; random:0 costs the same"
        )
    bins = (_normal_bins(),) * plain.n_numeric if cell.get("numeric_tokens") == "piecewise_linear" else ()
    return replace(plain, bins=bins, order=order_of(order, plain.n_columns))


@functools.cache
def _normal_bins() -> tuple[float, ...]:
    return tuple(NormalDist().inv_cdf((i + 0.5) / (N_BINS + 1)) for i in range(N_BINS + 1))


def order_of(text: str, n_columns: int) -> tuple[int, ...]:
    """Places of the columns in an order that no data decide; empty for the table's own.

    Raises:
        ValueError: no such order.
    """
    places = [*range(n_columns)]
    kind, _, seed = text.partition(":")
    if text == TABLE:
        return ()
    if text == "reversed":
        return tuple(reversed(places))
    if kind != "random" or not seed.isdecimal() or len(seed) > 9:
        choices = f"{TABLE}, reversed, random:SEED, {BY_IMPORTANCE}"
        raise ValueError(f"unknown value {ascii(text)[:80]} for column_order; choose from {choices}")
    random.Random(int(seed)).shuffle(places)
    return tuple(places)


def check_tower(cell: Cell) -> None:
    """Refuse a cell whose tower or table cannot be.

    Raises:
        ValueError: why.
    """
    if cell.batch_size == AUTO:
        raise ValueError("batch_sizes auto is a loss's own; a step that is timed needs a number")
    if cell.get("cache") == "cold" and cell.execution == "compile":
        raise ValueError("cache cold takes many towers in turn, each of which would be compiled; take execution eager")
    table_spec(cell)
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
    features, dtype_bytes = table_spec(cell), DTYPE_BYTES[cell.dtype]
    return encoder_cost(encoder_spec(cell), features, cell.batch_size, cell.task, dtype_bytes)


def cell_block_cost(cell: Cell) -> Cost | None:
    """Analytic cost of a block's forward pass, or of its forward and backward pass."""
    training = cell.task == "block_train"
    return block_cost(
        encoder_spec(cell), cell.n_tokens, cell.batch_size, training=training, dtype_bytes=DTYPE_BYTES[cell.dtype]
    )
