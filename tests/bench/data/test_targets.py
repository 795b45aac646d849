"""What is known and what is to be predicted at each stage, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.data.events import Events, moments
from bench.data.files import DataError
from bench.data.targets import segment, stage, stages

# user 0: bought before, in the window (item 2 twice) and after it; user 1: in the window alone; user 2: before alone.
ROWS = [(0, 1, 5), (0, 2, 10), (0, 2, 12), (0, 3, 19), (0, 4, 20), (1, 0, 15), (2, 3, 9)]


def events(rows: list[tuple[int, int, int]] = ROWS) -> Events:
    return Events.of(pd.DataFrame(rows, columns=["user", "item", "time"]), 4, 5, print, window_s=10)


def test_a_stage_by_hand() -> None:
    found = stage(events(), 10)
    assert found.known.column("item").tolist() == [1, 3]
    assert found.users.tolist() == [0, 1]
    assert found.n_before.tolist() == [1, 0]
    assert found.warm.tolist() == [0]  # user 1 is cold; user 2 has no target
    assert [part.tolist() for part in found.pairs] == [[0, 0, 1], [2, 3, 0]]  # each once


def test_validation_ends_where_the_test_begins() -> None:
    rows = [(0, item, time) for item, time in ((0, 0), (1, 19), (2, 20), (3, 29), (4, 30))]
    validation, test = stages(events(rows), 20)
    assert [validation.before, test.before] == [10, 20]
    assert validation.pairs[1].tolist() == [1]
    assert validation.known.column("item").tolist() == [0]
    assert test.known.column("item").tolist() == [0, 1]
    assert test.pairs[1].tolist() == [2, 3]
    # Windows to train on, too: the last ends where validation begins.
    assert moments(validation.before, 2, 10) == (-10, 0)


def test_nobody_to_rank_for() -> None:
    with pytest.raises(DataError, match="no user has events before 1970-01-01 00:00:05 and a target in the 10 s after"):
        stage(events(), 5)
    with pytest.raises(DataError, match="no user has events before"):
        stage(events([(0, 1, 5), (1, 1, 20)]), 15)


def test_segments() -> None:
    few, some, many, most = "1 to 19", "20 to 99", "100 to 499", "500 and more"
    assert segment(np.array([0, 1, 19, 20, 99, 100, 499, 500, 10**6])) == ["cold", *[few] * 2, *[some] * 2, *[many] * 2,
                                                                           *[most] * 2]  # fmt: skip
