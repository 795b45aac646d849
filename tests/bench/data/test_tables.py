"""Raw tables: good files are read as typed, bad ones are named by file, line and column."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data.tables import Column, DataError, TextTable, read_parquet, table_path

TABLE = TextTable(
    columns=(
        Column(name="id", kind="int"),
        Column(name="price", kind="float", optional=True),
        Column(name="colour", kind="text", choices=("red", "blue")),
    )
)
GOOD = "id,price,colour,ignored\n1,2.5,red,x\n2,,blue,y\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "things.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_good_file(tmp_path: Path) -> None:
    frame = TABLE.read(write(tmp_path, GOOD))
    assert list(frame) == ["id", "price", "colour"]
    assert frame["id"].dtype == np.int64
    assert frame["price"].dtype == np.float64
    assert frame["id"].tolist() == [1, 2]
    assert frame["price"].isna().tolist() == [False, True]


def test_packed_file_is_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "things.csv.gz"
    packed.write_bytes(gzip.compress(GOOD.encode()))
    assert table_path(tmp_path, "things.csv") == packed
    pd.testing.assert_frame_equal(TABLE.read(packed), TABLE.read(write(tmp_path, GOOD)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("id,price\n1,2\n", "line 1: no column colour; found id, price"),
        ("id,id,price,colour\n1,1,2,red\n", "line 1: column id stands there twice"),
        (GOOD + "x,1,red,\n", "line 4: column id has 'x', which is not a whole number"),
        (GOOD + "3,cheap,red,\n", "line 4: column price has 'cheap', which is not a number"),
        (GOOD + "3,inf,red,\n", "line 4: column price has 'inf', which is not finite"),
        (GOOD + "3,1,green,\n", "line 4: column colour has 'green'; expected one of red, blue"),
        (GOOD + ",1,red,\n", "line 4: column id is missing a value"),
        (GOOD + "3,1,,\n", "line 4: column colour is missing a value"),
        (GOOD + "99999999999999999999,1,red,\n", "line 4: column id has '99999999999999999999', which is too large"),
        (GOOD + "3,1,red\n", "line 4: 3 fields where 4 are expected"),
        (GOOD + "3,1,red,x,y\n", "line 4: 5 fields where 4 are expected"),
        (GOOD + '3,1,red,"a\nb"\nx,1,red,\n', "line 6: column id has 'x', which is not a whole number"),
        (GOOD.encode() + b"3,1,r\xe9d,\n", "line 4: column colour has byte 0xe9, which is not in the file's encoding"),
        (b"id,price,col\xffour\n", "line 1: no column colour; found id, price, col\\udcffour"),
        (GOOD + '3,1,"red,\n', "line 4: unexpected end of data"),
    ],
)
def test_bad_file_is_named_by_line_and_column(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        TABLE.read(path)
    assert str(path) in str(error.value)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_absent_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        TABLE.read(tmp_path / "things.csv")
    packed = tmp_path / "things.csv.gz"
    packed.write_bytes(gzip.compress((GOOD + "3,1,red,x\n" * 100_000).encode())[:-20])
    with pytest.raises(DataError, match="cannot read"):
        TABLE.read(packed)


def test_repeated_key_and_unknown_id(tmp_path: Path) -> None:
    path = write(tmp_path, 'id,price,colour,note\n1,1,red,"two\nlines"\n2,1,red,\n1,1,blue,\n')
    frame = TABLE.read(path)
    with pytest.raises(DataError, match=r"things.csv line 5: column id repeats 1"):
        TABLE.require_unique(path, frame, ["id"])
    with pytest.raises(DataError, match=r"things.csv line 4: column id has 2, which keys.csv does not know"):
        TABLE.rows_of(path, frame["id"], pd.Series([1, 5]), Path("keys.csv"))
    assert TABLE.rows_of(path, frame["id"], pd.Series([2, 1]), Path("keys.csv")).tolist() == [1, 0, 1]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"n": [1.5, 2.0], "s": ["a", None], "t": pd.to_datetime(["2020-01-01", "2020-01-02"])}).to_parquet(
        path
    )
    assert read_parquet(path, {"n": "number", "s": "text", "t": "time"})["n"].tolist() == [1.5, 2.0]
    with pytest.raises(DataError, match=r"no column m; found n, s, t"):
        read_parquet(path, {"m": "number"})
    with pytest.raises(DataError, match=r"column s is .*, expected a number column"):
        read_parquet(path, {"s": "number"})
    path.write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="cannot read"):
        read_parquet(path, {"n": "number"})
    with pytest.raises(DataError, match="is missing"):
        read_parquet(tmp_path / "absent", {"n": "number"})
