"""Courses on the page: planted users' values come out as means, tests and the sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.analysis.prequential import courses_of, pairs_of
from bench.plan.cell import Cell
from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import Record
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render

USERS = 60


def course(folder: Path, level: float, window: list[float], **fields: Any) -> Record:
    """A record whose users have the level, give or take what depends on the user alone."""
    cell = Cell(task="rank_stream", dataset="d", update_days=14, device="cpu", **fields)
    spread = np.random.default_rng(0).normal(0, 0.05, USERS)
    seeded = np.random.default_rng(int(cell.id[-8:], 16)).normal(0, 0.01, USERS)
    table = pd.DataFrame({"user": [str(i) for i in range(USERS)], "ndcg@10": level + spread + seeded})
    write_per_user(per_user_path(folder, cell.id), table)
    samples = {"window": [0.0, 1.0, 2.0], "window_ndcg@10": window, "window_users": [USERS] * 3}
    return Record(
        run="r", cell_id=cell.id, round=0, cell=dict(cell), status="ok", samples=samples,
        values={"learn_s": 12.0, "rebuild_s": 3.0, "visits": 600},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    tower = {"mixer": "mamba", "backend": "numba", "dtype": "float32", "n_layers": 1, "d_model": 8}
    records = [
        course(tmp_path, 0.20, [0.2, 0.2, 0.2], baseline="frequency"),
        *(course(tmp_path, 0.30, [0.4, 0.3, 0.2], arm="frozen", seed=seed, **tower) for seed in (0, 1)),
        course(tmp_path, 0.40, [0.4, 0.4, 0.4], arm="online", states="rebuilt", seed=0, **tower),
        course(tmp_path, 0.40, [0.4, 0.4, 0.4], arm="online", states="stale", seed=0, **tower),
    ]
    return Run("r", {}, records, folder=tmp_path)


def test_courses_and_pairs(run: Run) -> None:
    courses, problems = courses_of(run)
    assert problems == []
    assert [each.label for each in courses[2:]] == ["mamba, frozen", "frequency"]
    assert {each.label for each in courses[:2]} == {"mamba, online, rebuilt states", "mamba, online, stale states"}
    assert courses[2].curve == {0: 0.4, 1: 0.3, 2: 0.2}
    assert courses[3].mean.value == pytest.approx(0.2, abs=0.02)
    pairs = {(pair.first, pair.second): pair for pair in pairs_of(courses)}
    above = pairs["mamba, frozen", "frequency"]
    assert above.clear
    assert above.difference.value == pytest.approx(0.1, abs=0.01)
    assert not pairs[courses[0].label, courses[1].label].clear


def test_the_page_says_who_ranks_best(run: Run) -> None:
    page = render(Findings.of([run]))
    assert "ranks highest, NDCG@10 0.4" in page
    assert "clearly above mamba, frozen (by 0." in page
    assert "no difference found to mamba, online" in page
    assert "NDCG@10 as time goes by" in page
    assert "3.00 s" in page  # states made anew


def test_what_is_missing_is_told(run: Run) -> None:
    assert run.folder is not None
    per_user_path(run.folder, run.records[0].cell_id).unlink()
    courses, problems = courses_of(run)
    assert len(courses) == 3
    assert "frequency: " in problems[0]
    assert "is missing" in problems[0]
