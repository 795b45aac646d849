"""Raw tables in, typed columns out; whatever is odd is named by file, line and column.

The fast path is Arrow's reader with declared types. Only where it finds something odd is the file read a second time,
line by line: good files pay nothing for good messages. A few odd rows are left out and told; where there are many the
rest is in doubt too, and the file is refused.
"""

from __future__ import annotations

import csv
import io
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.csv as csv_reader

from bench.data.files import BLOCK, DataError, Odd, Say, count_lines, open_unpacked

CHUNK = 1 << 16  # rows
csv.field_size_limit(1 << 24)

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """What one column of a raw file must hold.

    Attributes:
        kind: ``int``, ``float``, ``text``, or ``date`` as in 2020-09-22.
        optional: whether a value may be missing; numbers with gaps come back as float with NaN, text with None.
        choices: the only values allowed; empty allows all.
    """

    kind: Literal["int", "float", "text", "date"]
    optional: bool = False
    choices: tuple[str, ...] = ()

    def parse(self, text: str, missing: Sequence[str]) -> Any:
        """The value of ``text``, None where it is missing.

        Raises:
            ValueError: it cannot stand in this column; the message says why.
        """
        undecoded = [] if text.isascii() else [char for char in text if "\udc80" <= char <= "\udcff"]
        if undecoded:
            raise ValueError(f"has byte 0x{ord(undecoded[0]) - 0xDC00:02x}, which is not in the file's encoding")
        value = None if text in missing else self._value(text)
        if value is None and not self.optional:
            raise ValueError("is missing a value")
        return value

    def _value(self, text: str) -> Any:
        shown = repr(text if len(text) <= 40 else f"{text[:40]}...")
        if self.choices and text not in self.choices:
            raise ValueError(f"has {shown}; expected one of {', '.join(self.choices)}")
        try:
            value = _PARSE[self.kind](text)
        except ValueError:
            raise ValueError(f"has {shown}, which is not {_WORDS[self.kind]}") from None
        if self.kind == "int" and not -(2**63) <= value < 2**63:
            raise ValueError(f"has {shown}, which is too large")
        if self.kind == "float" and math.isinf(value):
            raise ValueError(f"has {shown}, which is not finite")
        return None if value != value else value


INT, FLOAT, TEXT, DATE = Column("int"), Column("float"), Column("text"), Column("date")
FLAG = Column("int", choices=("0", "1"))
MAYBE_INT, MAYBE_FLOAT, MAYBE_TEXT = (Column(column.kind, optional=True) for column in (INT, FLOAT, TEXT))

_PARSE: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "text": str, "date": datetime.fromisoformat}
_WORDS = {"int": "a whole number", "float": "a number", "text": "text", "date": "a date like 2020-09-22"}
_TYPES = {"int": pa.int64(), "float": pa.float64(), "text": pa.string(), "date": pa.timestamp("s")}


