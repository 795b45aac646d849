"""MovieLens 100K: 100,000 film ratings by 943 users, 1997-1998 (Harper and Konstan, doi 10.1145/2827872).

Both sources, GroupLens' own archive and the copy in the wheel ``recbole``, are brought to the same three stored tables,
byte for byte, so that the checksums hold whatever the source and nothing depends on where the data came from. Titles
are left out: the two sources spell them differently, and no tower reads them.

Half of the users rate everything within the hour, so that by time two in three test users are new: ``movielens-100k``
asks for cold start and drift. ``movielens-100k:split=warm`` has everyone's tastes in training, and later times too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.data import download, movielens
from bench.data.dataset import Adapter, DataSet, Source, choice, split_within_user
from bench.data.files import Say
from bench.data.movielens import RATINGS
from bench.data.tables import FLAG, INT, MAYBE_TEXT, TEXT, Column, TextTable

TRAIN_UNTIL = 889237269  # 80 % of the ratings

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

USERS = TextTable(
    {"user_id": INT, "age": INT, "gender": Column("text", choices=("F", "M")), "occupation": TEXT, "zip_code": TEXT},
    key=("user_id",),
)


def adapter_of(settings: str) -> Adapter:
    """``split=time`` or ``split=warm``, or ``events``: ratings as histories.

    Raises:
        DataError: another setting.
    """
    name = f"movielens-100k:{settings}"
    if settings == "events":
        return replace(ADAPTER, name=name, load=lambda folder: load(folder, histories=True))
    warm = choice(settings, "movielens-100k", "split", ("time", "warm")) == "warm"
    return replace(ADAPTER, name=name, load=lambda folder: replace((load_warm if warm else load)(folder), name=name))


def load_warm(folder: Path) -> DataSet:
    """The same with another split."""
    data = load(folder)
    split = split_within_user(data.interactions["user"].to_numpy(), (0.1, 0.2))
    rule = (
        "at random within each user (70, 10, 20 %): not leak-free, training knows of later times than it is tested on"
    )
    return replace(data, interactions=data.interactions.assign(split=split), split_rule=rule)


def load(folder: Path, *, histories: bool = False) -> DataSet:
    """The stored tables as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    name = f"{ADAPTER.name}:events" if histories else ADAPTER.name
    return movielens.load(
        folder, name, USERS, GENRES, numeric=("age",), categorical=("gender", "occupation"),
        train_until=TRAIN_UNTIL, histories=histories,
        split_rule=f"by time: timestamp <= {TRAIN_UNTIL} trains (80 %), its last tenth validates, the rest tests: "
        "cold start and drift, as most test users are new",
    )  # fmt: skip


def from_grouplens(folder: Path, say: Say) -> None:
    """The archive as published: ``u.user`` and ``u.item`` split by ``|``, ``u.data`` by tabs, latin-1."""
    archive = download.by_url(URL, folder / "archive", say, md5=MD5)
    raw = {f"ml-100k/{name}": name for name in ("u.user", "u.item", "u.data")}
    download.extract(archive, raw, folder)
    users = replace(USERS, separator="|", header=False, quoted=False).read(folder / "u.user", say)
    ratings = replace(RATINGS, separator="\t", header=False).read(folder / "u.data", say)
    text = dict.fromkeys(("title", "date", "video_date", "url"), MAYBE_TEXT)
    layout = {"item_id": INT, **text, **dict.fromkeys(GENRES, FLAG)}
    films = TextTable(layout, separator="|", header=False, encoding="latin-1", quoted=False).read(
        folder / "u.item", say
    )
    items = films[["item_id"]].assign(release_year=movielens.year(films["title"])).join(films[list(GENRES)])
    movielens.store(folder, users, items, ratings, ("archive", *raw.values()))


def from_recbole(folder: Path, say: Say) -> None:
    """The same tables in RecBole's form: tab-separated, headers with types, genres as one list of words."""
    names = {f"recbole/dataset_example/ml-100k/ml-100k.{kind}": f"raw.{kind}" for kind in ("inter", "user", "item")}
    download.from_wheel("recbole==1.2.1", names, folder, say)
    ratings = _typed(RATINGS, "token token float float", folder / "raw.inter", say)
    users = _typed(USERS, "token token token token token", folder / "raw.user", say)
    layout = TextTable({"item_id": INT, "movie_title": TEXT, "release_year": TEXT, "class": TEXT})
    films = _typed(layout, "token token_seq token token_seq", folder / "raw.item", say)
    # One film's year was cut off by what followed it ("(1995) (V)"): it is still in the title.
    year = films["release_year"].where(films["release_year"].str.fullmatch(r"\d{4}")).astype("float64")
    items = films[["item_id"]].assign(
        release_year=year.fillna(movielens.year(films["movie_title"])),
        **movielens.flags(folder / "raw.item", films["class"].str.split(), GENRES),
    )
    movielens.store(folder, users, items, ratings, names.values())


def _typed(table: TextTable, types: str, path: Path, say: Say) -> pd.DataFrame:
    """A table with RecBole's headers, which carry a type after each name."""
    typed = zip(table.columns.items(), types.split(), strict=True)
    columns = {f"{name}:{type_}": column for (name, column), type_ in typed}
    found = TextTable(columns, separator="\t", quoted=False).read(path, say)
    return found.rename(columns=lambda name: name.split(":")[0])


URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MD5 = "0e33842e24a9c977be4e0107933c0723"  # published beside the archive

ADAPTER = Adapter(
    name="movielens-100k",
    about="100,000 film ratings by 943 users, 1,682 films, 1997-1998 (movielens-100k:split=warm: at random in users)",
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
