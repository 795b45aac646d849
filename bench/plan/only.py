"""Some cells of a plan alone: ``mixer=mamba,L>=1000`` keeps those that fit every term."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from bench.plan.axes import AXES
from bench.plan.cell import Cell
from bench.plan.setting import PlanError, shown

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip
SHORT = {"L": "n_tokens", "B": "batch_size", "d": "d_model"}
NAMES = {**{name: axis.field for axis in AXES for name in (axis.field, axis.name)}, **SHORT}
KINDS = {axis.field: axis.kind for axis in AXES}
_TERM = re.compile(rf"\s*(\w+)\s*({'|'.join(OPERATORS)})\s*(.*?)\s*")


def fits(cell: Cell, only: str) -> bool:
    """Whether a cell fits every term; one that lacks the field does not.

    Raises:
        PlanError: not a term, or of no axis.
    """
    return all(_fits(cell, term) for term in only.split(","))


def _fits(cell: Cell, term: str) -> bool:
    found = _TERM.fullmatch(term)
    if found is None or found[1] not in NAMES:
        names = ", ".join(dict.fromkeys(NAMES))
        raise PlanError(f"only takes terms such as L>=1000, got {shown(term)}; names are {names}")
    field = NAMES[found[1]]
    value = cell.get(field)
    if KINDS[field] in (int, float):
        try:
            wanted: Any = float(found[3])
        except ValueError:
            raise PlanError(f"only compares {found[1]} with a number, got {shown(found[3])}") from None
    elif found[2] not in ("=", "!="):
        raise PlanError(f"only compares {found[1]} by = or !=, got {shown(term)}")
    else:
        wanted, value = found[3].lower(), str(value).lower()
    return field in cell and not isinstance(value, tuple) and OPERATORS[found[2]](value, wanted)
