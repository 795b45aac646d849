"""MovieLens 100K: 100,000 film ratings by 943 users, 1997-1998 (Harper and Konstan, doi 10.1145/2827872).

Both sources, GroupLens' own archive and the copy in the wheel ``recbole``, are brought to the same three stored tables,
byte for byte, so that the checksums hold whatever the source and nothing depends on where the data came from. Titles
are left out: the two sources spell them differently, and no tower reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bench.data import download
from bench.data.dataset import Adapter, DataSet, Source, Table, interactions, split_by_time
from bench.data.files import DataError, Say
from bench.data.tables import Column, TextTable

TRAIN_UNTIL = 889237269  # 80 % of the ratings
LIKED = 4  # ratings from here on are positive

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

USERS = TextTable(
    key=("user_id",),
    columns=(
        Column(name="user_id", kind="int"),
        Column(name="age", kind="int"),
        Column(name="gender", kind="text", choices=("F", "M")),
        Column(name="occupation", kind="text"),
        Column(name="zip_code", kind="text"),
    ),
)
ITEMS = TextTable(
    key=("item_id",),
    columns=(
        Column(name="item_id", kind="int"),
        Column(name="release_year", kind="int", optional=True),
        *(Column(name=genre, kind="int", choices=("0", "1")) for genre in GENRES),
    ),
)
RATINGS = TextTable(
    key=("user_id", "item_id"),
    columns=(
        Column(name="user_id", kind="int"),
        Column(name="item_id", kind="int"),
        Column(name="rating", kind="int", choices=("1", "2", "3", "4", "5")),
        Column(name="timestamp", kind="int"),
    ),
)


def load(folder: Path) -> DataSet:
    """The stored tables as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    notes: list[str] = []
    users = USERS.read(folder / "users.csv", notes.append)
    items = ITEMS.read(folder / "items.csv", notes.append)
    known = {"user_id": users["user_id"], "item_id": items["item_id"]}
    ratings = RATINGS.read(folder / "ratings.csv", notes.append, known)
    time = ratings["timestamp"].to_numpy(np.int64)
    return DataSet(
        name=ADAPTER.name,
        users=Table(
            frame=users.assign(zip_region=users["zip_code"].str[0]),
            key="user_id",
            numeric=("age",),
            categorical=("gender", "occupation", "zip_region"),
        ),
        items=Table(frame=items, key="item_id", numeric=("release_year",), categorical=GENRES),
        interactions=interactions(
            ratings["user_id"].to_numpy(np.int64),
            ratings["item_id"].to_numpy(np.int64),
            time,
            (ratings["rating"] >= LIKED).to_numpy().astype(np.float32),
            split_by_time(time, TRAIN_UNTIL),
        ),
        notes=tuple(notes),
        split_rule=f"by time: timestamp <= {TRAIN_UNTIL} trains (80 %), its last tenth validates, the rest tests",
    )


def from_grouplens(folder: Path, say: Say) -> None:
    """The archive as published: ``u.user`` and ``u.item`` split by ``|``, ``u.data`` by tabs, latin-1."""
    archive = download.by_url(URL, folder / "archive", say, md5=MD5)
    raw = {f"ml-100k/{name}": name for name in ("u.user", "u.item", "u.data")}
    download.extract(archive, raw, folder)
    users = TextTable(columns=USERS.columns, separator="|", header=False, quoted=False).read(folder / "u.user", say)
    ratings = TextTable(columns=RATINGS.columns, separator="\t", header=False).read(folder / "u.data", say)
    text = (Column(name=name, kind="text", optional=True) for name in ("title", "date", "video_date", "url"))
    layout = (ITEMS.columns[0], *text, *ITEMS.columns[2:])
    items = TextTable(columns=layout, separator="|", header=False, encoding="latin-1", quoted=False).read(
        folder / "u.item", say
    )
    _store(folder, users, items.assign(release_year=_year(items["title"])), ratings)
    for name in ("archive", *raw.values()):
        (folder / name).unlink()


