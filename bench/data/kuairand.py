"""KuaiRand-1K: what 1,000 users of a video service were shown in a month, 11.7 million events (arXiv 2208.08696).

Files supplied by the user. A history is everything that was shown; to be predicted is what will be watched for long.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.data.dataset import Adapter, DataSet
from bench.data.event_logs import data_set, log_seconds
from bench.data.files import table_path
from bench.data.tables import FLAG, INT, TextTable

FILES = ("log_standard_4_08_to_4_21_1k.csv", "log_standard_4_22_to_5_08_1k.csv")
LOG = TextTable(
    {**dict.fromkeys(("user_id", "video_id", "time_ms", "play_time_ms", "duration_ms", "tab"), INT),
     **dict.fromkeys(("is_click", "is_like", "long_view"), FLAG)}
)  # fmt: skip


def load(folder: Path) -> DataSet:
    """The two logs, one after the other, as a data set of histories.

    Raises:
        DataError: a file is missing or not as its format says; names file, line and column.
    """
    notes: list[str] = []
    shown = pd.concat([LOG.read(table_path(folder, name), notes.append) for name in FILES], ignore_index=True)
    actions = ("tab", "is_click", "is_like", "long_view")
    log = shown[list(actions)].astype(str).assign(
        user_id=shown["user_id"], item_id=shown["video_id"], time=shown["time_ms"] // 1000,
        log_play_s=log_seconds(shown["play_time_ms"]), log_duration_s=log_seconds(shown["duration_ms"]),
    )  # fmt: skip
    return data_set(
        ADAPTER.name, log, notes, numeric=("log_play_s", "log_duration_s"), categorical=actions,
        target=(shown["long_view"] == 1).to_numpy(),
    )  # fmt: skip


ADAPTER = Adapter(
    name="kuairand",
    about="11.7 million videos shown to 1,000 users, as histories (files supplied by you)",
    licence="see its homepage",
    homepage="https://kuairand.com",
    files=dict.fromkeys(FILES),
    load=load,
    supply="the two log_standard_..._1k.csv of KuaiRand-1K",
)
