"""Ranking metrics against hand-computed values and against ranx."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics.catalogue import coverage, popularity_percentile
from bench.metrics.ranking import METRICS, Positives, evaluate


def positives(pairs: list[tuple[int, int]], n_users: int = 3, n_items: int = 10) -> Positives:
    users, items = (np.array(part, dtype=np.int64) for part in zip(*pairs, strict=True)) if pairs else (
        np.empty(0, np.int64), np.empty(0, np.int64)
    )  # fmt: skip
    return Positives.of(users, items, n_users, n_items)


def test_by_hand() -> None:
    liked = positives([(0, 1), (0, 2), (0, 3), (1, 9)])
    ranked = np.array([[5, 1, 7, 3, 8], [0, 1, 2, 3, 4]])
    found = evaluate(np.array([0, 1]), ranked, liked, [1, 2, 5])
    best3 = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    expected = {
        "precision@1": [0, 0], "precision@2": [1 / 2, 0], "precision@5": [2 / 5, 0],
        "recall@1": [0, 0], "recall@2": [1 / 3, 0], "recall@5": [2 / 3, 0],
        "mrr@1": [0, 0], "mrr@2": [1 / 2, 0], "mrr@5": [1 / 2, 0],
        "hit_rate@1": [0, 0], "hit_rate@2": [1, 0], "hit_rate@5": [1, 0],
        "ndcg@1": [0, 0],
        "ndcg@2": [1 / math.log2(3) / (1 + 1 / math.log2(3)), 0],
        "ndcg@5": [(1 / math.log2(3) + 1 / math.log2(5)) / best3, 0],
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name


def test_perfect_list_and_list_that_ends_early() -> None:
    liked = positives([(0, 1), (0, 2)])
    perfect = evaluate(np.array([0]), np.array([[2, 1, 5]]), liked, [2])
    assert {name: value[0] for name, value in perfect.items()} == dict.fromkeys(perfect, 1.0)
    short = evaluate(np.array([0]), np.array([[2, -1, -1]]), liked, [3])
    assert short["precision@3"][0] == pytest.approx(1 / 3)
    assert short["recall@3"][0] == pytest.approx(1 / 2)


def test_end_of_list_is_never_a_hit() -> None:
    """User 1 at position -1 must not be taken for the last item of user 0."""
    liked = positives([(0, 9), (1, 0)])
    found = evaluate(np.array([1]), np.array([[-1, -1]]), liked, [2])
    assert all(value[0] == 0 for value in found.values())


def test_user_without_positives_is_refused() -> None:
    with pytest.raises(ValueError, match="without positives"):
        evaluate(np.array([2]), np.array([[1]]), positives([(0, 1)]), [1])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ks": [3]}, "from 1 to 2, the width of the lists; got \\[3\\]"),
        ({"ks": [1, 0]}, "from 1 to 2"),
        ({"ks": [-1]}, "from 1 to 2"),
        ({"ranked": [[1, 1]]}, "names an item twice"),
        ({"ranked": [[10, 1]]}, "ranked items must be row numbers from -1 to 9, got 1 to 10"),
        ({"ranked": [[-2, 1]]}, "ranked items must be row numbers"),
        ({"users": [-1]}, "users must be row numbers from 0 to 2"),
        ({"users": [3]}, "users must be row numbers from 0 to 2"),
        ({"users": [0, 1]}, "one list a user"),
        ({"ranked": [1, 2]}, "one list a user"),
        ({"metrics": ["ndgc"]}, "unknown metric ndgc; choose from precision"),
    ],
)
def test_preconditions_of_evaluate(changed: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"users": [0], "ranked": [[1, 2]], "ks": [2], "metrics": ["ndcg", "mrr"], **changed}
    arrays = {name: np.array(given.pop(name)) for name in ("users", "ranked")}
    with pytest.raises(ValueError, match=words):
        evaluate(**arrays, **given, positives=positives([(0, 1), (1, 0), (2, 9)]))


@pytest.mark.parametrize("pair", [(0, 10), (1, -1), (3, 0), (-1, 5)])
def test_a_pair_outside_of_the_tables_is_not_another_pair(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be row numbers from 0"):
        positives([(0, 1), pair])


RANX = """
import json, sys
import ranx

request = json.load(sys.stdin)
answers = []
for case in request["cases"]:
    run = ranx.Run(case["run"])
    values = ranx.evaluate(ranx.Qrels(case["qrels"]), run, request["metrics"], return_mean=False)
    answers.append({"users": list(run.run), "values": {name: list(map(float, v)) for name, v in values.items()}})
json.dump(answers, sys.stdout)
"""


def by_ranx(cases: list[dict[str, object]], metrics: list[str]) -> list[dict[str, Any]]:
    """In a process of its own with numba's compiler off, which takes minutes for what runs in milliseconds."""
    done = subprocess.run(
        [sys.executable, "-c", RANX], input=json.dumps({"cases": cases, "metrics": metrics}), text=True,
        capture_output=True, check=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_against_ranx() -> None:
    pytest.importorskip("ranx")
    n_users, n_items, ks = 60, 40, [1, 3, 10]
    cases, found = [], []
    for seed in range(3):
        random = np.random.default_rng(seed)
        scores = random.random((n_users, n_items))
        pairs = [
            (u, int(i)) for u in range(n_users) for i in random.choice(n_items, random.integers(1, 15), replace=False)
        ]
        qrels = {str(u): {f"i{i}": 1 for v, i in pairs if v == u} for u in range(n_users)}
        run = {str(u): {f"i{i}": float(scores[u, i]) for i in range(n_items)} for u in range(n_users)}
        cases.append({"qrels": qrels, "run": run})
        ranked = np.argsort(-scores, axis=1)
        found.append(evaluate(np.arange(n_users), ranked, positives(pairs, n_users, n_items), ks))
    names = [f"{name}@{k}" for name in METRICS for k in ks]
    for own, answer in zip(found, by_ranx(cases, names), strict=True):
        order = [int(user) for user in answer["users"]]
        for name in names:
            assert own[name][order] == pytest.approx(answer["values"][name], abs=1e-6), name


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=20),
)
def test_positives_are_a_set_of_pairs(pairs: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    found = positives(pairs, 5, 7)
    users, items = (np.array(part) for part in zip(*asked, strict=True))
    assert found.contains(users, items).tolist() == [pair in pairs for pair in asked]
    assert found.counts().tolist() == [len({i for u, i in pairs if u == user}) for user in range(5)]
    position, own = found.of_users(np.array([3, 0, 3]))
    expected = [(p, i) for p, user in enumerate((3, 0, 3)) for i in sorted({i for u, i in pairs if u == user})]
    assert list(zip(position.tolist(), own.tolist(), strict=True)) == expected


def test_catalogue() -> None:
    ranked = np.array([[0, 1], [0, -1]])
    assert coverage(ranked, 4) == 0.5
    popularity = np.array([9, 5, 5, 0])
    # ranks from the least popular: item 3 has 1/8, the two of 5 share 4/8, item 0 has 7/8
    assert popularity_percentile(np.array([[0], [3]]), popularity) == pytest.approx(0.5)
    assert popularity_percentile(np.array([[1, 2]]), popularity) == pytest.approx(0.5)
    assert popularity_percentile(np.array([[0]]), popularity) == pytest.approx(7 / 8)
