"""H&M personalised fashion recommendations: 31.8 million purchases, supplied by the user (Kaggle's terms).

A purchase is a positive, the first one of each pair; negatives are sampled. The last seven days are the test, the
seven before them validation. A customer's postal code, one of 352,899, is hashed where the lookup table would not hold
it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    Adapter,
    DataSet,
    Table,
    earliest,
    interactions,
    seconds,
)
from bench.data.files import table_path
from bench.data.tables import Column, TextTable

FILES = ("articles.csv", "customers.csv", "transactions_train.csv")
WEEK_S = 7 * 86_400

ARTICLE_GROUPS = (
    "product_type_name", "product_group_name", "graphical_appearance_name", "colour_group_name",
    "perceived_colour_value_name", "perceived_colour_master_name", "department_name", "index_name",
    "index_group_name", "section_name", "garment_group_name",
)  # fmt: skip
CUSTOMER_GROUPS = ("FN", "Active", "club_member_status", "fashion_news_frequency", "postal_code")

ARTICLES = TextTable(
    key=("article_id",),
    columns=(
        Column(name="article_id", kind="text"),  # ten digits, the first of them 0
        *(Column(name=name, kind="text") for name in ARTICLE_GROUPS),
    ),
)
CUSTOMERS = TextTable(
    key=("customer_id",),
    columns=(
        Column(name="customer_id", kind="text"),
        Column(name="age", kind="float", optional=True),
        *(Column(name=name, kind="text", optional=True) for name in CUSTOMER_GROUPS),
    ),
)
PURCHASES = TextTable(
    columns=(
        Column(name="t_dat", kind="date"),
        Column(name="customer_id", kind="text"),
        Column(name="article_id", kind="text"),
        Column(name="price", kind="float"),
    )
)


def load(folder: Path) -> DataSet:
    """The tables as a data set.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    notes: list[str] = []
    article_path, customer_path, path = (table_path(folder, name) for name in FILES)
    articles = ARTICLES.read(article_path, notes.append)
    customers = CUSTOMERS.read(customer_path, notes.append)
    known = {"customer_id": customers["customer_id"], "article_id": articles["article_id"]}
    bought = PURCHASES.read(path, notes.append, known)
    user, item = bought["customer_id"].to_numpy(np.int64), bought["article_id"].to_numpy(np.int64)
    time = seconds(bought["t_dat"])
    first = earliest(user, item, time)
    split = np.full(len(first), TRAIN, np.int8)
    age = time.max() - time[first]
    split[age < 2 * WEEK_S] = VALIDATION
    split[age < WEEK_S] = TEST
    return DataSet(
        name=ADAPTER.name,
        users=Table(frame=customers, key="customer_id", numeric=("age",), categorical=CUSTOMER_GROUPS),
        items=Table(
            frame=articles.assign(log_price=_prices(bought["price"], item, time, len(articles))),
            key="article_id",
            numeric=("log_price",),
            categorical=ARTICLE_GROUPS,
        ),
        interactions=interactions(user[first], item[first], time[first], np.ones(len(first), np.float32), split),
        split_rule="by time: the last 7 days test, the 7 before validate, the rest trains",
        notes=tuple(notes),
    )


def _prices(
    price: pd.Series[float],
    item: np.ndarray[tuple[int], np.dtype[np.int64]],
    time: np.ndarray[tuple[int], np.dtype[np.int64]],
    n: int,
) -> pd.Series[float]:
    """Log of an article's mean price while training lasted; missing where it was not sold yet."""
    rows = time.max() - time >= 2 * WEEK_S
    count = np.bincount(item[rows], minlength=n)
    total = np.bincount(item[rows], weights=price.to_numpy(np.float64)[rows], minlength=n)
    return pd.Series(np.log(np.maximum(total, 1e-9) / np.maximum(count, 1))).where(count > 0)


ADAPTER = Adapter(
    name="hm",
    about="31,788,324 fashion purchases by 1,371,980 customers, 105,542 articles (files supplied by you)",
    licence="Kaggle competition rules: not redistributable",
    homepage="https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations/data",
    files=dict.fromkeys(FILES),
    load=load,
    supply="articles.csv, customers.csv and transactions_train.csv of the Kaggle competition",
)
