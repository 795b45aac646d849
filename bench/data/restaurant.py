"""Restaurant and consumer data (UCI 232): 1,161 ratings of 130 restaurants by 138 consumers. Tiny: for tests.

A rating of 2, the best, is a positive. There are no times: each consumer's ratings are shared out at random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data import download
from bench.data.dataset import Adapter, DataSet, Table, interactions, split_within_user
from bench.data.files import table_path
from bench.data.tables import INT, MAYBE_FLOAT, MAYBE_TEXT, TEXT, Column, TextTable

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


USERS = TextTable(
    {"userID": TEXT, **dict.fromkeys(USER_NUMBERS, MAYBE_FLOAT), **dict.fromkeys(USER_GROUPS, MAYBE_TEXT)},
    key=("userID",), missing=("?",),
)  # fmt: skip
PLACES = TextTable(
    {"placeID": INT, **dict.fromkeys(PLACE_NUMBERS, MAYBE_FLOAT), **dict.fromkeys(PLACE_GROUPS, MAYBE_TEXT)},
    key=("placeID",), missing=("?",),
)  # fmt: skip
CUISINES = TextTable({"placeID": INT, "Rcuisine": TEXT}, missing=("?",))
RATINGS = TextTable(
    {"userID": TEXT, "placeID": INT, "rating": Column("int", choices=("0", "1", "2"))},
    key=("userID", "placeID"), missing=("?",),
)  # fmt: skip


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
            user, item, 0, (ratings["rating"] == BEST).to_numpy(), split_within_user(user, (0.1, 0.2))
        ),
        split_rule="at random within each consumer: 10 % validate, 20 % test, rounded down",
        notes=tuple(notes),
    )  # fmt: skip


ADAPTER = Adapter(
    name="restaurant",
    about="1,161 ratings of 130 restaurants by 138 consumers; tiny, for tests",
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/232/restaurant+consumer+data",
    files=dict.fromkeys(FILES),
    load=load,
    sources=(download.from_archive("the UCI repository", URL, FILES),),
)
