"""Amazon Reviews 2023 (Hou et al., arXiv 2403.03952): one category, its two jsonl files supplied by the user.

A rating of 4 or 5 is a positive. A reviewer has no attributes: what is known of one is how often and how kindly they
reviewed in training. ``average_rating`` and ``rating_number`` of the published metadata count reviews up to 2023, the
test's among them, and are left out; means over training reviews stand in their place. An item without metadata stays,
its columns missing: so are a quarter of all.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.dataset import FIRST_80, TRAIN, Adapter, DataSet, Ints, Table, interactions, split_by_time
from bench.data.files import DataError, Odd, Say, json_lines, table_path
from bench.data.rows import earliest, mean_by_row

Floats = npt.NDArray[np.float64]

FILES = ("reviews.jsonl", "meta.jsonl")
LIKED = 4
SPELLED = "have a text with half a character, which is spelled out"
YEAR_2100_MS = 4_102_444_800_000
# What a review must have: of which type, within which range, and how that is told.
REVIEW: dict[str, tuple[type, float, float, str]] = {
    "rating": (float, 1, 5, "1 to 5"),
    "parent_asin": (str, 0, 0, "text"),
    "user_id": (str, 0, 0, "text"),
    "timestamp": (float, 0, YEAR_2100_MS, "milliseconds since 1970"),
}


def load(folder: Path) -> DataSet:
    """The category as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and field.
    """
    notes: list[str] = []
    rows, items = _items(table_path(folder, "meta.jsonl"), notes.append)
    path, n_described = table_path(folder, "reviews.jsonl"), len(rows)
    users, user, item, time, score = _reviews(path, rows, notes.append)
    if item.min() >= n_described:
        raise DataError(f"{path}: none of its items is in meta.jsonl; are both files of one category?")
    if len(rows) > n_described:
        notes.append(f"{len(rows) - n_described} of {len(rows)} items have no metadata; their columns are missing")
    items = items.reindex(range(len(rows))).assign(parent_asin=list(rows))
    first = earliest(user, item, time)
    if len(first) < len(user):
        notes.append(f"{len(user) - len(first)} of {len(user)} reviews left out: not the first of their user and item")
    user, item, time, score = user[first], item[first], time[first], score[first]
    split = split_by_time(time)
    training = split == TRAIN
    return DataSet(
        name=ADAPTER.name,
        users=Table(
            frame=pd.DataFrame({"user_id": users, **_history(user[training], score[training], len(users))}),
            key="user_id", numeric=("log_reviews", "mean_rating"),
        ),
        items=Table(
            frame=items.assign(**_history(item[training], score[training], len(items))), key="parent_asin",
            numeric=("log_price", "log_reviews", "mean_rating"), categorical=("main_category", "store", "category"),
        ),
        interactions=interactions(user, item, time, score >= LIKED, split),
        split_rule=FIRST_80,
        notes=tuple(notes),
    )  # fmt: skip


def _history(rows: Ints, scores: Floats, n: int) -> dict[str, Any]:
    """Log count and mean of the training ratings of each row; the mean is missing where there are none."""
    mean = mean_by_row(rows, scores, n)
    return {"log_reviews": np.log1p(np.bincount(rows, minlength=n)), "mean_rating": mean}


def _items(path: Path, say: Say) -> tuple[dict[str, int], pd.DataFrame]:
    """Row number by ``parent_asin``, and the metadata in this order."""
    rows: dict[str, int] = {}
    columns: dict[str, list[str | None]] = {"main_category": [], "store": [], "category": []}
    price, repeats, spelled = array("d"), Odd(path), Odd(path, SPELLED)
    for line, entry in _entries(path, ("parent_asin",), say):
        key = _text(entry["parent_asin"], line, spelled)
        if rows.setdefault(key, len(rows)) < len(price):
            repeats.add(f"line {line}", f"parent_asin {key} stands there twice")
            continue
        categories = entry.get("categories")
        entry["category"] = categories[-1] if isinstance(categories, list) and categories else None
        for name, values in columns.items():
            value = entry.get(name)
            values.append(sys.intern(_text(value, line, spelled)) if isinstance(value, str) else None)
        # Prices are numbers, numbers in quotes, "from 9.99", or absent; only numbers say what a row costs.
        price.append(np.log(float(str(entry["price"]))) if _is_price(entry.get("price")) else np.nan)
    for odd in (repeats, spelled):
        odd.tell(len(price) + repeats.count, say)
    return rows, pd.DataFrame({**columns, "log_price": np.asarray(price)})


def _is_price(value: object) -> bool:
    try:
        return 0 < float(str(value)) < float("inf")
    except ValueError:
        return False


def _reviews(path: Path, items: dict[str, int], say: Say) -> tuple[list[str], Ints, Ints, Ints, Floats]:
    """User ids; of each review user, item, seconds and rating. An item that is not in ``items`` is added to it.

    A review is four numbers, so that categories of tens of millions fit.
    """
    users: dict[str, int] = {}
    user, item, time, rating, spelled = array("q"), array("q"), array("q"), array("d"), Odd(path, SPELLED)
    for line, entry in _entries(path, tuple(REVIEW), say):
        user.append(users.setdefault(_text(entry["user_id"], line, spelled), len(users)))
        item.append(items.setdefault(_text(entry["parent_asin"], line, spelled), len(items)))
        time.append(int(entry["timestamp"]) // 1000)
        rating.append(entry["rating"])
    spelled.tell(len(user), say)
    return list(users), np.asarray(user), np.asarray(item), np.asarray(time), np.asarray(rating)


def _entries(path: Path, names: Sequence[str], say: Say) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line whose fields ``names`` are as ``REVIEW`` says."""
    n_lines, odd = 0, Odd(path)
    for line, entry in json_lines(path):
        n_lines += 1
        why = entry if isinstance(entry, str) else _problem(entry, names)
        if why:
            odd.add(f"line {line}", why)
        elif isinstance(entry, dict):
            yield line, entry
    if not n_lines:
        raise DataError(f"{path} is empty")
    odd.tell(n_lines, say)


def _problem(entry: dict[str, Any], names: Sequence[str]) -> str:
    """What is wrong with the first of the fields that is not as ``REVIEW`` says, or nothing."""
    for name in names:
        kind, low, high, words = REVIEW[name]
        value = entry.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not (number if kind is float else isinstance(value, str) and value):
            return f"{name} has {str(value)[:40]!r}, expected {words}"
    return ""


def _text(value: str, line: int, spelled: Odd) -> str:
    """Half of a surrogate pair is no character: it is spelled out, so that ids stay apart."""
    text = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if text != value:
        spelled.add(f"line {line}", repr(text[:40]))
    return text


ADAPTER = Adapter(
    name="amazon-reviews",
    about="one category of Amazon Reviews 2023 (files supplied by you)",
    licence="see its homepage",
    homepage="https://amazon-reviews-2023.github.io/",
    files=dict.fromkeys(FILES),
    load=load,
    supply="a category's review file as reviews.jsonl and its item metadata as meta.jsonl (or .jsonl.gz)",
)
