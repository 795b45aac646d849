"""Widths that give two mixers the same number of parameters."""

from __future__ import annotations

from bench.plan.cell import PARAMS, Cell
from bench.plan.tower import encoder_spec
from ftmamba.cost import encoder_params
from ftmamba.spec import FeatureSpec

ONE_COLUMN = FeatureSpec(1)  # lookup tables are alike in all towers of one width; what is matched is the rest
WIDTH = "d_ffn"  # the parameter that is turned
TOLERANCE = 0.02


def matched(cell: Cell) -> Cell:
    """The cell with a feed-forward width at which its tower has as many parameters as Mamba's.

    A mixer without such a width is left as it is.

    Raises:
        ValueError: no width comes within 2 %.
    """
    if WIDTH not in cell.get(PARAMS, {}):
        return cell
    wanted = n_params(cell.but(mixer="mamba", backend="auto"))
    first, second = (n_params(cell.but(params={**cell.params, WIDTH: width})) for width in (1, 2))
    width = max(1, 1 + round((wanted - first) / (second - first)))  # it grows by the same number with every unit
    found = first + (width - 1) * (second - first)
    if abs(found - wanted) > TOLERANCE * wanted:
        raise ValueError(
            f"no width of {cell.mixer}'s feed-forward layer gives the {wanted:,} parameters of Mamba within 2 % "
            f"at {cell.n_layers} layers and d_model {cell.d_model}; the closest has {found:,}"
        )
    return cell.but(**{PARAMS: {**cell.params, WIDTH: width}})


def n_params(cell: Cell) -> int:
    """Trainable numbers of the cell's tower but for its lookup tables."""
    return encoder_params(encoder_spec(cell), ONE_COLUMN)
