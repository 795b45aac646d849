"""Yambda: what users of a music service listened to, from 50 million events on (arXiv 2505.22238).

The file, ``listens.parquet`` of any size of the flat form, is supplied by the user. To be predicted is what will be
heard to the half, which its authors count as listened to. Times are seconds from an unknown day on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.dataset import Adapter, DataSet
from bench.data.event_logs import data_set
from bench.data.parquet import read_parquet

FILE = "listens.parquet"
HEARD = 50  # percent of a track's length
COLUMNS = ("uid", "item_id", "timestamp", "is_organic", "played_ratio_pct", "track_length_seconds")


def load(folder: Path) -> DataSet:
    """The log as a data set of histories.

    Raises:
        DataError: the file is missing or not as its format says.
    """
    notes: list[str] = []
    heard = read_parquet(folder / FILE, dict.fromkeys(COLUMNS, "number"), notes.append, needed=list(COLUMNS))
    log = heard.rename(columns={"uid": "user_id", "timestamp": "time"}).assign(
        is_organic=heard["is_organic"].astype(str), log_length_s=np.log1p(heard["track_length_seconds"].clip(lower=0))
    )
    return data_set(
        ADAPTER.name, log, notes, numeric=("played_ratio_pct", "log_length_s"), categorical=("is_organic",),
        target=(heard["played_ratio_pct"] >= HEARD).to_numpy(),
    )  # fmt: skip


ADAPTER = Adapter(
    name="yambda",
    about="what users of a music service listened to, as histories (a file supplied by you)",
    licence="Apache 2.0",
    homepage="https://huggingface.co/datasets/yandex/yambda",
    files={FILE: None},
    load=load,
    supply="listens.parquet, of flat/50m or larger",
)
