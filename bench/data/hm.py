"""H&M personalised fashion recommendations: 31.8 million purchases, supplied by the user (Kaggle's terms).

A purchase is a positive, the first one of each pair; negatives are sampled. The last seven days are the test, the
seven before them validation. A customer's postal code, one of 352,899, is hashed where the lookup table would not hold
it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.dataset import TEST, TRAIN, VALIDATION, Adapter, DataSet, Table, interactions
from bench.data.files import table_path
from bench.data.rows import earliest, mean_by_row, seconds
from bench.data.tables import DATE, FLOAT, MAYBE_FLOAT, MAYBE_TEXT, TEXT, TextTable

FILES = ("articles.csv", "customers.csv", "transactions_train.csv")
WEEK_S = 7 * 86_400

ARTICLE_GROUPS = (
    "product_type_name", "product_group_name", "graphical_appearance_name", "colour_group_name",
    "perceived_colour_value_name", "perceived_colour_master_name", "department_name", "index_name",
    "index_group_name", "section_name", "garment_group_name",
)  # fmt: skip
CUSTOMER_GROUPS = ("FN", "Active", "club_member_status", "fashion_news_frequency", "postal_code")

# Article ids are ten digits, the first of them 0.
ARTICLES = TextTable(dict.fromkeys(("article_id", *ARTICLE_GROUPS), TEXT), key=("article_id",))
CUSTOMERS = TextTable(
    {"customer_id": TEXT, "age": MAYBE_FLOAT, **dict.fromkeys(CUSTOMER_GROUPS, MAYBE_TEXT)}, key=("customer_id",)
)
PURCHASES = TextTable({"t_dat": DATE, "customer_id": TEXT, "article_id": TEXT, "price": FLOAT})


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
    user, item = bought["customer_id"].to_numpy(), bought["article_id"].to_numpy()
    time = seconds(bought["t_dat"])
    first = earliest(user, item, time)
    age = time.max() - time
    split = np.select([age < WEEK_S, age < 2 * WEEK_S], [TEST, VALIDATION], TRAIN).astype(np.int8)
    sold = split == TRAIN
    price = mean_by_row(item[sold], bought["price"].to_numpy()[sold], len(articles))
    return DataSet(
        name=ADAPTER.name,
        users=Table(frame=customers, key="customer_id", numeric=("age",), categorical=CUSTOMER_GROUPS),
        items=Table(
            frame=articles.assign(log_price=np.log(np.maximum(price, 1e-9))),  # missing where none was sold yet
            key="article_id", numeric=("log_price",), categorical=ARTICLE_GROUPS,
        ),
        interactions=interactions(user[first], item[first], time[first], True, split[first]),
        split_rule="by time: the last 7 days test, the 7 before validate, the rest trains",
        notes=tuple(notes),
    )  # fmt: skip


ADAPTER = Adapter(
    name="hm",
    about="31,788,324 fashion purchases by 1,371,980 customers, 105,542 articles (files supplied by you)",
    licence="Kaggle competition rules: not redistributable",
    homepage="https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations/data",
    files=dict.fromkeys(FILES),
    load=load,
    supply="articles.csv, customers.csv and transactions_train.csv of the Kaggle competition",
)
