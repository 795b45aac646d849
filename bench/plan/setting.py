"""What a setting of a plan is, how its value is checked, and what is said where it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = object()  # an axis without a default
AUTO, NONE = "auto", "none"
BIGGEST = 10_000_000  # of most sizes; it only keeps slips of the finger out
MOST_VALUES = 10_000  # of one axis


class PlanError(ValueError):
    """A plan that cannot be; the message is one line for people."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A named setting of a plan.

    Attributes:
        name: in presets, ``run.json`` and, with dashes, on the command line.
        kind: of its value, ``int``, ``float``, ``str`` or ``bool``.
        about: one line for people.
        flags: other spellings on the command line.
        low, high: bounds of a number; an open one is excluded.
        choices: names to choose from, given by a function that is called when they are needed.
        auto: whether ``auto`` is a value too, made exact before a cell is made.
        many: whether a plan may have a list of values.
        optional: whether it may be empty, written ``none``.
    """

    name: str
    kind: type
    about: str
    flags: tuple[str, ...] = ()
    low: float = 0
    high: float = BIGGEST
    open_ends: bool = False
    choices: Callable[[], Iterable[str]] | None = None
    auto: bool = False
    many: bool = False
    optional: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """All spellings on the command line."""
        return (f"--{self.name.replace('_', '-')}", *self.flags)

    def help(self) -> str:
        """What ``--help`` says."""
        return self.about.format(choices=", ".join(self.choices())) if self.choices else self.about

    def read(self, text: str) -> Any:
        """The text as one value of its kind; text where it is none, and ``check`` says what is wrong with it."""
        if self.kind is bool:
            return {"true": True, "false": False}.get(text, text)
        try:
            return self.kind(text)
        except ValueError:
            return text

    def check(self, value: object) -> Any:
        """The value, a tuple without repeats where there may be many.

        Raises:
            PlanError: not a value of this setting.
        """
        if not self.many:
            return "" if self.optional and value == NONE else self._check_one(value)
        values = value if isinstance(value, list | tuple) else [value]
        if self.optional and values in ([NONE], (NONE,)):
            return ()
        if not values and not self.optional:
            raise PlanError(f"{self.name} is an empty list; give at least one value")
        if len(values) > MOST_VALUES:
            raise PlanError(f"{self.name} has {len(values):,} values, more than {MOST_VALUES:,}; shorten it")
        return tuple(dict.fromkeys(self._check_one(each) for each in values))

    def _check_one(self, value: object) -> Any:
        if self.auto and value == AUTO:
            return value
        if self.kind is str or self.kind is bool:
            return self._check_name(value)
        is_number = isinstance(value, int | (float if self.kind is float else int)) and not isinstance(value, bool)
        if not is_number or not self._in_bounds(value):  # type: ignore[arg-type]
            what = "whole numbers" if self.kind is int else "numbers"
            bounds = f"{'between' if self.open_ends else 'from'} {self.low:,} {'and' if self.open_ends else 'to'}"
            raise PlanError(f"{self.name} takes {what} {bounds} {self.high:,}{self._or_auto()}, got {shown(value)}")
        return self.kind(value)

    def _in_bounds(self, value: float) -> bool:
        return self.low < value < self.high if self.open_ends else self.low <= value <= self.high

    def _or_auto(self) -> str:
        return f" or {AUTO}" if self.auto else ""

    def _check_name(self, value: object) -> Any:
        if not isinstance(value, self.kind):
            raise PlanError(f"{self.name} takes {'names' if self.kind is str else 'true or false'}, got {shown(value)}")
        names = [*self.choices()] if self.choices else []
        if names and value not in names:
            chosen = ", ".join(names)
            raise PlanError(f"unknown value {shown(value)} for {self.name}; choose from {chosen}{self._or_auto()}")
        return value


@dataclass(frozen=True, kw_only=True)
class Axis(Setting):
    """A setting that a cell may vary in.

    Attributes:
        field: its name in a cell.
        default: left out of a cell's identity, so that a new axis changes no old id. Part of the contract: it never
            changes; another default is a new preset.
        words: how people read a value, with ``{}`` in its place; the field's name and the value where empty.
        label: how a value stands in a cell's id, with ``{}`` in its place; not at all where empty.
        whole: whether a plan's list is one value of a cell, not several cells.
    """

    field: str
    default: Any = REQUIRED
    words: str = ""
    label: str = ""
    whole: bool = False


def shown(value: object) -> str:
    """What the user gave, quoted, without control characters, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
