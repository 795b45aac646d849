"""Columns of a parquet file, what is odd in their rows counted and told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.data.files import DataError, Odd, Say


def read_parquet(
    path: Path,
    columns: dict[str, Literal["number", "text", "time"]],
    say: Say,
    *,
    needed: list[str],
    unique: bool = False,
) -> pd.DataFrame:
    """The named columns of a parquet file, without rows that miss a ``needed`` value or, if ``unique``, repeat them.

    Raises:
        DataError: absent, not parquet, a column missing or of another kind, or many odd rows.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        schema = pq.read_schema(path)
        absent = [name for name in columns if name not in schema.names]
        if absent:
            raise DataError(f"{path}: no column {', '.join(absent)}; found {', '.join(schema.names)}")
        for name, kind in columns.items():
            found = schema.field(name).type
            if pa.types.is_dictionary(found):
                found = found.value_type
            fits = {
                "number": pa.types.is_integer(found) or pa.types.is_floating(found),
                "text": pa.types.is_string(found) or pa.types.is_large_string(found),
                "time": pa.types.is_timestamp(found),
            }
            if not fits[kind]:
                raise DataError(f"{path}: column {name} is {found}, expected a {kind} column")
        frame = pq.read_table(path, columns=list(columns)).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    odd = Odd(path)
    gaps = frame[needed].isna().any(axis=1).to_numpy()
    repeats = frame.duplicated(needed).to_numpy() & ~gaps & unique
    for rows, why in ((gaps, "misses a value"), (repeats, "repeats")):
        if rows.any():
            odd.add(f"row {rows.argmax() + 1}", f"column {', '.join(needed)} {why}", int(rows.sum()))
    odd.tell(len(frame), say)
    return cast(pd.DataFrame, frame[~(gaps | repeats)].reset_index(drop=True))
