"""A results folder on disk: ``run.json`` (what was run, on what) beside ``records.jsonl`` (one line a record)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.migrations import SchemaError, upgrade_record, upgrade_run
from bench.records.record import Record
from bench.records.text import printable

if TYPE_CHECKING:
    import pandas as pd

RUN_FILE = "run.json"
RECORDS_FILE = "records.jsonl"
NEEDS_POSIX = "measuring needs a POSIX system, such as Linux; the model core, data sets, reports and compare work here"


class RunError(ValueError):
    """A results folder that cannot be read or written; the message is one line for people."""


@dataclass(frozen=True)
class Run:
    """Everything one results folder holds.

    Attributes:
        name: the folder's name.
        meta: the contents of ``run.json``.
        records: every readable record, in the order in which they were written.
        problems: one line for each line of ``records.jsonl`` that could not be used.
        folder: where it was read from, for the sidecar files beside the records; None for a run that is not on disk.
    """

    name: str
    meta: dict[str, Any]
    records: list[Record]
    problems: list[str] = field(default_factory=list)
    folder: Path | None = None

    def to_pandas(self) -> pd.DataFrame:
        """A row a record: the cell's fields, what became of it, its values, and the median of each kind of readings.

        >>> load_run(Path("results/cpu-sweep")).to_pandas().groupby(["mixer", "backend", "n_tokens"])["wall_s"].median()
        """
        import pandas as pd

        return pd.DataFrame(
            {
                **{name: value for name, value in each.cell.items() if name != "params"},
                **(each.cell.get("params") or {}),
                **{name: getattr(each, name) for name in ("cell_id", "round", "status", "reason", "started_at")},
                **each.values,
                **{name: statistics.median(readings) for name, readings in each.samples.items() if readings},
            }
            for each in self.records
        )


def load_run(folder: Path) -> Run:
    """Read a results folder. Damaged lines are reported in ``problems``; all others are used.

    Raises:
        RunError: no results folder, ``run.json`` unreadable, or a schema that this program cannot follow.
    """
    folder = Path(folder)
    written = read_meta(folder)
    path = folder / RECORDS_FILE
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    records, problems = parse_records(content, str(path), written)
    return Run(name=run_name(folder), meta=upgraded(folder, written), records=records, problems=problems, folder=folder)


def by_kind(run: Run) -> list[Run]:
    """A run for each kind of machine that took part, so that readings of unlike machines meet in no estimate."""
    machines = run.meta.get("machines")
    if not isinstance(machines, dict):
        return [run]
    kinds = {name: facts.get("kind") for name, facts in machines.items() if isinstance(facts, dict)}
    first: dict[Any, Any] = {}
    for name, kind in kinds.items():
        first.setdefault(kind, machines[name])
    if len(first) < 2:
        return [run]
    usual = next(iter(first))  # of what was skipped before any machine had it
    parts = {
        kind: [each for each in run.records if kinds.get(each.env.get("machine", ""), usual) == kind] for kind in first
    }
    return [
        replace(run, meta={**run.meta, "machine": first[kind]}, records=records)
        for kind, records in parts.items() if records
    ]  # fmt: skip


def run_name(folder: Path) -> str:
    """The folder's own name, whichever way it was given."""
    return printable(folder.resolve().name)


def upgraded(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """The contents of ``run.json`` in the current schema.

    Raises:
        RunError: a schema that this program cannot follow.
    """
    try:
        return upgrade_run(meta)
    except SchemaError as error:
        raise RunError(f"{folder / RUN_FILE} {error}") from None


def read_meta(folder: Path) -> dict[str, Any]:
    """The contents of ``run.json`` as written.

    Raises:
        RunError: absent or unreadable.
    """
    path = folder / RUN_FILE
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{folder} is not a results folder: it has no {RUN_FILE}") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise RunError(f"{path} is not valid JSON") from None
    if not isinstance(meta, dict):
        raise RunError(f"{path} is not a JSON object")
    return meta


def parse_records(content: bytes, where: str, meta: dict[str, Any]) -> tuple[list[Record], list[str]]:
    """Records of a ``records.jsonl`` and one line for each of its lines that cannot be used.

    A later record of the same cell and round takes the place of one that ended in an error.

    Args:
        content: of the file.
        where: its name.
        meta: contents of ``run.json`` as written.

    Raises:
        RunError: a record of a schema that this program cannot follow.
    """
    records: list[Record] = []
    problems: list[str] = []
    seen: dict[tuple[str, int], int] = {}
    for number, line, complete in _lines(content):
        try:
            record = _parse(line, meta)
        except SchemaError as error:
            raise RunError(f"{where} line {number} {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            what = "not a record" if complete else "a torn last line (its write was cut short)"
            problems.append(f"{where} line {number}: {what}, left out")
            continue
        key = (record.cell_id, record.round)
        if key in seen and records[seen[key]].status == "error":
            records[seen[key]] = record
            continue
        if key in seen:
            problems.append(f"{where} line {number}: repeats round {record.round} of {record.cell_id}, left out")
            continue
        seen[key] = len(records)
        records.append(record)
    return records, problems


def _lines(content: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Line number, content, and whether the line was ended; blank lines are passed over."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line, number < len(lines)


def _parse(line: bytes, meta: dict[str, Any]) -> Record:
    fields = json.loads(line)
    if not isinstance(fields, dict) or "cell_id" not in fields:
        raise ValueError("not a record")
    return Record.from_dict(upgrade_record(fields, meta))
