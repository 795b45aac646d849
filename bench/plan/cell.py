"""A cell: everything that may change a number, and nothing else. One point of a plan."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bench.plan import tasks
from bench.plan.axes import AXES, BY_FIELD, is_default
from bench.plan.setting import REQUIRED, Axis
from ftmamba import mixers

PARAMS = "params"  # the field that holds the mixer's own parameters


class Settings(Mapping[str, Any]):
    """Names and values that do not change, read as ``cell.n_tokens`` or ``cell["n_tokens"]``."""

    _settings: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("_settings", {})
        if name not in settings:
            task = settings.get("task", settings.get("tasks"))
            raise AttributeError(f"a {type(self).__name__.lower()} of {task} has no {name}")
        return settings[name]

    def __getitem__(self, name: str) -> Any:
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)


class Cell(Settings):
    """One point of a plan: a task, and a value of each axis that belongs to it.

    All names are exact (``auto`` was resolved before). Fields that are not given take their axis' default, the mixer's
    parameters in ``params`` those of its spec.

    Raises:
        TypeError: a field that no axis has.
    """

    def __init__(self, *, task: str, **values: Any) -> None:
        self._settings = {"task": task}
        params = values.pop(PARAMS, {})
        for axis in _axes(task, *values.keys() - set(tasks.find(task).axes)):
            value = values.get(axis.field, axis.default)
            if value is not REQUIRED:
                self._settings[axis.field] = tuple(value) if isinstance(value, list) else value
        if "mixer" in self._settings:
            self._settings[PARAMS] = {**_usual(self.mixer), **params}

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Cell({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def but(self, **changes: Any) -> Cell:
        """The same cell with other values; the parameters of another mixer are its defaults."""
        kept = {name: value for name, value in self.items() if name != PARAMS or "mixer" not in changes}
        return Cell(**{**kept, **changes})

    def as_task(self, task: str) -> Cell:
        """A cell of another task with the fields that both have."""
        own = (*tasks.find(task).axes, PARAMS)
        return Cell(task=task, **{name: value for name, value in self.items() if name in own})

    @functools.cached_property
    def id(self) -> str:
        """Readable and stable: the same cell has the same id in every run, on every machine, whatever axes come."""
        return identity(self._settings)


@functools.cache
def _axes(task: str, *others: str) -> tuple[Axis, ...]:
    """The axes of a task, and others, in the order of the table."""
    unknown = [field for field in others if field not in BY_FIELD]
    if unknown:
        raise TypeError(f"no axis is called {unknown[0]!r}")
    return tuple(axis for axis in AXES if axis.field in (*tasks.find(task).axes, *others))


def _usual(mixer: str) -> dict[str, Any]:
    """Defaults of a mixer's parameters. A user's own is not imported: records may come from anywhere, and name any."""
    return mixers.defaults(mixer) if mixer in mixers.NAMES else {}


def identity(fields: Mapping[str, Any]) -> str:
    """A readable label, and a hash over the task and every value that is not its axis' default."""
    params = fields.get(PARAMS) or {}
    usual = _usual(str(fields.get("mixer")))
    own = {name: value for name, value in params.items() if name not in usual or usual[name] != value}
    named = {name: value for name, value in fields.items() if name != PARAMS and not is_default(name, value)}
    if own:
        named[PARAMS] = own
    parts = [
        axis.label.format(fields[axis.field])
        for axis in AXES
        if axis.label and axis.field in named and fields[axis.field] != ""
    ]
    label = re.sub(r"[^A-Za-z0-9_.+]+", "-", "-".join(parts))  # it becomes a file's name
    return f"{label}-{fingerprint(named)}"


def fingerprint(fields: Mapping[str, Any]) -> str:
    """Eight hex digits of a hash over all fields, independent of their order."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
