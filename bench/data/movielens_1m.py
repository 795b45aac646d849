"""MovieLens 1M: a million film ratings by 6,040 users, 2000-2003 (Harper and Konstan, doi 10.1145/2827872)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.data import download
from bench.data.dataset import Adapter, DataSet, Source, Table, interactions, split_by_time
from bench.data.files import DataError, Say
from bench.data.tables import Column, TextTable

LIKED = 4  # ratings from here on are positive

GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

USERS = TextTable(
    key=("user_id",),
    columns=(
        Column(name="user_id", kind="int"),
        Column(name="gender", kind="text", choices=("F", "M")),
        Column(name="age", kind="text", choices=("1", "18", "25", "35", "45", "50", "56")),
        Column(name="occupation", kind="int"),
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
    until = int(np.quantile(time, 0.8, method="lower"))
    return DataSet(
        name=ADAPTER.name,
        users=Table(
            frame=users.assign(zip_region=users["zip_code"].str[0]),
            key="user_id",
            categorical=("gender", "age", "occupation", "zip_region"),
        ),
        items=Table(frame=items, key="item_id", numeric=("release_year",), categorical=GENRES),
        interactions=interactions(
            ratings["user_id"].to_numpy(np.int64),
            ratings["item_id"].to_numpy(np.int64),
            time,
            (ratings["rating"] >= LIKED).to_numpy().astype(np.float32),
            split_by_time(time, until),
        ),
        notes=tuple(notes),
        split_rule="by time: the first 80 % train, their last tenth validates, the rest tests",
    )


def from_grouplens(folder: Path, say: Say) -> None:
    """The archive as published: latin-1, fields split by two colons."""
    archive = download.by_url(URL, folder / "archive", say, md5=MD5)
    names = ("users.dat", "movies.dat", "ratings.dat")
    download.extract(archive, {f"ml-1m/{name}": name for name in names}, folder)
    for name in names:  # readers take one character between fields; no field holds a tab
        text = (folder / name).read_text(encoding="latin-1")
        if "\t" in text:
            raise DataError(f"{name} holds a tab")
        (folder / name).write_text(text.replace("::", "\t"), encoding="utf-8")
    users = _raw(USERS.columns).read(folder / "users.dat", say)
    ratings = _raw(RATINGS.columns).read(folder / "ratings.dat", say)
    words_of = (Column(name="title", kind="text"), Column(name="genres", kind="text"))
    films = _raw((ITEMS.columns[0], *words_of)).read(folder / "movies.dat", say)
    words = films["genres"].str.split("|")
    unknown = {word for row in words for word in row} - set(GENRES)
    if unknown:
        raise DataError(f"movies.dat has genres that MovieLens does not know: {', '.join(sorted(unknown))}")
    items = pd.DataFrame({"item_id": films["item_id"]})
    items["release_year"] = films["title"].str.extract(r".*\((\d{4})\)", expand=False).astype("float64").astype("Int64")
    for genre in GENRES:
        items[genre] = [int(genre in row) for row in words]
    ratings = ratings.sort_values(["timestamp", "user_id", "item_id"])
    for name, frame in (("users", users), ("items", items), ("ratings", ratings)):
        frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    for name in ("archive", *names):
        (folder / name).unlink()


def _raw(columns: tuple[Column, ...]) -> TextTable:
    return TextTable(columns=columns, separator="\t", header=False, quoted=False)


URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"  # published beside the archive

ADAPTER = Adapter(
    name="movielens-1m",
    about="1,000,209 film ratings by 6,040 users, 3,883 films with genres, 2000-2003",
    licence="GroupLens: research use, no redistribution without permission",
    homepage="https://grouplens.org/datasets/movielens/1m/",
    files={"users.csv": None, "items.csv": None, "ratings.csv": None},
    load=load,
    sources=(Source(about="GroupLens", fetch=from_grouplens),),
)
