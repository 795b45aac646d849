"""Logs of events as data sets of histories: whoever and whatever stands in them is the user and the item table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.dataset import FIRST_80, DataSet, Table, interactions, split_by_time
from bench.data.events import Events, Flags
from bench.data.rows import earliest


def data_set(
    name: str, log: pd.DataFrame, notes: list[str], *, numeric: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (), target: Flags | None = None,
) -> DataSet:  # fmt: skip
    """A data set of the rows of a log.

    Args:
        name: of the data set.
        log: ``user_id``, ``item_id``, ``time`` in seconds, and the named columns.
        notes: what was odd so far; more may come to it.
        numeric: columns of an event that are numbers.
        categorical: columns of an event that are categories.
        target: whether each row is what is to be predicted; all where not given.

    Raises:
        DataError: many rows cannot be used.
    """
    user, users = pd.factorize(log["user_id"], sort=True)
    item, items = pd.factorize(log["item_id"], sort=True)
    rows = log[["time", *numeric, *categorical]].assign(user=user, item=item)
    events = Events.of(
        rows, len(users), len(items), notes.append, numeric=numeric, categorical=categorical, target=target
    )
    return DataSet(
        name=name, users=Table(frame=pd.DataFrame({"user_id": users}), key="user_id"),
        items=Table(frame=pd.DataFrame({"item_id": items}), key="item_id"),
        interactions=first_pairs(events), split_rule=FIRST_80, events=events, notes=tuple(notes),
    )  # fmt: skip


def first_pairs(events: Events) -> pd.DataFrame:
    """The interactions table of events: the first of each pair, split by time."""
    user, item, time = (events.column(name) for name in ("user", "item", "time"))
    first = earliest(user, item, time)
    return interactions(user[first], item[first], time[first], events.target[first], split_by_time(time[first]))


def log_seconds(milliseconds: pd.Series[int]) -> npt.NDArray[np.float64]:
    return np.log1p(milliseconds.to_numpy().clip(min=0) / 1000)
