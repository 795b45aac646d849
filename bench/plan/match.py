"""What makes two mixers comparable: the same number of parameters, or the same time to train."""

from __future__ import annotations

from bench.plan.cell import PARAMS, Cell
from bench.plan.tower import encoder_spec
from ftmamba import mixers
from ftmamba.cost import encoder_params
from ftmamba.spec import FeatureSpec

ONE_COLUMN = FeatureSpec(1)  # lookup tables are alike in all towers of one width; what is matched is the rest
WIDTH = "d_ffn"  # the parameter that is turned
TOLERANCE = 0.02
MAMBA = "mamba"  # the one that the others are made like


def matched(cell: Cell, how: str) -> Cell:
    """The cell made like Mamba's with the same settings.

    Args:
        cell: as planned.
        how: ``depth``, as it is; ``params``, with the feed-forward width at which its tower has as many parameters, a
            mixer without such a width as it is; ``time``, to be trained for as long.

    Raises:
        ValueError: no width comes within 2 %, or a task that does not train by steps.
    """
    if how == "time":
        if "as_long_as" not in cell:
            raise ValueError(f"match time says how long to train, which is nothing to {cell.task}")
        plain = cell.get("mixer") == MAMBA and cell.params == mixers.defaults(MAMBA)
        return cell.but(as_long_as=MAMBA) if "mixer" in cell and not plain else cell
    if how != "params":
        return cell
    if WIDTH not in cell.get(PARAMS, {}):
        return cell
    wanted = n_params(cell.but(mixer=MAMBA, backend="auto"))
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
