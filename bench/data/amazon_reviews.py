"""Amazon Reviews 2023 (Hou et al., arXiv 2403.03952): one category, its two jsonl files supplied by the user.

A rating of 4 or 5 is a positive. A reviewer has no attributes: what is known of one is how often and how kindly they
reviewed in training. ``average_rating`` and ``rating_number`` of the published metadata count reviews up to 2023, the
test's among them, and are left out; means over training reviews stand in their place.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data.dataset import TRAIN, Adapter, DataSet, Ints, Table, earliest, interactions, split_by_time
from bench.data.tables import DataError, table_path

FILES = ("reviews.jsonl", "meta.jsonl")
LIKED = 4
REVIEW: dict[str, tuple[type, ...]] = {
    "rating": (int, float), "parent_asin": (str,), "user_id": (str,), "timestamp": (int,),
}  # fmt: skip


def load(folder: Path) -> DataSet:
    """The category as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and field.
    """
    items = _items(table_path(folder, "meta.jsonl"))
    path = table_path(folder, "reviews.jsonl")
    rating, asin, reviewer, stamp, lines = _reviews(path)
    item = pd.Index(items["parent_asin"]).get_indexer(pd.Index(asin)).astype(np.int64)
    if (item < 0).any():
        record = int((item < 0).argmax())
        raise DataError(f"{path} line {lines[record]}: parent_asin {asin[record]} is not in meta.jsonl")
    ids, user = np.unique(np.array(reviewer, dtype=object), return_inverse=True)
    time = np.array(stamp, dtype=np.int64) // 1000
    first = earliest(user.astype(np.int64), item, time)
    user, item, time, score = user[first].astype(np.int64), item[first], time[first], np.array(rating)[first]
    split = split_by_time(time, int(np.quantile(time, 0.8, method="lower")))
    training = split == TRAIN
    users = pd.DataFrame({"user_id": ids})
    return DataSet(
        name=ADAPTER.name,
        users=Table(
            frame=users.assign(**_history(user[training], score[training], len(users))), key="user_id",
            numeric=("log_reviews", "mean_rating"),
        ),
        items=Table(
            frame=items.assign(**_history(item[training], score[training], len(items))), key="parent_asin",
            numeric=("log_price", "log_reviews", "mean_rating"), categorical=("main_category", "store", "category"),
        ),
        interactions=interactions(user, item, time, (score >= LIKED).astype(np.float32), split),
        split_rule="by time: the first 80 % train, their last tenth validates, the rest tests",
    )  # fmt: skip


def _history(rows: Ints, scores: np.ndarray[tuple[int], np.dtype[np.float64]], n: int) -> dict[str, Any]:
    """Log count and mean of the training ratings of each row; the mean is missing where there are none."""
    count = np.bincount(rows, minlength=n)
    total = np.bincount(rows, weights=scores, minlength=n)
    return {
        "log_reviews": np.log1p(count),
        "mean_rating": np.where(count > 0, total / np.maximum(count, 1), np.nan),
    }


def _items(path: Path) -> pd.DataFrame:
    rows = []
    for line, entry in _entries(path):
        key = entry.get("parent_asin")
        if not isinstance(key, str) or not key:
            raise DataError(f"{path} line {line}: parent_asin has {key!r}, expected text")
        price = entry.get("price")
        categories = entry.get("categories") or []
        if not isinstance(categories, list):
            raise DataError(f"{path} line {line}: categories has {str(categories)[:40]!r}, expected a list")
        rows.append(
            {
                "parent_asin": key,
                "main_category": entry.get("main_category"),
                "store": entry.get("store"),
                "category": categories[-1] if categories else None,
                # Prices are numbers, numbers in quotes, "from 9.99", or absent; only numbers say what a row costs.
                "log_price": np.log(float(str(price))) if _is_price(price) else np.nan,
            }
        )
    items = pd.DataFrame(rows, columns=["parent_asin", "main_category", "store", "category", "log_price"])
    repeated = items["parent_asin"].duplicated()
    if repeated.any():
        raise DataError(f"{path}: parent_asin {items['parent_asin'][repeated].iloc[0]} stands there twice")
    return items


def _is_price(value: object) -> bool:
    try:
        return 0 < float(str(value)) < float("inf")
    except ValueError:
        return False


def _reviews(path: Path) -> tuple[list[float], list[str], list[str], list[int], list[int]]:
    rating: list[float] = []
    asin: list[str] = []
    reviewer: list[str] = []
    stamp: list[int] = []
    lines: list[int] = []
    for line, entry in _entries(path):
        for name, kind in REVIEW.items():
            value = entry.get(name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise DataError(f"{path} line {line}: {name} has {str(value)[:40]!r}, expected {_WORDS[name]}")
        if not 1 <= entry["rating"] <= 5:
            raise DataError(f"{path} line {line}: rating has {entry['rating']}, expected 1 to 5")
        rating.append(float(entry["rating"]))
        asin.append(entry["parent_asin"])
        reviewer.append(entry["user_id"])
        stamp.append(entry["timestamp"])
        lines.append(line)
    if not rating:
        raise DataError(f"{path} is empty")
    return rating, asin, reviewer, stamp, lines


_WORDS = {"rating": "a number", "parent_asin": "text", "user_id": "text", "timestamp": "milliseconds"}


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    entry = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path} line {line} is not JSON: {str(error).splitlines()[0]}") from None
                if not isinstance(entry, dict):
                    raise DataError(f"{path} line {line} is not a JSON object")
                yield line, entry
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


ADAPTER = Adapter(
    name="amazon-reviews",
    about="one category of Amazon Reviews 2023 (files supplied by you)",
    licence="see its homepage",
    homepage="https://amazon-reviews-2023.github.io/",
    files=dict.fromkeys(FILES),
    load=load,
    supply="a category's review file as reviews.jsonl and its item metadata as meta.jsonl (or .jsonl.gz)",
)
