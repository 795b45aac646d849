"""A record: what happened to one cell in one round. Written once; statistics come later."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

SCHEMA = 2

Status = Literal["ok", "oom", "timeout", "skipped", "error"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of ``records.jsonl``. Units are in the names, SI throughout.

    Attributes:
        run: name of the run that wrote it.
        cell_id: stable id of the cell.
        round: which pass over the cells, from 0.
        cell: the cell's fields.
        status: ``ok``, or why there is no number.
        reason: for people; empty only when the status is ``ok``.
        samples: raw readings, such as ``{"wall_s": [...]}``.
        values: single readings and analytic figures, such as ``peak_memory_bytes``; None where not measurable.
        notes: for each value that is None or special, why.
        started_at: UTC, ISO 8601.
        env: what may differ between processes of one run (threads, load); the rest is in ``run.json``.
        schema: format version.
    """

    run: str
    cell_id: str
    round: int
    cell: dict[str, Any]
    status: Status
    reason: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, float | int | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    started_at: str = ""
    env: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"unknown status {self.status!r}; expected one of {', '.join(STATUSES)}")
        if (self.status == "ok") == bool(self.reason):
            raise ValueError("a record has a reason exactly when its status is not ok")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Record:
        """A record from outside.

        Raises:
            ValueError, TypeError: not the fields of a record.
        """
        record = cls(**fields)
        for name, kind in _KINDS.items():
            if not isinstance(getattr(record, name), kind):
                raise TypeError(f"{name} is not of type {kind.__name__}")
        if not all(isinstance(samples, list) for samples in record.samples.values()):
            raise TypeError("samples are not lists")
        if any(value != value for value in record.cell.values()):
            raise ValueError("NaN in a cell, which would be unlike itself")
        return record


_KINDS: dict[str, type] = {
    "run": str, "cell_id": str, "round": int, "cell": dict, "reason": str, "samples": dict, "values": dict,
    "notes": dict, "started_at": str, "env": dict,
}  # fmt: skip
