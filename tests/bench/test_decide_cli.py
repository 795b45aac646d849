"""From three CSV files to the card: what a user types, and what is refused."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import decide
from bench.analysis.towers import Towers
from bench.data import adapter, cache
from bench.plan.plan import Plan
from bench.records.store import Run, load_run
from bench.run import session
from bench.run.runner import planned

ROOT = Path(__file__).resolve().parents[2]


def write_tables(folder: Path, n_users: int, n_items: int, n_columns: int) -> None:
    """Users and items with numbers and categories, and who met what, when; users like items of their own kind."""
    draw = np.random.default_rng(0)
    kinds = {"user": draw.integers(0, 3, n_users), "item": draw.integers(0, 3, n_items)}
    for side, n_own in (("user", n_columns), ("item", 2)):
        kind = kinds[side]
        columns = {f"number_{i}": kind + draw.normal(0, 0.5, len(kind)).round(3) for i in range(n_own - 1)}
        shelves = np.array(["a", "b", "c"])[kind]
        table = pd.DataFrame({f"{side}_id": np.arange(len(kind)), **columns, "kind": shelves})
        table.to_csv(folder / f"{side}s.csv", index=False)
    user, item = (np.repeat(np.arange(n_users), 10), draw.integers(0, n_items, 10 * n_users))
    met = pd.DataFrame({"user_id": user, "item_id": item, "timestamp": draw.integers(0, 10**6, len(user))})
    met["label"] = (kinds["user"][user] == kinds["item"][item]).astype(int)
    met.to_csv(folder / "interactions.csv", index=False)


@pytest.mark.parametrize(
    ("sizes", "model", "in_short"),
    [
        ((60, 30, 6), (8, 1, 8), True),  # the towers once, and the fewest steps
        pytest.param((5000, 1000, 300), (256, 3, 128), False, marks=pytest.mark.slow),  # ten minutes
    ],
)
def test_three_csv_files_lead_to_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sizes: tuple[int, int, int],
    model: tuple[int, int, int], in_short: bool,
) -> None:  # fmt: skip
    write_tables(tmp_path, *sizes)
    batch_size, n_layers, d_model = map(str, model)
    n_tokens = sizes[2] + 2  # [CLS] and the id
    arguments = [f"--data=csv:{tmp_path}", "--batch-size", batch_size, "--layers", n_layers, "--d-model", d_model,
                 "--device", "cpu", "--threads", str(+in_short), "--quiet", "--out=results/mine"]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "argv", ["bench.decide", *arguments])
    if in_short:
        monkeypatch.setattr(decide, "COST_SHARE", 1e-9)
        monkeypatch.setattr(decide, "MOST", decide.FEWEST)
    assert decide.main(arguments) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert first.startswith("Take "), out
    cost, quality = (load_run(tmp_path / "results" / f"mine-{what}") for what in ("cost", "quality"))
    towers = {"user": n_tokens, "content": 4, "batch_size": model[0], "n_layers": model[1]}
    assert cost.meta["towers"] == towers
    plan = Plan(cost.meta["spec"])  # the two towers come first, however far the time reached
    assert [record.cell_id for record in cost.records] == [cell.id for _, cell in planned(plan)][: len(cost.records)]
    assert {cell.n_tokens for _, cell in planned(plan)[:4]} == {n_tokens}
    trained = [record for record in quality.records if "mixer" in record.cell]
    assert [record.status for record in trained] == ["ok", "ok"]
    assert all(record.values["user_tokens"] == n_tokens for record in trained)
    assert f"For more certainty: python -m bench.decide {shlex.quote(arguments[0])}" in out
    assert "--budget 40" in out
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
    first = [(cell.n_tokens, cell.batch_size, cell.n_layers) for _, cell in planned(plan)[:8]]
    assert first == [(301, 256, 3)] * 4 + [(21, 256, 3)] * 4
    assert len(plan.cells()) == 2 * 2 * 6


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


def test_an_interruption_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise session.InterruptedRunError("interrupted; continue with: this")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "begin", interrupt)
    assert decide.main(["--columns", "3", "--device", "cpu"]) == 130
    assert capsys.readouterr().err == "error: interrupted; continue with: this\n"


@pytest.mark.parametrize(("left_s", "steps", "missing_s"), [(1e6, 800, 0), (140, 59, 0), (40, 20, 38)])
def test_steps_are_as_many_as_the_time_suffices_for(
    monkeypatch: pytest.MonkeyPatch, left_s: float, steps: int, missing_s: float
) -> None:
    """A second a step and 1 s of looks for each of two mixers, whose processes take 10 s to start."""
    monkeypatch.setattr(decide, "training_cost", lambda *_: (1.0, 1.0) if left_s > 100 else (1.0, 9.0))
    where = {"mixers": ["mamba", "attention"], "device": "cpu", "threads": 1, "batch_sizes": [8], "layers": [1],
             "d_model": [8]}  # fmt: skip
    name = "synthetic:users=60:items=30:columns=4:pairs=10"
    data = cache.load(adapter(name))
    plan, missing = decide.quality_plan(where, name, data, Run("r", {}, []), Towers(6, 6, 8, 1), left_s)
    assert (plan.steps, missing) == (steps, missing_s)
