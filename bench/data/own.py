"""Tables of your own, without code: ``csv:FOLDER``, ``parquet:FOLDER``, ``recbole:FOLDER``.

The folder holds ``interactions`` (or ``events``, ``ratings``) and, if there are any, ``users`` and ``items``; RecBole's
atomic files are ``NAME.inter``, ``NAME.user``, ``NAME.item``. What the columns are is inferred and can be corrected in
``dataset.toml`` beside the tables: see ``bench.data.layout``. A pair's row is a positive where its label says so, or
where there is no label; of a pair that repeats the first liked row stays, and negatives are sampled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.data.dataset import (
    FIRST_80,
    Adapter,
    DataSet,
    Ints,
    Table,
    interactions,
    split_by_time,
    split_within_user,
)  # fmt: skip
from bench.data.files import DataError, Say
from bench.data.infer import read_table, seconds_of
from bench.data.layout import FORMATS, Side, inspect

SHARES = (0.1, 0.2)  # of a user's rows that validate and test where there is no time


def adapter_of(kind: str, folder: str) -> Adapter:
    """The tables of a folder.

    Args:
        kind: one of ``FORMATS``.
        folder: path of it.

    Raises:
        DataError: no folder was given.
    """
    if not folder:
        raise DataError(f"{kind} takes a folder of your own tables, as in {kind}:path/to/folder")
    return Adapter(
        name=f"{kind}:{folder}",
        about="tables of your own",
        licence="yours",
        homepage=folder,
        supply=FORMATS[kind].about,
        load=lambda _: load(Path(folder), kind),
    )


def load(folder: Path, kind: str) -> DataSet:
    """The folder's tables as a data set.

    Raises:
        DataError: a table or a column is not found or not as the rest of it says; names file, line and column.
    """
    layout = inspect(folder, kind)
    notes: list[str] = list(layout.notes)
    met = layout.interactions
    tables, known = {}, {}
    for side, name in ((layout.users, met.user), (layout.items, met.item)):
        if side.file:
            tables[name] = read_table(folder / side.file, side.columns, notes.append, key=side.key)
            known[name] = tables[name][side.key]
    rows = read_table(folder / met.file, met.columns, notes.append, known=known)
    for side, name in ((layout.users, met.user), (layout.items, met.item)):
        if not side.file:
            codes, ids = pd.factorize(rows[name], sort=True)
            rows[name], tables[name] = codes, pd.DataFrame({side.key: ids})
    user, item = (rows[name].to_numpy(np.int64) for name in (met.user, met.item))
    time: Ints = np.zeros(len(rows), np.int64)
    if met.time:
        time = seconds_of(rows[met.time]).to_numpy().astype(np.int64)
    liked = (rows[met.label] >= met.liked_from).to_numpy() if met.label else np.ones(len(rows), bool)
    keep = first_liked(user, item, time, liked, met.file, notes.append)
    user, item, time, liked = user[keep], item[keep], time[keep], liked[keep]
    return DataSet(
        name=f"{kind}:{folder.name}",
        users=_table(tables[met.user], layout.users),
        items=_table(tables[met.item], layout.items),
        interactions=interactions(
            user, item, time, liked, split_by_time(time) if met.time else split_within_user(user, SHARES)
        ),
        split_rule=FIRST_80 if met.time else "at random within users, since there is no time: not leak-free",
        notes=tuple(notes),
    )


def first_liked(user: Ints, item: Ints, time: Ints, liked: np.ndarray, file: str, say: Say) -> Ints:
    """Positions of one row a pair: its first liked one, or its first; tells how many repeat."""
    order = np.lexsort((time, ~liked))
    repeats = pd.DataFrame({"user": user[order], "item": item[order]}).duplicated().to_numpy()
    if repeats.any():
        say(f"{file}: {repeats.sum()} of {len(user)} rows repeat a pair of user and item; the first liked one stays")
    return np.sort(order[~repeats]).astype(np.int64)


def _table(frame: pd.DataFrame, side: Side) -> Table:
    times = {name: seconds_of(frame[name]) for name in side.times}
    return Table(
        frame=frame.assign(**times), key=side.key, numeric=(*side.numeric, *side.times), categorical=side.categorical
    )