def from_recbole(folder: Path, say: Say) -> None:
    """The same tables in RecBole's form: tab-separated, headers with types, genres as one list of words."""
    names = {f"recbole/dataset_example/ml-100k/ml-100k.{kind}": f"raw.{kind}" for kind in ("inter", "user", "item")}
    download.from_wheel("recbole==1.2.1", names, folder, say)
    ratings = _typed(RATINGS, {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"})(
        folder / "raw.inter", say
    )
    users = _typed(USERS, dict.fromkeys((column.name for column in USERS.columns), "token"))(folder / "raw.user", say)
    raw = TextTable(
        columns=(
            Column(name="item_id:token", kind="int"),
            Column(name="movie_title:token_seq", kind="text"),
            Column(name="release_year:token", kind="text"),
            Column(name="class:token_seq", kind="text"),
        ),
        separator="\t",
        quoted=False,
    ).read(folder / "raw.item", say)
    genres = raw["class:token_seq"].str.split()
    unknown = {word for words in genres for word in words} - set(GENRES)
    if unknown:
        raise DataError(f"{folder / 'raw.item'} has genres that MovieLens does not know: {', '.join(sorted(unknown))}")
    items = pd.DataFrame({"item_id": raw["item_id:token"]})
    # One film's year was cut off by what followed it ("(1995) (V)"): it is still in the title.
    year = raw["release_year:token"].where(raw["release_year:token"].str.fullmatch(r"\d{4}"))
    items["release_year"] = year.astype("float64").fillna(_year(raw["movie_title:token_seq"]))
    for genre in GENRES:
        items[genre] = [int(genre in words) for words in genres]
    _store(folder, users, items, ratings)
    for name in names.values():
        (folder / name).unlink()


def _typed(table: TextTable, kinds: dict[str, str]) -> Callable[[Path, Say], pd.DataFrame]:
    """A reader for RecBole's headers, which carry a type after each name."""
    columns = tuple(
        Column(name=f"{column.name}:{kinds[column.name]}", kind=column.kind, choices=column.choices)
        for column in table.columns
    )
    layout = TextTable(columns=columns, separator="\t", quoted=False)
    return lambda path, say: layout.read(path, say).rename(columns=lambda name: name.split(":")[0])


def _year(titles: pd.Series[str]) -> pd.Series[float]:
    """The last four digits in parentheses: where MovieLens writes the year of release."""
    return titles.str.extract(r".*\((\d{4})\)", expand=False).astype("float64")


def _store(folder: Path, users: pd.DataFrame, items: pd.DataFrame, ratings: pd.DataFrame) -> None:
    """One order of rows and of columns, whatever the source's."""
    tables = (
        ("users.csv", USERS, users.sort_values("user_id")),
        ("items.csv", ITEMS, items.sort_values("item_id").astype({"release_year": "Int64"})),
        ("ratings.csv", RATINGS, ratings.sort_values(["timestamp", "user_id", "item_id"])),
    )
    for name, table, frame in tables:
        columns = [column.name for column in table.columns]
        frame.to_csv(folder / name, columns=columns, index=False, lineterminator="\n")


URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MD5 = "0e33842e24a9c977be4e0107933c0723"  # published beside the archive

ADAPTER = Adapter(
    name="movielens-100k",
    about="100,000 film ratings by 943 users, 1,682 films with genres, 1997-1998",
    licence="GroupLens: research use, no redistribution without permission",
    homepage="https://grouplens.org/datasets/movielens/100k/",
    files={
        "users.csv": "f0666955a899ab27004d413eec2d92e393f5050879597e126ede637390e5a238",
        "items.csv": "b3efa7ce4d664c1602ace50a228a7338515c096cb5062833b67e3aa3bfed388e",
        "ratings.csv": "3c46eff2d044a58a152de9ed65c845918abc54381ffb0cea52c4618039e45dc7",
    },
    load=load,
    sources=(
        Source(about="GroupLens", fetch=from_grouplens),
        Source(about="the wheel recbole==1.2.1 on the package index", fetch=from_recbole),
    ),
)