@dataclass(frozen=True)
class TextTable:
    """How a delimited text file is written.

    Attributes:
        columns: those that are read, by their names in the header; others are ignored. Without a header all in order.
        key: columns whose values together name a row; of rows that share them the first stays.
        separator: between fields.
        header: whether the first line names the columns.
        missing: texts that stand for a missing value.
        encoding: of the file.
        quoted: whether fields may stand in double quotes.
    """

    columns: Mapping[str, Column]
    key: tuple[str, ...] = ()
    _: KW_ONLY
    separator: str = ","
    header: bool = True
    missing: tuple[str, ...] = ("",)
    encoding: str = "utf-8"
    quoted: bool = True

    def read(self, path: Path, say: Say, known: Mapping[str, pd.Series[Any]] | None = None) -> pd.DataFrame:
        """All rows but odd ones: a value missing or of the wrong kind, a key that repeats, an id that is not known.

        In an optional column a value of the wrong kind counts as missing.

        Args:
            path: of the file, gzip-compressed or not.
            say: is called with one line for people where something is odd.
            known: for columns of ids, all ids that there are; such a column comes back as row numbers among these.

        Raises:
            DataError: absent, unreadable, empty, columns missing, or many odd rows; names file, line, column.
        """
        if not path.is_file():
            raise DataError(f"{path} is missing")
        self._check_header(path)
        table = self._at_once(path)
        table, places = self._by_line(path, say) if table is None else (table, np.arange(table.num_rows))
        if not table.num_rows:
            raise DataError(f"{path} has no rows")
        if self.key:
            repeats = table.select(self.key).to_pandas().duplicated().to_numpy()
            table, places = self._without(path, table, places, repeats, self.key, "repeats {}", say)
        for name, ids in (known or {}).items():
            values = table.column(name)
            rows = compute.index_in(values, value_set=pa.array(ids, type=values.type)).fill_null(-1).to_numpy()
            unknown = "has {}, which is in no other table"
            table, places = self._without(path, table, places, rows < 0, (name,), unknown, say)
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array(rows[rows >= 0].astype(np.int64)))
        return cast(pd.DataFrame, table.to_pandas())

    def _check_header(self, path: Path) -> None:
        if not self.header:
            return
        fields = next((fields for _, fields in self._records(path)), [])
        if isinstance(fields, str):
            raise DataError(f"{path} line 1: {fields}")
        found = [_printable(name) for name in fields]
        if not found:
            raise DataError(f"{path} is empty")
        absent = [name for name in self.columns if name not in found]
        if absent:
            raise DataError(f"{path} line 1: no column {', '.join(absent)}; found {', '.join(found)[:400]}")
        twice = sorted(name for name in self.columns if found.count(name) > 1)
        if twice:
            raise DataError(f"{path} line 1: column {', '.join(twice)} stands there twice")

    def _at_once(self, path: Path) -> pa.Table | None:
        """All rows by the fast path, None where anything is odd."""
        names = list(self.columns)
        try:
            with open_unpacked(path) as file:
                table = csv_reader.read_csv(
                    file,
                    csv_reader.ReadOptions(column_names=None if self.header else names, encoding=self.encoding),
                    csv_reader.ParseOptions(
                        delimiter=self.separator,
                        quote_char='"' if self.quoted else False,
                        newlines_in_values=self.quoted,
                    ),
                    csv_reader.ConvertOptions(
                        column_types={name: _TYPES[column.kind] for name, column in self.columns.items()},
                        include_columns=names,
                        null_values=list(self.missing),
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=True,
                    ),
                )
                return table if self._fits(table, path) else None
        except (OSError, EOFError, zlib.error, ValueError, pa.ArrowException):
            return None

    def _fits(self, table: pa.Table, path: Path) -> bool:
        """Whether every line is one row, since an open quote swallows lines in silence, and every value as declared."""
        if count_lines(path) != table.num_rows + self.header:
            return False
        for name, column in self.columns.items():
            values = table.column(name)
            if values.null_count and not column.optional:
                return False
            if column.choices:
                allowed = pa.array(map(_PARSE[column.kind], column.choices), type=values.type)
                if compute.any(compute.invert(compute.is_in(values.drop_null(), value_set=allowed))).as_py():
                    return False
            if column.kind == "float" and compute.any(compute.invert(compute.is_finite(values))).as_py():
                return False
        return True

    def _by_line(self, path: Path, say: Say) -> tuple[pa.Table, Ints]:
        """The rows that can be used, and their places in the file; says what is wrong with the others."""
        records = self._records(path)
        names = next(records)[1] if self.header else list(self.columns)
        places_of = [names.index(name) for name in self.columns]
        left_out, mended = Odd(path), Odd(path, "have a value that counts as missing")
        chunks, rows, places, n_rows = [self._chunk([])], list[list[Any]](), array("q"), 0
        for line, fields in records:
            n_rows += 1
            try:
                rows.append(self._row(places_of, fields, f"line {line}", mended))
                places.append(n_rows - 1)
            except ValueError as error:
                left_out.add(f"line {line}", str(error))
            if len(rows) == CHUNK:
                chunks.append(self._chunk(rows))
                rows.clear()
        left_out.tell(n_rows, say)
        mended.tell(n_rows, say)
        return pa.concat_tables([*chunks, self._chunk(rows)]), np.asarray(places)

    def _row(self, places_of: list[int], fields: list[str] | str, where: str, mended: Odd) -> list[Any]:
        """The values of a record, or ValueError where it cannot be used."""
        if isinstance(fields, str):
            raise ValueError(fields)
        values = []
        for (name, column), place in zip(self.columns.items(), places_of, strict=True):
            try:
                values.append(column.parse(fields[place], self.missing))
            except ValueError as error:
                why = f"column {name} {error}"
                if not column.optional:
                    raise ValueError(why) from None
                mended.add(where, why)
                values.append(None)
        return values

    def _chunk(self, rows: list[list[Any]]) -> pa.Table:
        schema = pa.schema({name: _TYPES[column.kind] for name, column in self.columns.items()})
        return pa.table([list(values) for values in zip(*rows, strict=True)] or [[] for _ in schema], schema=schema)

    def _records(self, path: Path) -> Iterator[tuple[int, list[str] | str]]:
        """The line on which a record begins and its fields, or what is wrong with it; blank lines are passed over.

        Raises:
            DataError: the file cannot be read to its end, or an open quote swallows lines.
        """
        line, lines = 1, list[str]()
        names = [] if self.header else list(self.columns)
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        try:
            with open_unpacked(path) as raw, io.TextIOWrapper(raw, encoding, "surrogateescape", newline="") as file:
                reader = self._reader(_kept(file, lines), strict=True)
                while True:
                    fields, why = list[str](), ""
                    try:
                        fields = next(reader)
                    except StopIteration:
                        return
                    except csv.Error as error:
                        why = str(error)
                    names = names or fields
                    if fields and len(fields) != len(names):
                        why = f"{len(fields)} fields where {len(names)} are expected"
                    if why and len(lines) > 1:
                        column = self._last_column(lines[0], names)
                        raise DataError(
                            f"{path} line {line}: column {column} opens a quote that is not closed on this line, "
                            f"and by line {line + len(lines) - 1}: {why}"
                        )
                    if fields or why:
                        yield line, why or fields
                    line += len(lines)
                    lines.clear()
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"cannot read {path} beyond line {line}: {error}") from None

    def _reader(self, lines: Iterable[str], *, strict: bool) -> Any:
        quoting: Literal[0, 3] = 0 if self.quoted else 3  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
        return csv.reader(lines, delimiter=self.separator, quoting=quoting, strict=strict)

    def _last_column(self, text: str, names: Sequence[str]) -> str:
        """The column in which a line ends: its name, or its number where it has none."""
        n = len(next(self._reader([text[:BLOCK]], strict=False), [""]))
        return names[n - 1] if n <= len(names) else str(n)

    def _without(
        self, path: Path, table: pa.Table, places: Ints, odd: Flags, columns: Sequence[str], problem: str, say: Say
    ) -> tuple[pa.Table, Ints]:
        """The rows that are not ``odd``; the others are told with the value of the first of them in ``problem``."""
        if not odd.any():
            return table, places
        row = int(odd.argmax())
        values = ", ".join(str(table.column(name)[row]) for name in columns)
        line = next(islice(self._records(path), int(places[row]) + self.header, None))[0]
        found = Odd(path)
        found.add(f"line {line}", f"column {', '.join(columns)} {problem.format(values)}", int(odd.sum()))
        found.tell(len(odd), say)
        return table.filter(pa.array(~odd)), places[~odd]


def _kept(file: Iterable[str], lines: list[str]) -> Iterator[str]:
    """The file's lines, each also put into ``lines``."""
    for text in file:
        lines.append(text)
        yield text


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
