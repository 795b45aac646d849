"""Restaurant and consumer data (UCI 232): 1,161 ratings of 130 restaurants by 138 consumers. Tiny: for tests.

A rating of 2, the best, is a positive. There are no times: each consumer's ratings are shared out at random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data import download
from bench.data.dataset import Adapter, DataSet, Source, Table, interactions, split_within_user
from bench.data.files import Say, table_path
from bench.data.tables import Column, TextTable

URL = "https://archive.ics.uci.edu/static/public/232/restaurant+consumer+data.zip"
FILES = ("rating_final.csv", "userprofile.csv", "geoplaces2.csv", "chefmozcuisine.csv")
BEST = 2

USER_NUMBERS = ("latitude", "longitude", "birth_year", "weight", "height")
USER_GROUPS = (
    "smoker", "drink_level", "dress_preference", "ambience", "transport", "marital_status", "hijos", "interest",
    "personality", "religion", "activity", "color", "budget",
)  # fmt: skip
PLACE_NUMBERS = ("latitude", "longitude")
PLACE_GROUPS = (
    "alcohol", "smoking_area", "dress_code", "accessibility", "price", "Rambience", "franchise", "area",
    "other_services",
)  # fmt: skip


def _table(*columns: Column, key: tuple[str, ...] = ()) -> TextTable:
    return TextTable(columns=columns, key=key, missing=("?",))


def _columns(kind: str, names: tuple[str, ...]) -> tuple[Column, ...]:
    return tuple(Column(name=name, kind=kind, optional=True) for name in names)  # type: ignore[arg-type]


USERS = _table(
    Column(name="userID", kind="text"),
    *_columns("float", USER_NUMBERS),
    *_columns("text", USER_GROUPS),
    key=("userID",),
)
PLACES = _table(
    Column(name="placeID", kind="int"),
    *_columns("float", PLACE_NUMBERS),
    *_columns("text", PLACE_GROUPS),
    key=("placeID",),
)
CUISINES = _table(Column(name="placeID", kind="int"), Column(name="Rcuisine", kind="text"))
RATINGS = _table(
    Column(name="userID", kind="text"),
    Column(name="placeID", kind="int"),
    Column(name="rating", kind="int", choices=("0", "1", "2")),
    key=("userID", "placeID"),
)


def load(folder: Path) -> DataSet:
    """The tables as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    paths = {name: table_path(folder, name) for name in FILES}
    notes: list[str] = []
    users = USERS.read(paths["userprofile.csv"], notes.append)
    places = PLACES.read(paths["geoplaces2.csv"], notes.append)
    cuisines = CUISINES.read(paths["chefmozcuisine.csv"], notes.append).groupby("placeID")["Rcuisine"]
    places["cuisine"] = places["placeID"].map(cuisines.first())
    places["n_cuisines"] = places["placeID"].map(cuisines.size()).astype("float64")
    known = {"userID": users["userID"], "placeID": places["placeID"]}
    ratings = RATINGS.read(paths["rating_final.csv"], notes.append, known)
    user, item = ratings["userID"].to_numpy(np.int64), ratings["placeID"].to_numpy(np.int64)
    return DataSet(
        name=ADAPTER.name,
        users=Table(frame=users, key="userID", numeric=USER_NUMBERS, categorical=USER_GROUPS),
        items=Table(
            frame=places, key="placeID", numeric=(*PLACE_NUMBERS, "n_cuisines"), categorical=(*PLACE_GROUPS, "cuisine")
        ),
        interactions=interactions(
            user, item, np.zeros(len(user), np.int64), (ratings["rating"] == BEST).to_numpy().astype(np.float32),
            split_within_user(user, (0.1, 0.2)),
        ),
        split_rule="at random within each consumer: 10 % validate, 20 % test, rounded down",
        notes=tuple(notes),
    )  # fmt: skip


def from_uci(folder: Path, say: Say) -> None:
    archive = download.by_url(URL, folder / "archive", say)
    download.extract_by_name(archive, FILES, folder)
    archive.unlink()
    load(folder)


ADAPTER = Adapter(
    name="restaurant",
    about="1,161 ratings of 130 restaurants by 138 consumers; tiny, for tests",
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/232/restaurant+consumer+data",
    files=dict.fromkeys(FILES),
    load=load,
    sources=(Source(about="the UCI repository", fetch=from_uci),),
)
