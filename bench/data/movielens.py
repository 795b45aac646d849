"""What MovieLens' data sets share: their stored tables, how these are read, and how raw ones become them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from bench.data.dataset import FIRST_80, DataSet, Table, interactions, split_by_time
from bench.data.events import Events
from bench.data.files import DataError
from bench.data.tables import FLAG, INT, MAYBE_INT, Column, TextTable

LIKED = 4  # ratings from here on are positive

RATINGS = TextTable(
    {"user_id": INT, "item_id": INT, "rating": Column("int", choices=("1", "2", "3", "4", "5")), "timestamp": INT},
    key=("user_id", "item_id"),
)


def item_table(genres: Sequence[str]) -> TextTable:
    return TextTable({"item_id": INT, "release_year": MAYBE_INT, **dict.fromkeys(genres, FLAG)}, key=("item_id",))


def load(
    folder: Path, name: str, users: TextTable, genres: tuple[str, ...], *, numeric: tuple[str, ...] = (),
    categorical: tuple[str, ...], train_until: int | None = None, split_rule: str = FIRST_80, histories: bool = False,
) -> DataSet:  # fmt: skip
    """The stored tables as a data set; the region of the zip code is one more column of the users.

    With ``histories`` every rating is an event, and likes are to be predicted.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    notes: list[str] = []
    people = users.read(folder / "users.csv", notes.append)
    items = item_table(genres).read(folder / "items.csv", notes.append)
    known = {"user_id": people["user_id"], "item_id": items["item_id"]}
    ratings = RATINGS.read(folder / "ratings.csv", notes.append, known)
    user, item, rating, time = (ratings[column].to_numpy() for column in RATINGS.columns)
    events = None
    if histories:
        frame = pd.DataFrame({"user": user, "item": item, "time": time, "rating": rating.astype(str)})
        events = Events.of(
            frame, len(people), len(items), notes.append, categorical=("rating",), target=rating >= LIKED
        )
    people = people.assign(zip_region=people["zip_code"].str[0])
    return DataSet(
        name=name,
        users=Table(frame=people, key="user_id", numeric=numeric, categorical=(*categorical, "zip_region")),
        items=Table(frame=items, key="item_id", numeric=("release_year",), categorical=genres),
        interactions=interactions(user, item, time, rating >= LIKED, split_by_time(time, train_until)),
        events=events,
        notes=tuple(notes),
        split_rule=split_rule,
    )


def year(titles: pd.Series[str]) -> pd.Series[float]:
    """The last four digits in parentheses: where MovieLens writes the year of release."""
    return titles.str.extract(r".*\((\d{4})\)", expand=False).astype("float64")


def flags(path: Path, words_of: pd.Series[list[str]], genres: Sequence[str]) -> dict[str, list[int]]:
    """A column a genre, of films whose genres are lists of words.

    Raises:
        DataError: a genre that is none of ``genres``.
    """
    unknown = set().union(*words_of) - set(genres)
    if unknown:
        raise DataError(f"{path} has genres that MovieLens does not know: {', '.join(sorted(unknown))}")
    return {genre: [int(genre in words) for words in words_of] for genre in genres}


def store(
    folder: Path, users: pd.DataFrame, items: pd.DataFrame, ratings: pd.DataFrame, raw: Iterable[str]
) -> None:  # fmt: skip
    """Write the tables in one order of rows, whatever the source's, and remove the ``raw`` files."""
    for name, frame, order in (
        ("users", users, ["user_id"]),
        ("items", items.astype({"release_year": "Int64"}), ["item_id"]),
        ("ratings", ratings, ["timestamp", "user_id", "item_id"]),
    ):
        frame.sort_values(order).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    for name in raw:
        (folder / name).unlink()
