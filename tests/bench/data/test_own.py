"""Tables of one's own in every format: the same rows give the same data set, and what is wrong is told in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from bench import quality
from bench.data import OWN, adapter, cache
from bench.data.dataset import TEST, TRAIN, VALIDATION, DataSet
from bench.data.files import DataError
from bench.records.store import load_run

USERS = pd.DataFrame({"user_id": ["ann", "bob", "cy"], "age": [20.5, None, 40.0], "town": ["Ulm", "Rome", "Ulm"]})
ITEMS = pd.DataFrame({"item_id": ["7", "8", "9", "10"], "price": [1.5, 2.25, 3.5, 1.0], "shelf": ["a", "b", "a", "b"]})
MET = pd.DataFrame(
    [("ann", "7", 5.0, 100), ("bob", "8", 3.0, 200), ("ann", "8", 2.0, 300), ("cy", "9", 4.0, 400),
     ("ann", "8", 4.0, 500), ("bob", "7", 4.0, 600), ("cy", "7", 1.0, 700), ("bob", "10", 5.0, 800)],
    columns=["user_id", "item_id", "rating", "timestamp"],
)  # fmt: skip
TYPES = {"user_id": "token", "item_id": "token", "town": "token", "shelf": "token"}


def write(
    folder: Path, kind: str, users: pd.DataFrame = USERS, items: pd.DataFrame = ITEMS, met: pd.DataFrame = MET
) -> str:
    """The tables in a format, and the data set's name."""
    for name, frame in (("users", users), ("items", items), ("interactions", met)):
        if kind == "parquet":
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        elif kind == "recbole":
            header = [f"{column}:{TYPES.get(column, 'float')}" for column in frame]
            ending = {"users": "user", "items": "item", "interactions": "inter"}[name]
            frame.to_csv(folder / f"shop.{ending}", sep="\t", index=False, header=header)
        elif kind == "tsv":
            (folder / f"{name}.tsv.gz").write_bytes(gzip.compress(frame.to_csv(sep="\t", index=False).encode()))
        else:
            frame.to_csv(folder / f"{name}.csv", index=False)
    return f"{kind if kind in OWN else 'csv'}:{folder}"


def read(folder: Path, kind: str, **tables: pd.DataFrame) -> DataSet:
    return cache.load(adapter(write(folder, kind, **tables)))


def rows_of(data: DataSet) -> list[tuple[str, str, int, float, int]]:
    met = data.interactions
    user, item = data.users.frame["user_id"], data.items.frame["item_id"]
    return [(user[u], item[i], t, y, s) for u, i, t, y, s in met.itertuples(index=False)]


@pytest.mark.parametrize("kind", [*OWN, "tsv"])
def test_the_same_tables_in_every_format(tmp_path: Path, kind: str) -> None:
    """By hand: of ann and 8 the liked row at 500 stays; 80 % of seven times is 600, the last tenth of five is one."""
    data = read(tmp_path, kind)
    assert rows_of(data) == [
        ("ann", "7", 100, 1, TRAIN), ("bob", "8", 200, 0, TRAIN), ("cy", "9", 400, 1, TRAIN),
        ("ann", "8", 500, 1, TRAIN), ("bob", "7", 600, 1, VALIDATION), ("cy", "7", 700, 0, TEST),
        ("bob", "10", 800, 1, TEST),
    ]  # fmt: skip
    assert (data.users.numeric, data.users.categorical) == (("age",), ("town",))
    assert (data.items.numeric, data.items.categorical) == (("price",), ("shelf",))
    assert data.users.frame["age"].isna().tolist() == [False, True, False]
    assert data.items.frame["price"].tolist() == [1.5, 2.25, 3.5, 1.0]
    assert any("1 of 8 rows repeat a pair" in note for note in data.notes)


