"""What every data set is, once read: two tables, the interactions between them, and which of these train.

A data set's file turns raw files into one of these; nothing after it knows where the data came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.events import Events
from bench.data.files import DataError, Say

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")

FIRST_80 = "by time: the first 80 % train, their last tenth validates, the rest tests"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One side: a row a user, or a row an item; the row number is its identity from here on.

    Attributes:
        frame: all columns, index 0..n-1. Missing values are NaN or None.
        key: the column of ids; unique. It becomes a token only when the caller asks for ids.
        numeric: columns that become one numeric token each.
        categorical: columns that become one categorical token each.
        lasting: whether an id is met again after training; that of a single situation is not, and never is a token.
    """

    frame: pd.DataFrame
    key: str
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    lasting: bool = True

    @property
    def n_rows(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Users, items, who met what and when.

    Attributes:
        name: as on the command line.
        users: the user table.
        items: the item (content) table: the catalogue that is ranked.
        interactions: ``user`` and ``item`` (row numbers), ``time`` (seconds; 0 where there is none), ``label``
            (1 liked, 0 not), ``split`` (0 train, 1 validation, 2 test); at most one row a pair.
        negatives: ``sampled`` where a pair without a row counts as not liked; ``observed`` where only rows with label
            0 do.
        candidates: what is ranked for a user: the whole ``catalogue``, or only the items with an ``observed`` answer,
            where who was asked what depends on more than chance.
        split_rule: how the splits were made, for people.
        notes: what was odd in the files, and what became of it, for people.
        truth: where the data are simulated, the probability that some users (row numbers) like a range of items, as
            (n_users, n_items); no ranking does better on average than by it. Of histories: at their last cut.
        events: every user's history, repeats kept, where the data set has times and is asked for with them.
    """

    name: str
    users: Table
    items: Table
    interactions: pd.DataFrame
    negatives: Literal["sampled", "observed"] = "sampled"
    candidates: Literal["catalogue", "observed"] = "catalogue"
    split_rule: str = ""
    notes: tuple[str, ...] = ()
    truth: Callable[[Ints, slice], npt.NDArray[np.float64]] | None = None
    events: Events | None = None

    def __post_init__(self) -> None:
        for side, table in (("user", self.users), ("item", self.items)):
            if table.n_rows == 0:
                raise DataError(f"{self.name}: the {side} table is empty")
            if table.frame[table.key].duplicated().any():
                raise DataError(f"{self.name}: the {side} table repeats a {table.key}")
            rows = self.interactions[side]
            if len(rows) and (rows.min() < 0 or rows.max() >= table.n_rows):
                raise DataError(f"{self.name}: an interaction points outside of the {side} table")
        if self.interactions.duplicated(["user", "item"]).any():
            raise DataError(f"{self.name}: a pair of user and item has two interactions")
        if self.events is not None and self.events.n_users != self.users.n_rows:
            raise DataError(f"{self.name}: events of {self.events.n_users} users, a table of {self.users.n_rows}")
        if not len(self.positives(TRAIN)[0]):
            raise DataError(f"{self.name}: no positive interaction in the training split")

    def positives(self, *splits: int) -> tuple[Ints, Ints]:
        """Users and items of the liked pairs in these splits, in the order of time."""
        rows = self.interactions[(self.interactions["label"] > 0) & self.interactions["split"].isin(splits)]
        return rows["user"].to_numpy(np.int64), rows["item"].to_numpy(np.int64)

    def pairs(self, *splits: int) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
        """Users, items and labels of all rows in these splits, in the order of time."""
        rows = self.interactions[self.interactions["split"].isin(splits)]
        users, items = rows["user"].to_numpy(np.int64), rows["item"].to_numpy(np.int64)
        return users, items, rows["label"].to_numpy(np.float32)

    def training_rows(self) -> tuple[Ints, Ints]:
        """Row numbers of the users and of the items that have at least one training interaction, liked or not."""
        rows = self.interactions[self.interactions["split"] == TRAIN]
        return np.unique(rows["user"].to_numpy(np.int64)), np.unique(rows["item"].to_numpy(np.int64))

    def refitted(self) -> DataSet:
        """The same with validation as training: for the last fit, when all has been chosen."""
        split = self.interactions["split"].replace(VALIDATION, TRAIN)
        return replace(self, interactions=self.interactions.assign(split=split))


def interactions(user: Ints, item: Ints, time: Any, label: Any, split: npt.NDArray[np.int8]) -> pd.DataFrame:
    """The interactions table, in the order of time; ties keep the order of user and item, so that it is one order.

    Args:
        user: row numbers.
        item: row numbers.
        time: seconds, or 0 where there are no times.
        label: whether liked, or True where all are.
        split: of each row.
    """
    frame = pd.DataFrame({"user": user, "item": item, "time": time, "label": label, "split": split})
    frame = frame.astype({"time": np.int64, "label": np.float32})
    return frame.sort_values(["time", "user", "item"], kind="stable", ignore_index=True)


def split_by_time(time: Ints, train_until: int | None = None, validation_share: float = 0.1) -> npt.NDArray[np.int8]:
    """Training up to and including ``train_until``, test after it, validation the last share of the training rows.

    Without ``train_until`` the first 80 % train, as ``FIRST_80`` tells.

    Rows that share the moment at which validation begins all belong to it, so that no split knows the other's time.
    """
    if train_until is None:
        train_until = int(np.quantile(time, 0.8, method="lower"))
    split = np.where(time <= train_until, TRAIN, TEST).astype(np.int8)
    earlier = np.sort(time[split == TRAIN])
    if len(earlier):
        begin = earlier[min(len(earlier) - 1, round(len(earlier) * (1 - validation_share)))]
        split[(split == TRAIN) & (time >= begin)] = VALIDATION
    return split


def split_by_group(group: Ints, shares: tuple[float, float], seed: int = 0) -> npt.NDArray[np.int8]:
    """Whole groups (users) go to one split; ``shares`` are those of validation and test. For data without time."""
    names = np.unique(group)
    order = np.random.default_rng(seed).permutation(len(names))
    cuts = np.cumsum([round(share * len(names)) for share in shares])
    side = np.full(len(names), TRAIN, dtype=np.int8)
    side[order[: cuts[0]]] = VALIDATION
    side[order[cuts[0] : cuts[1]]] = TEST
    return side[np.searchsorted(names, group)]


def split_within_user(user: Ints, shares: tuple[float, float], seed: int = 0) -> npt.NDArray[np.int8]:
    """Each user's rows are shared out at random; a user with few rows keeps them for training first."""
    random = np.random.default_rng(seed).random(len(user))
    order = np.lexsort((random, user))
    ordered = user[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(user) else np.empty(0, np.int64)
    counts = np.diff(np.r_[starts, len(user)])
    place = np.arange(len(user)) - np.repeat(starts, counts)
    n_validation, n_test = (np.repeat(np.floor(counts * share), counts) for share in shares)
    split = np.full(len(user), TRAIN, dtype=np.int8)
    split[order[place < n_test + n_validation]] = VALIDATION
    split[order[place < n_test]] = TEST
    return split


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place a data set can be had from.

    Attributes:
        about: for people.
        fetch: puts the stored tables into an empty folder; tells of its progress by calling the second argument.
    """

    about: str
    fetch: Callable[[Path, Say], None]


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """How one data set is got and read. Each module in this folder that is a data set holds one, named ``ADAPTER``.

    Attributes:
        name: on the command line; also the folder's name in the cache.
        about: one line for people.
        licence: as read at the source.
        homepage: where it is described.
        files: files the folder must hold, each with its sha256, or None where the content is the user's own.
        load: reads the folder.
        sources: tried in this order by ``fetch``; empty when nothing can be fetched.
        supply: where nothing can be fetched, which files the user must put where.
        simulated: whether the probabilities behind the labels are known.
    """

    name: str
    about: str
    licence: str
    homepage: str
    files: dict[str, str | None] = field(default_factory=dict)
    load: Callable[[Path], DataSet]
    sources: tuple[Source, ...] = ()
    supply: str = ""
    simulated: bool = False


def choice(settings: str, name: str, key: str, choices: Sequence[str]) -> str:
    """The value in the settings ``key=value`` of a data set; without settings the first of the choices.

    Raises:
        DataError: another setting.
    """
    found, _, value = settings.partition("=")
    if settings and (found != key or value not in choices):
        takes = " or ".join(f"{key}={each}" for each in choices)
        raise DataError(f"{name} takes {takes}, got {ascii(settings)[:80]}")
    return value or choices[0]


def sizes(settings: str, name: str, usual: dict[str, int], limits: dict[str, tuple[int, int]]) -> dict[str, int]:
    """The whole numbers in the settings ``key=value:key=value`` of a data set, the usual ones where they say nothing.

    Raises:
        DataError: unknown key, or a value that is no number within its limits.
    """
    chosen = dict(usual)
    for part in settings.split(":") if settings else ():
        key, _, value = part.partition("=")
        if key not in chosen:
            raise DataError(f"unknown setting {key!r} of {name}; choose from {', '.join(chosen)}")
        low, high = limits[key]
        if not value.isdecimal() or not low <= int(value) <= high:
            raise DataError(f"{key} of {name} must be a whole number from {low} to {high}, got {value!r}")
        chosen[key] = int(value)
    return chosen
