"""Raw tables: good files are read as typed, bad ones are named by file, line and column."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.data.files import DataError, table_path
from bench.data.parquet import read_parquet
from bench.data.tables import INT, MAYBE_FLOAT, Column, TextTable

TABLE = TextTable({"id": INT, "price": MAYBE_FLOAT, "colour": Column("text", choices=("red", "blue"))}, key=("id",))
GOOD = "id,price,colour,ignored\n1,2.5,red,x\n2,,blue,y\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "things.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_good_file(tmp_path: Path) -> None:
    frame = TABLE.read(write(tmp_path, GOOD), print)
    assert list(frame) == ["id", "price", "colour"]
    assert frame["id"].dtype == np.int64
    assert frame["price"].dtype == np.float64
    assert frame["id"].tolist() == [1, 2]
    assert frame["price"].isna().tolist() == [False, True]


def test_packed_file_is_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "things.csv.gz"
    packed.write_bytes(gzip.compress(GOOD.encode()))
    assert table_path(tmp_path, "things.csv") == packed
    pd.testing.assert_frame_equal(TABLE.read(packed, print), TABLE.read(write(tmp_path, GOOD), print))


def told(path: Path, **options: Any) -> list[str]:
    notes: list[str] = []
    TABLE.read(path, notes.append, **options)
    return notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("id,price,colour\n", "has no rows"),
        ("id,price,colour", "has no rows"),
        ("id,price\n1,2\n", "line 1: no column colour; found id, price"),
        ("id,id,price,colour\n1,1,2,red\n", "line 1: column id stands there twice"),
        (b"id,price,col\xffour\n", "line 1: no column colour; found id, price, col\\udcffour"),
        (f"id,{'x' * 200_000},colour\n1,2,red\n", "line 1: no column price; found id, xxx"),
        ('id,"price,colour\n1,2,red\n', "line 1: column 2 opens a quote that is not closed"),
        (GOOD + '3,1,red,"x\n' + "4,1,red,y\n" * 50, "line 4: column ignored opens a quote that is not closed"),
        (GOOD + '3,1,"red,x\n' + "4,1,red,y\n" * 50 + '5,1,"blue",\n', "line 4: column colour opens a quote"),
        ("id,price,colour,x\n1,2,red,x,y\n2,,,blue,y\n", "line 2: 5 fields where 4 are expected"),
        (b"\x1f\x8b" + GOOD.encode(), "cannot read"),
    ],
)
def test_file_that_is_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        TABLE.read(path, print)
    assert str(path) in str(error.value)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "x,1,red,\n", "line 4: column id has 'x', which is not a whole number"),
        (GOOD + "3,1,green,\n", "line 4: column colour has 'green'; expected one of red, blue"),
        (GOOD + ",1,red,\n", "line 4: column id is missing a value"),
        (GOOD + "3,1,,\n", "line 4: column colour is missing a value"),
        (GOOD + "99999999999999999999,1,red,\n", "line 4: column id has '99999999999999999999', which is too large"),
        (GOOD + f"{'9' * 5000},1,red,\n", f"line 4: column id has '{'9' * 40}...', which is not a whole number"),
        (GOOD + "3,1,red\n", "line 4: 3 fields where 4 are expected"),
        (GOOD + "3,1,red,x,y\n", "line 4: 5 fields where 4 are expected"),
        (GOOD + '3,1,green,"a\nb"\n', "line 4: column colour has 'green'; expected one of red, blue"),
        (GOOD + '\n3,1,green,"a\nb"\n', "line 5: column colour has 'green'; expected one of red, blue"),
        (GOOD.encode() + b"3,1,r\xe9d,\n", "line 4: column colour has byte 0xe9, which is not in the file's encoding"),
        (GOOD + '3,1,"red"x,\n', "line 4: ',' expected after '\"'"),
        (GOOD + '3,1,"red,\n', "line 4: unexpected end of data"),
        (GOOD + "1,9,blue,\n", "line 4: column id repeats 1"),
    ],
)
def test_odd_row_is_left_out_and_told(tmp_path: Path, text: str | bytes, expected: str) -> None:
    path = write(tmp_path, text)
    notes: list[str] = []
    frame = TABLE.read(path, notes.append)
    pd.testing.assert_frame_equal(frame, TABLE.read(write(tmp_path, GOOD), print))
    assert notes == [f"things.csv: 1 of 3 rows left out, the first is {expected}"]
    assert "\n" not in notes[0]


@pytest.mark.parametrize(("price", "why"), [("cheap", "not a number"), ("inf", "not finite")])
def test_odd_value_in_an_optional_column_counts_as_missing(tmp_path: Path, price: str, why: str) -> None:
    path = write(tmp_path, GOOD + f"3,{price},red,\n4,nan,red,\n")
    notes: list[str] = []
    frame = TABLE.read(path, notes.append)
    assert frame["price"].isna().tolist() == [False, True, True, True]
    assert notes == [
        "things.csv: 1 of 4 rows have a value that counts as missing, "
        f"the first is line 4: column price has {price!r}, which is {why}"
    ]


def test_many_odd_rows_put_the_rest_in_doubt(tmp_path: Path) -> None:
    good = "id,price,colour\n" + "".join(f"{i},1,red\n" for i in range(180))
    assert len(told(write(tmp_path, good + "x,1,red\n" * 20))) == 1  # a tenth
    with pytest.raises(DataError, match=r"line 182: column id has 'x', .* \(the first of 21 odd rows among 201\)"):
        told(write(tmp_path, good + "x,1,red\n" * 21))


@pytest.mark.parametrize("text", [f"\ufeff{GOOD}", GOOD.replace("\n", "\r\n"), GOOD.replace("\n", "\r"), GOOD[:-1]])
def test_byte_order_mark_and_line_ends_change_nothing(tmp_path: Path, text: str) -> None:
    for content in (text, text + "3,1,green,\n" if text.endswith("\n") else text):
        frame = TABLE.read(write(tmp_path, content), print)
        pd.testing.assert_frame_equal(frame, TABLE.read(write(tmp_path, GOOD), print))


def test_long_field_that_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + f"3,1,red,{'x' * 2_000_000}\n")
    assert TABLE.read(path, print)["id"].tolist() == [1, 2, 3]


def test_rows_keep_their_order_over_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data.tables.CHUNK", 3)
    path = write(tmp_path, GOOD + "".join(f"{i},{i / 2},red,\n" for i in range(3, 20)) + "x,1,red,\n")
    frame = TABLE.read(path, print)
    assert frame["id"].tolist() == list(range(1, 20))
    assert frame["price"].tolist()[2:] == [i / 2 for i in range(3, 20)]


def test_absent_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        TABLE.read(tmp_path / "things.csv", print)
    packed = tmp_path / "things.csv.gz"
    content = gzip.compress((GOOD + "3,1,red,x\n" * 3000).encode())
    for cut in (1, 8, 20, len(content) // 2):
        packed.write_bytes(content[:-cut])
        with pytest.raises(DataError, match=r"cannot read .*things.csv.gz beyond line \d+: "):
            TABLE.read(packed, print)


def test_what_is_packed_is_seen_by_its_content(tmp_path: Path) -> None:
    plain = TABLE.read(write(tmp_path, GOOD), print)
    unpacked = tmp_path / "things.csv.gz"
    unpacked.write_text(GOOD)
    pd.testing.assert_frame_equal(TABLE.read(unpacked, print), plain)
    pd.testing.assert_frame_equal(TABLE.read(write(tmp_path, gzip.compress(GOOD.encode())), print), plain)


def test_ids_come_back_as_row_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, 'id,price,colour,note\n4,1,red,"two\nlines"\n2,1,red,\n4,1,blue,\n5,1,red,\n')
    notes: list[str] = []
    frame = TABLE.read(path, notes.append, {"id": pd.Series([5, 4])})
    assert frame["id"].tolist() == [1, 0]
    assert notes == [
        "things.csv: 1 of 4 rows left out, the first is line 5: column id repeats 4",
        "things.csv: 1 of 3 rows left out, the first is line 4: column id has 2, which is in no other table",
    ]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"n": [1.5, 2.0], "s": ["a", None], "t": pd.to_datetime(["2020-01-01", "2020-01-02"])}).to_parquet(
        path
    )
    assert read_parquet(path, {"n": "number", "s": "text", "t": "time"}, print, needed=["n"])["n"].tolist() == [
        1.5,
        2.0,
    ]
    with pytest.raises(DataError, match=r"no column m; found n, s, t"):
        read_parquet(path, {"m": "number"}, print, needed=[])
    with pytest.raises(DataError, match=r"column s is .*, expected a number column"):
        read_parquet(path, {"s": "number"}, print, needed=[])
    path.write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="cannot read"):
        read_parquet(path, {"n": "number"}, print, needed=[])
    with pytest.raises(DataError, match="is missing"):
        read_parquet(tmp_path / "absent", {"n": "number"}, print, needed=[])
