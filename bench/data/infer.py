"""Columns of which nobody said what they hold: guessed from their values, then read as guessed."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.data.files import DataError, Odd, Say, open_unpacked
from bench.data.tables import MAYBE_TEXT, Column, TextTable

FEW_VALUES = 20  # whole numbers of no more values are taken for names of groups
MOST_TEXTS = 100  # texts of more values than this, in more than half of the rows, are taken for titles
PARSED = 0.9  # of a column's texts that are numbers or dates, if it is to be one of numbers or dates
GROUPS = ("_id", "_code", "zip")  # endings of names of columns whose whole numbers are names of groups
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")
ATOMIC = (".inter", ".user", ".item")  # RecBole's files
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # times beyond the first are counted in parts of a second

Kind = Literal["number", "time", "group", "left out"]


def kind_of(values: pd.Series[Any]) -> tuple[Kind, str]:
    """What a column becomes, and for one that becomes nothing why."""
    known = values.dropna()
    if known.empty:
        return "left out", "no value"
    if not pd.api.types.is_hashable(known.iloc[0]):
        return "left out", f"holds a {type(known.iloc[0]).__name__} a row"
    n_values = known.nunique()
    if n_values == 1 and len(known) == len(values):
        return "left out", "one value in every row"
    if pd.api.types.is_bool_dtype(known):
        return "group", ""
    if pd.api.types.is_datetime64_any_dtype(known):
        return "time", ""
    numbers = pd.to_numeric(known, errors="coerce").dropna()
    if len(numbers) >= PARSED * len(known):
        whole = bool((numbers % 1 == 0).all())
        is_group = whole and (n_values <= FEW_VALUES or str(values.name).lower().endswith(GROUPS))
        return "group" if is_group else "number", ""
    if pd.to_datetime(known, errors="coerce", format="ISO8601", utc=True).notna().mean() >= PARSED:
        return "time", ""
    if n_values > max(MOST_TEXTS, len(known) / 2):
        return "left out", f"{n_values:,} different texts in {len(known):,} rows"
    return "group", ""


def raw_table(path: Path) -> pd.DataFrame:
    """All columns that have a name, texts where the file does not say more.

    Raises:
        DataError: absent, unreadable or empty.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    names = _header(path)
    found = _text_table(path, dict.fromkeys(names.values(), MAYBE_TEXT)).read(path, lambda _: None)
    return found.rename(columns=dict(zip(names.values(), names, strict=True)))


def read_table(
    path: Path, columns: dict[str, Column], say: Say, *, key: str = "", known: dict[str, pd.Series[Any]] | None = None
) -> pd.DataFrame:
    """The columns as declared, without odd rows, as ``TextTable.read`` gives them.

    Args:
        path: of a file of delimited text or of a parquet file.
        columns: to read.
        say: is called with one line where something is odd.
        key: column whose values name a row; of rows that share one the first stays.
        known: for columns of ids, all ids that there are; such a column comes back as row numbers among these.

    Raises:
        DataError: absent, unreadable, empty, columns missing, or many odd rows.
    """
    if path.suffix == ".parquet":
        return _typed(path, _parquet(path), columns, say, key, known or {})
    names = {name: raw for name, raw in _header(path).items() if name in columns}
    table = _text_table(path, {raw: columns[name] for name, raw in names.items()}, names.get(key, ""))
    ids = {names[name]: values for name, values in (known or {}).items()}
    return table.read(path, say, ids).rename(columns=dict(zip(names.values(), names, strict=True)))


def seconds_of(times: pd.Series[Any]) -> pd.Series[float]:
    """Seconds since 1970 of dates, or of numbers that count seconds or thousandths, millionths, billionths of one."""
    if pd.api.types.is_datetime64_any_dtype(times):
        return (times - pd.Timestamp(0, tz=times.dt.tz)) / pd.Timedelta(seconds=1)
    middle = times.abs().median()
    return times / next((parts for least, parts in UNITS if middle > least), 1.0)


def _text_table(path: Path, columns: dict[str, Column], key: str = "") -> TextTable:
    separator = "," if ".csv" in path.suffixes else "\t"
    atomic = path.suffix in ATOMIC
    return TextTable(columns, (key,) if key else (), separator=separator, missing=MISSING, quoted=not atomic)


def _header(path: Path) -> dict[str, str]:
    """Names of the columns that have one, and how the file spells them: RecBole's files put a type behind a colon.

    Raises:
        DataError: absent, unreadable or empty.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        with open_unpacked(path) as file:
            line = file.readline().decode("utf-8-sig", "surrogateescape").rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    table = _text_table(path, {})
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if table.quoted else csv.QUOTE_NONE
    names = [name for name in next(csv.reader([line], delimiter=table.separator, quoting=quoting), []) if name]
    if not names:
        raise DataError(f"{path} is empty")
    return {name.partition(":")[0] if path.suffix in ATOMIC else name: name for name in names}


def _parquet(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        frame: pd.DataFrame = pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if frame.empty:
        raise DataError(f"{path} has no rows")
    return frame.set_axis(frame.columns.map(str), axis=1)


def _typed(
    path: Path, frame: pd.DataFrame, columns: dict[str, Column], say: Say, key: str, known: dict[str, pd.Series[Any]]
) -> pd.DataFrame:
    found, why_odd = pd.DataFrame(index=frame.index), list[tuple[npt.NDArray[np.bool_], str]]()
    for name, column in columns.items():
        values = frame[name]
        if column.kind == "float":
            found[name] = pd.to_numeric(values, errors="coerce").astype("float64")
        elif column.kind == "date":
            found[name] = pd.to_datetime(values, errors="coerce", utc=True)
        else:
            found[name] = values.astype("object").where(values.notna(), None).map(str, na_action="ignore")
        if not column.optional:
            why_odd.append((found[name].isna().to_numpy(), f"column {name} misses a value of its kind"))
    if key:
        why_odd.append((found[key].duplicated().to_numpy(), f"column {key} repeats a value"))
    for name, ids in known.items():
        found[name] = pd.Index(ids).get_indexer(found[name])
        why_odd.append(((found[name] < 0).to_numpy(), f"column {name} has a value that is in no other table"))
    bad, odd = np.zeros(len(found), bool), Odd(path)
    for rows, why in why_odd:
        new = rows & ~bad
        if new.any():
            odd.add(f"row {new.argmax() + 1}", why, int(new.sum()))
        bad |= rows
    odd.tell(len(found), say)
    return found[~bad].reset_index(drop=True)
