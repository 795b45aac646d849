"""The event table and what is known of it at a moment, against tables written out by hand and a loop over rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.events import DAY_S, Events, cut, moments, next_visits, window
from bench.data.files import DataError


def events(rows: list[tuple[int, int, int]], n_users: int = 3, n_items: int = 9, **settings: object) -> Events:
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    return Events.of(frame.assign(price=np.arange(len(rows)) * 1.0), n_users, n_items, print, numeric=("price",),
                     **settings)  # type: ignore[arg-type]  # fmt: skip


# In no order; user 1 has no event; user 0 buys item 5 twice in one visit and once again later.
ROWS = [(2, 1, 50), (0, 5, 20), (0, 5, 10), (0, 3, 20), (2, 0, 50), (0, 5, 20), (0, 8, 30)]


def test_events_are_sorted_and_keep_repeats() -> None:
    table = events(ROWS)
    assert list(table.frame[["user", "item", "time"]].itertuples(index=False, name=None)) == [
        (0, 5, 10), (0, 3, 20), (0, 5, 20), (0, 5, 20), (0, 8, 30), (2, 0, 50), (2, 1, 50),
    ]  # fmt: skip
    assert table.frame["price"].tolist() == [2, 3, 1, 5, 6, 4, 0]
    assert table.offsets.tolist() == [0, 5, 5, 7]
    assert table.visit.tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert table.lengths.tolist() == [5, 0, 2]


def test_a_cut_knows_nothing_from_its_moment_on() -> None:
    table = events(ROWS)
    known = cut(table, 30)
    assert known.frame["time"].tolist() == [10, 20, 20, 20]
    assert known.offsets.tolist() == [0, 4, 4, 4]
    last = cut(table, 51, 2)
    assert last.column("item").tolist() == [5, 8, 0, 1]
    assert last.offsets.tolist() == [0, 2, 2, 4]
    assert last.visit.tolist() == [1, 2, 3, 3]
    with pytest.raises(ValueError, match="history_length must be at least 1, got 0"):
        cut(table, 51, 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=40),
    st.integers(0, 13),
    st.integers(1, 9),
)
def test_cut_and_window_against_a_loop(rows: list[tuple[int, int, int]], before: int, length: int) -> None:
    table = events(rows, n_users=4, n_items=5, window_s=3)
    history, ahead = cut(table, before, length), window(table, before)
    for user in range(4):
        own = sorted((time, item) for each, item, time in rows if each == user)
        mine = slice(*history.offsets[user : user + 2])
        seen = [pair for pair in own if pair[0] < before][-length:]
        assert list(zip(history.column("time")[mine], history.column("item")[mine], strict=True)) == seen
        mine = slice(*ahead.offsets[user : user + 2])
        coming = [item for time, item in own if before <= time < before + 3]
        assert ahead.column("item")[mine].tolist() == coming


def test_only_what_is_wanted_is_ahead() -> None:
    liked = events(ROWS, target=np.array([True, False, True, True, True, False, True]), window_s=100)
    assert window(liked, 10).column("item").tolist() == [5, 3, 8, 0, 1]


def test_predictions_are_made_where_a_visit_ends() -> None:
    rows, starts, stops = next_visits(events([*ROWS, (1, 4, 9)]))
    assert rows.tolist() == [0, 3]
    assert starts.tolist() == [1, 4]
    assert stops.tolist() == [4, 5]
    assert [len(part) for part in next_visits(cut(events(ROWS), 0))] == [0, 0, 0]


def test_windows_follow_each_other() -> None:
    assert moments(100, 3, 10) == (70, 80, 90)
    assert events([(0, 0, 0), (0, 1, 100 * DAY_S)]).cuts == tuple(k * 14 * DAY_S + 30 * DAY_S + 1 for k in range(5))


def test_odd_rows_are_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    odd = events([*ROWS * 5, (0, -1, 5), (7, 1, 5), (0, 1, -5)])
    assert len(odd.frame) == 5 * len(ROWS)
    found = "events: 3 of 38 rows left out, the first is row 37: user 7 is in no row of the user table\n"
    assert capsys.readouterr().out == found


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"user": [0], "time": [1], "price": [1.0]}, "events have no column item; found user, time, price"),
        ({"user": [0], "item": ["milk"], "time": [1], "price": [1.0]}, "column item of the events holds no numbers"),
        ({"user": [0], "item": [1], "time": [1], "price": ["x"]}, "column price of the events holds no numbers"),
        ({"user": [0, 0], "item": [9, 9], "time": [1, 1], "price": [1.0] * 2},
         "there are no events: row 1: item 9 is in no row of the item table"),
        ({"user": [0], "item": [1], "time": [-1], "price": [1.0]}, "there are no events: row 1: time -1 is none since"),
        ({"user": [0] * 9, "item": [1] * 9, "time": [-1] * 8 + [1], "price": [1.0] * 9},
         "events row 1: time -1 is none since 1970 (the first of 8 odd rows among 9)"),
        ({"user": [0.0], "item": [1], "time": [np.nan], "price": [1.0]}, "time nan is none since 1970"),
    ],
)  # fmt: skip
def test_what_is_no_event_table(frame: dict[str, list[object]], expected: str) -> None:
    with pytest.raises(DataError) as error:
        Events.of(pd.DataFrame(frame), 3, 9, print, numeric=("price",))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_one_user_with_a_million_events() -> None:
    n, random = 10**6, np.random.default_rng(0)
    frame = pd.DataFrame({"user": 1, "item": random.integers(0, 9, n), "time": random.permutation(n)})
    table = cut(Events.of(frame, 3, 9, print), n - 10, 4000)
    assert table.column("time").tolist() == list(range(n - 4010, n - 10))
    assert table.offsets.tolist() == [0, 0, 4000, 4000]
