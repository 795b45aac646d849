"""Old records stay readable: one step from each schema version to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.plan import tasks
from bench.plan.axes import BY_FIELD
from bench.plan.cell import PARAMS, Cell
from bench.plan.setting import REQUIRED
from bench.records.record import SCHEMA
from ftmamba import mixers

Fields = dict[str, Any]


class SchemaError(ValueError):
    """Written by a version of this program that this one cannot follow."""


def upgrade_record(fields: Fields, meta: Mapping[str, Any]) -> Fields:
    """A record's fields in the current schema.

    Args:
        fields: as written.
        meta: contents of the run's ``run.json``, as written, which tells what old records do not.

    Raises:
        SchemaError: the schema is newer than this program.
    """
    found = _upgrade(fields, {1: lambda old: _record_1(old, meta)})
    return {**_told(found), "cell": _completed(found["cell"])} if isinstance(found.get("cell"), dict) else found


def upgrade_run(meta: Fields) -> Fields:
    """The contents of a ``run.json`` in the current schema.

    Raises:
        SchemaError: the schema is newer than this program.
    """
    return _upgrade(meta, {1: _run_1})


# How the data sets of rankings were split, and what was ranked, before the records said so themselves.
PROTOCOLS = {
    "movielens-100k": "by time: timestamp <= 889237269 trains (80 %), its last tenth validates, the rest tests: cold "
    "start and drift, as most test users are new",
    "movielens-100k:split=warm": "at random within each user (70, 10, 20 %): not leak-free, training knows of later "
    "times than it is tested on",
    "complete-journey:level=type": "by time: until 2017-10-21 21:43:01 trains, its last tenth validates, the rest "
    "tests",
    "spotify": "at random within each playlist: 10 % validate, 20 % test",
    "coupon": "by respondent: 70 % train, 10 % validate, 20 % test",
    "vaccine": "by simulated time: the first 80 % train, their last tenth validates, the rest tests",
}


def _told(fields: Fields) -> Fields:
    """With what is known of a data set whose records do not tell its split."""
    cell, notes = fields["cell"], fields.get("notes") or {}
    dataset = cell.get("dataset")
    if cell.get("task") != "rank_quality" or "split" in notes or dataset not in PROTOCOLS:
        return fields
    candidates = "observed" if dataset == "coupon" else "catalogue"
    return {**fields, "notes": {**notes, "split": PROTOCOLS[dataset], "candidates": candidates}}


def _completed(cell: Fields) -> Fields:
    """With the defaults of those axes and mixer's parameters that came after it was written; they are not in its id."""
    task = cell.get("task")
    own = tasks.find(task).axes if isinstance(task, str) and task in tasks.names() else ()
    absent = (BY_FIELD[name] for name in own if name not in cell)
    found = cell | {axis.field: axis.default for axis in absent if axis.default is not REQUIRED}
    if found.get("mixer") in mixers.NAMES and isinstance(found.get(PARAMS), dict):
        found[PARAMS] = {**mixers.defaults(found["mixer"]), **found[PARAMS]}
    return found


def _upgrade(fields: Fields, migrations: Mapping[int, Callable[[Fields], Fields]]) -> Fields:
    version = fields.get("schema")
    if not isinstance(version, int) or isinstance(version, bool):
        raise SchemaError(f"has no schema version that this program knows (schema {version!r})")
    if version > SCHEMA:
        raise SchemaError(f"has schema {version}, newer than this program's {SCHEMA}; update ftmamba to read it")
    while version < SCHEMA:
        if version not in migrations:
            raise SchemaError(f"has schema {version}, and no migration leads from there to {SCHEMA}")
        fields = {**migrations[version](fields), "schema": version + 1}
        version += 1
    return fields


# From 1 to 2: a cell is identified by what is not its axis' default, and holds all that may change a number (heap,
# threads, what it was timed in turn with, a mixer's parameters); profiles are cells of a task of their own.


def _record_1(fields: Fields, meta: Mapping[str, Any]) -> Fields:
    spec = meta.get("spec") if isinstance(meta.get("spec"), dict) else {}
    assert isinstance(spec, dict)
    cell = {name: value for name, value in fields["cell"].items() if value is not None}
    if "model" in cell:
        model, d_ffn = cell.pop("model"), cell.pop("d_ffn", None)
        cell["mixer" if "backend" in cell else "baseline"] = model
        cell |= {"params": {"d_ffn": d_ffn}} if d_ffn is not None else {}
        cell |= {"learning_rates": tuple(cell["learning_rates"])} if "learning_rates" in cell else {}
    else:
        paired = spec.get("paired_with", "")
        cell["heap"] = spec.get("heap", "kept")
        cell["paired_with"] = "" if paired == f"{cell.get('mixer')}/{cell.get('backend')}" else paired
    if meta.get("kind") == "profile":
        cell = {name: value for name, value in cell.items() if name not in ("execution", "heap", "paired_with")}
        cell |= {
            "task": "profile",
            "profiled": cell["task"],
            "content_tokens": spec.get("content_tokens", spec.get("content_length", 0)),
        }
    cell["threads"] = _threads_1(meta, spec)
    migrated = Cell(**cell)
    return {
        **fields,
        "cell": dict(migrated),
        "cell_id": migrated.id,
        "env": {**fields.get("env", {}), "sidecar": fields["cell_id"]},
    }


def _threads_1(meta: Mapping[str, Any], spec: Mapping[str, Any]) -> int:
    """What was asked for; the count that torch took by itself was written down alike."""
    asked = any(str(word).startswith("--threads") for word in meta.get("argv") or [])
    return int(spec.get("threads", 0)) if asked else 0


def _run_1(meta: Fields) -> Fields:
    spec = dict(meta["spec"]) if isinstance(meta.get("spec"), dict) else {}
    kind = meta.get("kind")
    if isinstance(spec.get("backends"), list):  # numba was Mamba's alone
        spec["backends"] = ["mamba/numba" if name == "numba" else name for name in spec["backends"]]
    names = {"seed": "seeds", "batch_size": "batch_sizes", "content_tokens": "content_length"}
    spec = {names.get(name, name): value for name, value in spec.items()}
    spec["threads"] = _threads_1(meta, spec)
    spec |= {"rounds": spec.get("rounds", 1), "order": "random" if kind == "sweep" else "given", "cells_per_process": 1}
    if kind == "quality":
        spec |= {"tasks": ["rank_quality"], "backends": ["mamba/auto", "attention/sdpa"], "dtype": ["float32"]}
        for name, auto in (("batch_sizes", [0]), ("steps", 0)):
            spec[name] = "auto" if spec.get(name) in (auto, auto if name == "steps" else 0) else spec.get(name)
    elif kind == "profile":
        for name in ("execution", "heap", "paired_with"):
            spec.pop(name, None)
        spec |= {"profiled": spec.get("tasks", []), "tasks": ["profile"]}
    return {
        **meta,
        "command": f"bench.{kind}",
        "spec": spec if kind in ("sweep", "quality", "profile") else meta.get("spec"),
    }
