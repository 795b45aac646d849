"""MovieLens 1M: a million film ratings by 6,040 users, 2000-2003 (Harper and Konstan, doi 10.1145/2827872)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.data import download, movielens
from bench.data.dataset import Adapter, DataSet, Source
from bench.data.files import DataError, Say
from bench.data.movielens import RATINGS
from bench.data.tables import INT, TEXT, Column, TextTable

GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

AGES = Column("text", choices=("1", "18", "25", "35", "45", "50", "56"))
USERS = TextTable(
    {"user_id": INT, "gender": Column("text", choices=("F", "M")), "age": AGES, "occupation": INT, "zip_code": TEXT},
    key=("user_id",),
)


def load(folder: Path) -> DataSet:
    """The stored tables as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    return movielens.load(folder, ADAPTER.name, USERS, GENRES, categorical=("gender", "age", "occupation"))


def from_grouplens(folder: Path, say: Say) -> None:
    """The archive as published: latin-1, fields split by two colons."""
    archive = download.by_url(URL, folder / "archive", say, md5=MD5)
    layout = TextTable({"item_id": INT, "title": TEXT, "genres": TEXT})
    tables = {"users.dat": USERS, "movies.dat": layout, "ratings.dat": RATINGS}
    download.extract(archive, {f"ml-1m/{name}": name for name in tables}, folder)
    frames = []
    for name, table in tables.items():  # readers take one character between fields; no field holds a tab
        text = (folder / name).read_text(encoding="latin-1")
        if "\t" in text:
            raise DataError(f"{name} holds a tab")
        (folder / name).write_text(text.replace("::", "\t"), encoding="utf-8")
        frames.append(replace(table, separator="\t", header=False, quoted=False).read(folder / name, say))
    users, films, ratings = frames
    items = films[["item_id"]].assign(
        release_year=movielens.year(films["title"]),
        **movielens.flags(folder / "movies.dat", films["genres"].str.split("|"), GENRES),
    )
    movielens.store(folder, users, items, ratings, ("archive", *tables))


URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"  # published beside the archive

ADAPTER = Adapter(
    name="movielens-1m",
    about="1,000,209 film ratings by 6,040 users, 3,883 films with genres, 2000-2003",
    licence="GroupLens: research use, no redistribution without permission",
    homepage="https://grouplens.org/datasets/movielens/1m/",
    files=dict.fromkeys(("users.csv", "items.csv", "ratings.csv")),
    load=load,
    sources=(Source(about="GroupLens", fetch=from_grouplens),),
)
