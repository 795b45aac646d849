"""Logs that users supply, on small stand-ins in their real format: what an event is, what to predict, what is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data import adapter, cache, kuairand
from bench.data.dataset import DataSet
from bench.data.events import Events
from bench.data.files import DataError


def loaded(name: str, folder: Path) -> tuple[DataSet, Events, pd.DataFrame]:
    data = cache.load(adapter(name), folder)
    assert data.events is not None
    return data, data.events, data.events.frame


def kuairand_files(folder: Path) -> None:
    header = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
        "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    )
    rows = [["7,11,20220409,900,1649460000000,1,0,0,0,0,0,1,70100,70100,0,0,0,0,1",
             "0,4354972,20220409,900,1649467982289,0,0,0,0,0,0,0,0,70100,0,0,0,0,1"],
            ["7,11,20220425,900,1650900000000,1,1,0,0,0,0,1,9000,9000,0,0,0,0,0",
             "0,11,20220425,900,1650900000999,1,0,0,0,0,0,1,5332,11450,0,0,0,0,0",
             "0,11,20220425,900,1650900000123,1,0,0,0,0,0,1,5332,11450,0,0,0,0,0"]]  # fmt: skip
    for name, lines in zip(kuairand.FILES, rows, strict=True):
        (folder / name).write_text("\n".join([header, *lines, ""]))


def test_kuairand(tmp_path: Path) -> None:
    kuairand_files(tmp_path)
    data, events, frame = loaded("kuairand", tmp_path)
    assert data.users.frame["user_id"].tolist() == [0, 7]
    assert data.items.frame["item_id"].tolist() == [11, 4354972]
    assert frame[["user", "item", "time"]].to_numpy().tolist() == [
        [0, 1, 1649467982], [0, 0, 1650900000], [0, 0, 1650900000], [1, 0, 1649460000], [1, 0, 1650900000],
    ]  # fmt: skip
    assert events.target.tolist() == [False, True, True, True, True]
    assert events.visit.tolist() == [0, 1, 1, 2, 3]  # two videos within a second
    assert frame[["tab", "is_click", "is_like", "long_view"]].to_numpy()[-1].tolist() == ["0", "1", "1", "1"]
    assert frame["log_play_s"].tolist() == pytest.approx(np.log([1, 6.332, 6.332, 71.1, 10]))
    assert (data.interactions["label"] > 0).sum() == 2  # what was shown and not watched is no positive


def test_lfm_1b(tmp_path: Path) -> None:
    rows = ["31435\t15\t4\t6\t1385212958", "31435\t15\t4\t6\t1385212642", "40\t3\t1\t1\t1400000000", "40\tx\t1\t1\t2",
            *[f"40\t{item}\t1\t1\t{item}" for item in (5, 7)]]  # fmt: skip
    (tmp_path / "LFM-1b_LEs.txt").write_text("\n".join([*rows[:3] * 4, *rows[3:], ""]))
    data, events, frame = loaded("lfm-1b", tmp_path)
    assert data.items.frame["item_id"].tolist() == [3, 5, 7, 15]
    assert events.lengths.tolist() == [6, 8]  # every repeat is kept
    assert frame["time"].tolist() == [5, 7] + [1400000000] * 4 + [1385212642] * 4 + [1385212958] * 4
    assert data.notes == (
        "LFM-1b_LEs.txt: 1 of 15 rows left out, the first is line 13: column artist_id has 'x', which is not a whole "
        "number",
    )


def test_yambda(tmp_path: Path) -> None:
    log = pd.DataFrame({"uid": [10, 20, 20], "timestamp": [15929455, 18111700, 5], "item_id": [69, 64, 93],
                        "is_organic": [1, 0, 0], "played_ratio_pct": [49, 100, 130],
                        "track_length_seconds": [200, 0, 99]})  # fmt: skip
    log.astype({"uid": np.uint32, "timestamp": np.uint32, "is_organic": np.uint8}).to_parquet(
        tmp_path / "listens.parquet"
    )
    data, events, frame = loaded("yambda", tmp_path)
    assert frame[["user", "item", "time"]].to_numpy().tolist() == [[0, 1, 15929455], [1, 2, 5], [1, 0, 18111700]]
    assert events.target.tolist() == [False, True, True]
    assert frame["log_length_s"].tolist() == pytest.approx(np.log([201, 100, 1]))
    assert data.users.frame["user_id"].tolist() == [10, 20]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not hold yambda: listens\.parquet missing"):
        loaded("yambda", tmp_path)
    pd.DataFrame({"uid": [1], "item_id": [1]}).to_parquet(tmp_path / "listens.parquet")
    with pytest.raises(DataError, match="no column timestamp, is_organic"):
        loaded("yambda", tmp_path)
    kuairand_files(tmp_path)
    path = tmp_path / kuairand.FILES[0]
    path.write_text(path.read_text().replace(",16494", ",-16494"))
    (tmp_path / kuairand.FILES[1]).write_text(path.read_text())
    with pytest.raises(DataError, match="there are no events: row 1: time -1649460000 is none since 1970"):
        loaded("kuairand", tmp_path)
