"""What a data set's table teaches its encoder: its training rows, and the key where it lasts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bench.data.dataset import Table
from bench.data.encode import fit

FRAME = pd.DataFrame(
    {
        "id": [10, 11, 12, 13],
        "age": [20.0, 40.0, np.nan, 1000.0],
        "pay": [1.0, 3.0, 5.0, 9.0],
        "town": ["a", "b", None, "z"],
    }
)
TABLE = Table(frame=FRAME, key="id", numeric=("age", "pay"), categorical=("town",))
TRAINING = np.array([0, 1, 2])


def test_the_key_is_the_last_column_where_it_is_asked_for_and_lasts() -> None:
    assert fit(TABLE, TRAINING, ids=True).names == ("age", "age missing", "pay", "town", "id")
    assert fit(TABLE, TRAINING, ids=False).names == ("age", "age missing", "pay", "town")
    assert fit(replace(TABLE, lasting=False), TRAINING, ids=True).names == ("age", "age missing", "pay", "town")


def test_planted_leak_is_not_learned() -> None:
    """Changing every row outside of training changes nothing that was fitted."""
    changed = FRAME.copy()
    changed.loc[3, ["age", "pay", "town", "id"]] = [-5.0, 1e9, "planted", 99]
    assert fit(replace(TABLE, frame=changed), TRAINING, ids=True) == fit(TABLE, TRAINING, ids=True)
    assert fit(TABLE, np.arange(4), ids=True) != fit(TABLE, TRAINING, ids=True)
