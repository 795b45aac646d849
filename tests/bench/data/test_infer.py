"""What columns are taken for, against what a person would say; times in every unit."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.data.infer import kind_of, seconds_of

TEXTS = [f"a text of its own {i}" for i in range(300)]


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("price", ["1.5", "2", None] * 10, "number"),
        ("price", [str(i) for i in range(40)], "number"),
        ("price", [*map(str, range(40)), "n.a."], "number"),
        ("stars", ["1", "2", "3"] * 10, "group"),
        ("maker_id", [str(i) for i in range(40)], "group"),
        ("zip", [str(i) for i in range(40)], "group"),
        ("flag", [True, False, True], "group"),
        ("town", ["Ulm", "Rome", None] * 10, "group"),
        ("since", ["2020-01-02", "2021-03-04 10:11:12", None], "time"),
        ("since", pd.to_datetime(["2020-01-02", "2021-03-04"]).tolist(), "time"),
        ("title", TEXTS, "left out"),
        ("title", TEXTS[:90], "group"),
        ("all the same", ["x"] * 9, "left out"),
        ("x where known", ["x", None, "x"], "group"),
        ("empty", [None, None], "left out"),
        ("tags", [["a"], ["b"]], "left out"),
    ],
)
def test_what_a_column_becomes(name: str, values: list[object], kind: str) -> None:
    found, why = kind_of(pd.Series(values, name=name))
    assert found == kind
    assert bool(why) == (kind == "left out")


@pytest.mark.parametrize("factor", [1, 1e3, 1e6, 1e9])
def test_times_are_counted_in_seconds(factor: float) -> None:
    """2020-09-13 12:26:40 is 1.6e9 seconds after 1970."""
    times = pd.Series([1.6e9, 1.6e9 + 60]) * factor
    assert seconds_of(times).tolist() == [1.6e9, 1.6e9 + 60]
    dates = pd.Series(pd.to_datetime(["2020-09-13 12:26:40", "2020-09-13 12:27:40"]))
    assert seconds_of(dates).tolist() == [1.6e9, 1.6e9 + 60]
    assert seconds_of(dates.dt.tz_localize("UTC")).tolist() == [1.6e9, 1.6e9 + 60]


def test_small_numbers_are_seconds_too() -> None:
    assert seconds_of(pd.Series([0.0, 5.0, 100.0])).tolist() == [0, 5, 100]
