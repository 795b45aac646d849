"""From three CSV files to the card: what a user types, and what is refused."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import decide
from bench.analysis.towers import Towers
from bench.plan import presets
from bench.plan.plan import Plan
from bench.records.store import load_run
from bench.run.runner import planned

ROOT = Path(__file__).resolve().parents[2]
N_USERS, N_ITEMS, N_COLUMNS = 60, 30, 6


def write_tables(folder: Path) -> None:
    """Users and items with numbers and categories, and who met what, when; users like items of their own kind."""
    draw = np.random.default_rng(0)
    kinds = {"user": draw.integers(0, 3, N_USERS), "item": draw.integers(0, 3, N_ITEMS)}
    for side, n_columns in (("user", N_COLUMNS), ("item", 2)):
        kind = kinds[side]
        columns = {f"number_{i}": kind + draw.normal(0, 0.5, len(kind)).round(3) for i in range(n_columns - 1)}
        shelves = np.array(["a", "b", "c"])[kind]
        table = pd.DataFrame({f"{side}_id": np.arange(len(kind)), **columns, "kind": shelves})
        table.to_csv(folder / f"{side}s.csv", index=False)
    user, item = (np.repeat(np.arange(N_USERS), 10), draw.integers(0, N_ITEMS, 10 * N_USERS))
    met = pd.DataFrame({"user_id": user, "item_id": item, "timestamp": draw.integers(0, 10**6, len(user))})
    met["label"] = (kinds["user"][user] == kinds["item"][item]).astype(int)
    met.to_csv(folder / "interactions.csv", index=False)


def test_three_csv_files_lead_to_the_card(tmp_path: Path) -> None:
    write_tables(tmp_path)
    arguments = [f"--data=csv:{tmp_path}", "--batch-size", "8", "--layers", "1", "--d-model", "8", "--budget", "0.4",
                 "--threads", "1", "--device", "cpu", "--quiet", "--out", "results/mine"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.decide", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    first = done.stdout.splitlines()[0]
    assert first.startswith(("Take ", "No decision: ")), done.stdout
    cost, quality = (load_run(tmp_path / "results" / f"mine-{what}") for what in ("cost", "quality"))
    # [CLS], the columns (the item's twice two) and the id.
    assert cost.meta["towers"] == {"user": N_COLUMNS + 2, "content": 4, "batch_size": 8, "n_layers": 1}
    plan = Plan(cost.meta["spec"])  # the two towers come first, however far the time reached
    assert [record.cell_id for record in cost.records] == [cell.id for _, cell in planned(plan)][: len(cost.records)]
    assert {cell.n_tokens for _, cell in planned(plan)[:4]} == {N_COLUMNS + 2}
    trained = [record for record in quality.records if "mixer" in record.cell]
    assert [record.status for record in trained] == ["ok", "ok"]
    assert all(record.values["user_tokens"] == N_COLUMNS + 2 for record in trained)
    assert f"For more certainty: python -m bench.decide {shlex.quote(arguments[0])}" in done.stdout
    assert "--budget 1.6" in done.stdout
    page = (tmp_path / "reports" / "mine.html").read_text()
    assert page.index('id="card-title"') < page.index('id="answer-title"')
    assert first[:40] in page


def test_one_axis_varies_at_a_time_and_the_towers_come_first() -> None:
    where = {"mixers": ["mamba", "attention"], "device": "cpu", "threads": 1, "batch_sizes": [256], "layers": [3],
             "d_model": [64]}  # fmt: skip
    plan = decide.cost_plan(where, Towers(301, 21, 256, 3)).resolved("cpu")
    sizes = {(cell.n_tokens, cell.batch_size, cell.n_layers) for cell in plan.cells()}
    assert sizes == {(301, 256, 3), (21, 256, 3), (75, 256, 3), (18, 256, 3), (301, 16, 3), (301, 256, 1)}
    assert {cell.paired_with for cell in plan.cells()} == {"", "mamba/numba"}
    every = Plan({**plan, "vary": "all"}).resolved("cpu")
    assert len(every.cells()) == 2 * 2 * 4 * 2 * 2
    assert presets.load("decide")["order"] == "first"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give either --data NAME, such as csv:FOLDER, or --columns N"),
        (["--columns", "3", "--data", "movielens-100k"], "give either --data"),
        (["--columns", "0"], "--columns takes one or two whole numbers from 1 on, got '0'"),
        (["--columns", "1,2,3"], "--columns takes one or two whole numbers"),
        (["--columns", "3", "--mixers", "mamba"], "--mixers needs two at least"),
        (["--columns", "3", "--mixers", "mamba,rnn"], "unknown mixer 'rnn'"),
        (["--data", "csv:nowhere"], "nowhere"),
        (["--data", "mine"], "unknown data set 'mine'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert decide.main(arguments) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