def test_interactions_alone_are_enough(tmp_path: Path) -> None:
    MET.drop(columns=["rating", "timestamp"]).to_csv(tmp_path / "events.csv", index=False)
    data = cache.load(adapter(f"csv:{tmp_path}"))
    assert data.users.frame["user_id"].tolist() == ["ann", "bob", "cy"]
    assert data.items.frame["item_id"].tolist() == ["10", "7", "8", "9"]
    assert set(data.interactions["label"]) == {1.0}
    assert "not leak-free" in data.split_rule


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_odd_rows_are_counted_and_told(tmp_path: Path, kind: str) -> None:
    odd = pd.DataFrame([("dora", "7", 5.0, 900), ("ann", "7", None, 950)], columns=MET.columns)
    met = pd.concat([MET, MET.assign(timestamp=MET["timestamp"] + 1000), odd], ignore_index=True)
    data = read(tmp_path, kind, met=met)
    assert len(data.interactions) == 7
    words = (
        ["line 18: column user_id has dora", "line 19: column rating"] if kind == "csv" else ["2 of 18 rows left out"]
    )
    assert all(any(each in note for note in data.notes) for each in words), data.notes


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("users.csv", "name,age\nann,3\n", "users.csv has no column user_id; found name, age; say which it is"),
        ("interactions.csv", "who,item_id\nann,7\n", "found who, item_id; say which it is in"),
        ("interactions.csv", "user_id,item_id,rating\nann,7,good\n", "column rating has no number"),
        ("interactions.csv", "", "interactions.csv is empty"),
        ("interactions.csv", "user_id,item_id\n", "interactions.csv has no rows"),
        ("interactions.csv", "user_id,item_id\nzoe,7\n", "line 2: column user_id has zoe, which is in no other table"),
        ("dataset.toml", "[user]\n", "user is none of [users], [items], [interactions]"),
        ("dataset.toml", "[users\n", "cannot read"),
        ("dataset.toml", "[users]\nnumbers = []\n", "[users]: unknown key numbers; choose from file, key, numeric"),
        ("dataset.toml", "[users]\nnumeric = 3\n", "numeric has 3, expected names in []"),
        ("dataset.toml", "[users]\nnumeric = ['tall']\n", "users.csv has no column tall, which dataset.toml names"),
        ("dataset.toml", "[interactions]\ntime = 'when'\n", "interactions.csv has no column when for time"),
        ("dataset.toml", "[users]\nfile = 'people.csv'\n", "people.csv is missing"),
        ("ratings.parquet", "no", None),
        ("users.tsv", "user_id\nann\n", "has users.csv and users.tsv for users; name one in dataset.toml"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, file: str, text: str, words: str | None) -> None:
    name = write(tmp_path, "csv")
    (tmp_path / file).write_text(text)
    if words is None:  # a file of another format is nobody's business
        assert cache.load(adapter(name)).users.n_rows == 3
        return
    with pytest.raises(DataError) as caught:
        cache.load(adapter(name))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["csv", "csv:", "csv:nowhere", "parquet:."])
def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"takes a folder|has no table of interactions"):
        cache.load(adapter(name))


def test_a_layout_corrects_what_was_inferred(tmp_path: Path) -> None:
    name = write(tmp_path, "csv")
    (tmp_path / "dataset.toml").write_text(
        "[users]\ncategorical = ['age']\nleft_out = ['town']\n[interactions]\nliked_from = 3\ntime = ''\n"
    )
    data = cache.load(adapter(name))
    assert (data.users.numeric, data.users.categorical) == ((), ("age",))
    assert data.interactions["label"].sum() == 6
    assert "no time" in data.split_rule


def test_own_tables_are_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    name = write(tmp_path / "shop", "csv")
    arguments = ["--dataset", name, "--baselines", "popularity", "--mixers", "none", "--device", "cpu", "--quiet"]
    assert quality.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    (record,) = load_run(tmp_path / "run").records
    assert record.values["catalogue_items"] == 4
