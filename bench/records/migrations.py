"""Old records stay readable: one step from each schema version to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.records.record import SCHEMA

Fields = dict[str, Any]

# MIGRATIONS[n] takes the fields of schema n and returns those of schema n + 1. Add one whenever SCHEMA grows.
RECORD_MIGRATIONS: dict[int, Callable[[Fields], Fields]] = {}
RUN_MIGRATIONS: dict[int, Callable[[Fields], Fields]] = {}


class SchemaError(ValueError):
    """Written by a version of this program that this one cannot follow."""


def upgrade(fields: Fields, migrations: dict[int, Callable[[Fields], Fields]], *, target: int = SCHEMA) -> Fields:
    """The same fields in schema ``target``, through one migration a version.

    Raises:
        SchemaError: the schema is newer than this program, or no migration leads here.
    """
    version = fields.get("schema")
    if not isinstance(version, int) or isinstance(version, bool):
        raise SchemaError(f"has no schema version that this program knows (schema {version!r})")
    if version > target:
        raise SchemaError(f"has schema {version}, newer than this program's {target}; update ftmamba to read it")
    while version < target:
        if version not in migrations:
            raise SchemaError(f"has schema {version}, and no migration leads from there to {target}")
        fields = {**migrations[version](fields), "schema": version + 1}
        version += 1
    return fields
