"""Probes: what is read while a cell runs, one a file. What a machine does not give is None with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """What a probe found.

    Attributes:
        values: numbers, units in the names; None where not readable.
        notes: for each None, and for each number that needs a word, why.
    """

    values: dict[str, float | int | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Reading) -> Reading:
        return Reading({**self.values, **other.values}, {**self.notes, **other.notes})
