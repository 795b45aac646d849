"""First rows of pairs, seconds and means, against plain Python."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from bench.data.rows import earliest, mean_by_row, seconds

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), max_size=40)


@given(EVENTS)
def test_the_first_row_of_a_pair_is_the_earliest_and_of_equals_the_first_given(events: list[tuple[int, ...]]) -> None:
    first: dict[tuple[int, int], int] = {}
    for row, (user, item, time) in enumerate(events):
        if (user, item) not in first or time < events[first[user, item]][2]:
            first[user, item] = row
    columns = np.array(events, dtype=np.int64).reshape(-1, 3).T
    assert earliest(*columns).tolist() == sorted(first.values())


def test_seconds_whatever_the_unit_of_the_column() -> None:
    moment = datetime(2020, 9, 22, 12, 30, 1, tzinfo=UTC)
    for unit in ("s", "ms", "ns"):
        times = pd.Series([moment.replace(tzinfo=None)]).astype(f"datetime64[{unit}]")
        assert seconds(times).tolist() == [int(moment.timestamp())]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), max_size=30))
def test_means_of_rows_are_missing_where_there_is_nothing(values: list[tuple[int, float]]) -> None:
    of = defaultdict(list)
    for row, value in values:
        of[row].append(value)
    expected = [sum(of[row]) / len(of[row]) if of[row] else np.nan for row in range(5)]
    rows, numbers = np.array([row for row, _ in values], dtype=np.int64), np.array([value for _, value in values])
    np.testing.assert_allclose(mean_by_row(rows, numbers, 5), expected, rtol=1e-9, atol=1e-6)
