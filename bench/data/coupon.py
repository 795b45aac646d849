"""In-vehicle coupon recommendation (UCI 603): would a driver accept this coupon in this situation?

The closest open analogue of message response: acceptance and refusal were both observed. A user is a respondent, an
item an offer (kind of coupon, time until it expires) in its situation. Were the situation on the user's side, the
catalogue's offers would give it away: the survey shows each situation with its own offers, and a model would rank well
by knowing which were shown. For the same reason each respondent's list holds only the offers that they answered.
Respondents have no ids: rows of one stand together and share all their columns. They are split, never their rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.data import download
from bench.data.dataset import Adapter, DataSet, Table, interactions, split_by_group
from bench.data.files import table_path
from bench.data.tables import FLAG, MAYBE_TEXT, TEXT, TextTable

FILE = "in-vehicle-coupon-recommendation.csv"
URL = "https://archive.ics.uci.edu/static/public/603/in+vehicle+coupon+recommendation.zip"

RESPONDENT = (
    "gender", "age", "maritalStatus", "has_children", "education", "occupation", "income", "Bar", "CoffeeHouse",
    "CarryAway", "RestaurantLessThan20", "Restaurant20To50",
)  # fmt: skip
SITUATION = (
    "destination", "passanger", "weather", "temperature", "time", "toCoupon_GEQ15min", "toCoupon_GEQ25min",
    "direction_same", "direction_opp",
)  # fmt: skip
OFFER = ("coupon", "expiration")
GAPS = ("Bar", "CoffeeHouse", "CarryAway", "RestaurantLessThan20", "Restaurant20To50")

LAYOUT = TextTable(
    {**dict.fromkeys((*RESPONDENT, *SITUATION, *OFFER), TEXT), **dict.fromkeys(GAPS, MAYBE_TEXT), "Y": FLAG}
)


def load(folder: Path) -> DataSet:
    """The survey as a data set.

    Raises:
        DataError: the file is missing or not as its format says; names line and column.
    """
    notes: list[str] = []
    rows = LAYOUT.read(table_path(folder, FILE), notes.append)
    marked = rows[list(RESPONDENT)].fillna("")
    respondent = (marked != marked.shift()).any(axis=1).cumsum().to_numpy(np.int64) - 1
    users = rows[list(RESPONDENT)][~pd.Series(respondent).duplicated()].reset_index(drop=True)
    users.insert(0, "respondent", np.arange(len(users)))
    columns = [*OFFER, *SITUATION]
    items = rows[columns].drop_duplicates().sort_values(columns, ignore_index=True)
    items.insert(0, "offer", items[columns].agg(", ".join, axis=1))
    item = rows[columns].merge(items[columns].assign(row=np.arange(len(items))), on=columns, how="left")["row"]
    pairs = pd.DataFrame({"user": respondent, "item": item.to_numpy(np.int64)})
    first = np.flatnonzero(~pairs.duplicated())  # the same question may have been asked twice
    user = respondent[first]
    return DataSet(
        name=ADAPTER.name,
        users=Table(frame=users, key="respondent", categorical=RESPONDENT, lasting=False),
        items=Table(frame=items, key="offer", categorical=(*OFFER, *SITUATION)),
        interactions=interactions(
            user, pairs["item"].to_numpy()[first], 0, rows["Y"].to_numpy()[first], split_by_group(user, (0.1, 0.2))
        ),
        negatives="observed",
        candidates="observed",
        split_rule="by respondent: 70 % train, 10 % validate, 20 % test",
        notes=tuple(notes),
    )


ADAPTER = Adapter(
    name="coupon",
    about="12,684 answers of drivers to 10 coupon offers, accepted or refused",
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/603/in+vehicle+coupon+recommendation",
    files={FILE: None},
    load=load,
    sources=(download.from_archive("the UCI repository", URL, (FILE,)),),
)
