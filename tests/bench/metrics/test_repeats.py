"""Repeated and explored targets, by hand."""

from __future__ import annotations

import numpy as np

from bench.metrics.ranking import Positives
from bench.metrics.repeats import parts


def pairs(*found: tuple[int, int]) -> Positives:
    users, items = np.array(found, np.int64).reshape(-1, 2).T
    return Positives.of(users, items, 3, 4)


def test_by_hand() -> None:
    targets, known = pairs((0, 1), (0, 2), (1, 1), (2, 3)), pairs((0, 2), (0, 3), (1, 2), (2, 3))
    found = parts(targets, known)
    assert found["repeated"].keys.tolist() == pairs((0, 2), (2, 3)).keys.tolist()
    assert found["explored"].keys.tolist() == pairs((0, 1), (1, 1)).keys.tolist()
    assert parts(targets, pairs())["repeated"].keys.tolist() == []
    assert parts(pairs(), known)["explored"].keys.tolist() == []
