"""Raw tables in, typed columns out; whatever is wrong is named by file, line and column.

The fast path is Arrow's reader with declared types. Only when it refuses is the file read a second time, line by
line, to say where and why: good files pay nothing for good messages.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as csv_reader
import pyarrow.parquet as pq


class DataError(ValueError):
    """A data set that cannot be found, fetched or read; the message is one line for people."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column of a raw file must hold.

    Attributes:
        name: in the header, or the name given to it where the file has none.
        kind: ``int``, ``float`` or ``text``.
        optional: whether a value may be missing; numbers with gaps come back as float with NaN, text with None.
        choices: the only values allowed; empty allows all.
    """

    name: str
    kind: Literal["int", "float", "text"]
    optional: bool = False
    choices: tuple[str, ...] = ()

    def problem(self, value: str, missing: Sequence[str]) -> str | None:
        """Why ``value`` cannot stand in this column, or None when it can."""
        undecoded = [char for char in value if "\udc80" <= char <= "\udcff"]
        if undecoded:
            return f"has byte 0x{ord(undecoded[0]) - 0xDC00:02x}, which is not in the file's encoding"
        if value in missing:
            return None if self.optional else "is missing a value"
        if self.choices and value not in self.choices:
            return f"has {value!r}; expected one of {', '.join(self.choices)}"
        return _NOT_A[self.kind](value)


def _not_int(value: str) -> str | None:
    try:
        number = int(value)
    except ValueError:
        return f"has {value!r}, which is not a whole number"
    return None if -(2**63) <= number < 2**63 else f"has {value!r}, which is too large"


def _not_float(value: str) -> str | None:
    try:
        number = float(value)
    except ValueError:
        return f"has {value!r}, which is not a number"
    return None if math.isfinite(number) else f"has {value!r}, which is not finite"


_NOT_A: dict[str, Callable[[str], str | None]] = {"int": _not_int, "float": _not_float, "text": lambda value: None}


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """How a delimited text file is written.

    Attributes:
        columns: those that are read; others are ignored where there is a header, and must be listed where not.
        separator: between fields.
        header: whether the first line names the columns.
        missing: texts that stand for a missing value.
        encoding: of the file.
        quoted: whether fields may stand in double quotes.
    """

    columns: tuple[Column, ...]
    separator: str = ","
    header: bool = True
    missing: tuple[str, ...] = ("",)
    encoding: str = "utf-8"
    quoted: bool = True

    def read(self, path: Path) -> pd.DataFrame:
        """All rows.

        Raises:
            DataError: absent, unreadable, columns missing, or a value of the wrong type; names file, line, column.
        """
        if not path.is_file():
            raise DataError(f"{path} is missing")
        self._check_header(path)
        names = [column.name for column in self.columns]
        try:
            table = csv_reader.read_csv(
                path,
                csv_reader.ReadOptions(column_names=None if self.header else names, encoding=self.encoding),
                csv_reader.ParseOptions(
                    delimiter=self.separator, quote_char='"' if self.quoted else False, newlines_in_values=self.quoted
                ),
                csv_reader.ConvertOptions(
                    column_types={column.name: _TYPES[column.kind] for column in self.columns},
                    include_columns=names,
                    null_values=list(self.missing),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except (OSError, EOFError, zlib.error, ValueError, pa.ArrowException) as error:
            raise self._explain(path, str(error).splitlines()[0]) from None
        frame: pd.DataFrame = table.to_pandas()
        for column in self.columns:
            values = frame[column.name]
            bad = values.isna() & (not column.optional)
            if column.choices:
                allowed = [int(choice) if column.kind == "int" else choice for choice in column.choices]
                bad |= values.notna() & ~values.isin(allowed)
            if column.kind == "float":
                bad |= np.isinf(values.to_numpy(np.float64, na_value=np.nan))
            if bad.any():
                raise self._explain(path, f"column {column.name} is not as expected")
        return frame

    def _check_header(self, path: Path) -> None:
        if not self.header:
            return
        with _open(path, self.encoding) as file:
            found = [_printable(name) for name in next(self._reader(file), [])]
        if not found:
            raise DataError(f"{path} is empty")
        absent = [column.name for column in self.columns if column.name not in found]
        if absent:
            raise DataError(f"{path} line 1: no column {', '.join(absent)}; found {', '.join(found)}")
        twice = sorted({column.name for column in self.columns if found.count(column.name) > 1})
        if twice:
            raise DataError(f"{path} line 1: column {', '.join(twice)} stands there twice")

    def _reader(self, file: io.TextIOBase) -> Any:
        return csv.reader(
            file, delimiter=self.separator, quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE, strict=True
        )

    def _explain(self, path: Path, otherwise: str) -> DataError:
        """The first thing that is wrong, found line by line; ``otherwise`` when nothing is found."""
        line = 0
        try:
            with _open(path, self.encoding) as file:
                reader = self._reader(file)
                names = next(reader) if self.header else [column.name for column in self.columns]
                places = [(column, names.index(column.name)) for column in self.columns]
                for fields in reader:
                    line = reader.line_num
                    if not fields:
                        continue
                    if len(fields) != len(names):
                        return DataError(f"{path} line {line}: {len(fields)} fields where {len(names)} are expected")
                    for column, place in places:
                        problem = column.problem(fields[place], self.missing)
                        if problem is not None:
                            return DataError(f"{path} line {line}: column {column.name} {problem}")
        except csv.Error as error:
            return DataError(f"{path} line {line + 1}: {error}")
        except (OSError, EOFError, zlib.error) as error:
            return DataError(f"cannot read {path}: {error}")
        return DataError(f"cannot read {path}: {otherwise}")

    def line_of(self, path: Path, record: int) -> int:
        """Line, from 1, on which the record number ``record`` (from 0) ends."""
        with _open(path, self.encoding) as file:
            reader = self._reader(file)
            seen = -1 if not self.header else -2
            for fields in reader:
                seen += bool(fields)
                if seen == record:
                    return int(reader.line_num)
        raise IndexError(record)

    def require_unique(self, path: Path, frame: pd.DataFrame, keys: Sequence[str]) -> None:
        """Refuse a second row with the same key.

        Raises:
            DataError: names the line of the second row.
        """
        repeated = frame.duplicated(list(keys)).to_numpy()
        if repeated.any():
            record = int(repeated.argmax())
            value = ", ".join(str(frame[key].iloc[record]) for key in keys)
            raise DataError(f"{path} line {self.line_of(path, record)}: column {', '.join(keys)} repeats {value}")

    def rows_of(self, path: Path, values: pd.Series[Any], keys: pd.Series[Any], where: Path) -> npt.NDArray[np.int64]:
        """Row number in ``keys`` of each of the ``values``, which are a column of ``path``.

        Raises:
            DataError: a value that is not among the keys; names its line.
        """
        found = compute.index_in(pa.array(values), value_set=pa.array(keys))
        rows: npt.NDArray[np.int64] = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        if (rows < 0).any():
            record = int((rows < 0).argmax())
            raise DataError(
                f"{path} line {self.line_of(path, record)}: column {values.name} has {values.iloc[record]!s}, "
                f"which {where.name} does not know"
            )
        return rows


_TYPES = {"int": pa.int64(), "float": pa.float64(), "text": pa.string()}


def _open(path: Path, encoding: str) -> io.TextIOWrapper:
    """As text; bytes that are not of the encoding become surrogates, which ``Column.problem`` tells of."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, errors="surrogateescape", newline="")
    return path.open(encoding=encoding, errors="surrogateescape", newline="")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def table_path(folder: Path, name: str) -> Path:
    """``folder/name``, or its gzip-compressed form where only that exists."""
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() and not (folder / name).is_file() else folder / name


def read_parquet(path: Path, columns: dict[str, Literal["number", "text", "time"]]) -> pd.DataFrame:
    """The named columns of a parquet file.

    Raises:
        DataError: absent, not parquet, a column missing or of another kind.
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
        return pq.read_table(path, columns=list(columns)).to_pandas()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
