"""The command: a small study end to end, continued after an interruption, and everything it refuses in one line."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import quality
from bench.data.tables import DataError
from bench.plan import presets
from bench.plan.plan import Plan
from bench.plan.setting import PlanError
from bench.records.per_user import per_user_path, read_per_user
from bench.records.record import SCHEMA, Record
from bench.records.store import load_run
from bench.run import environment as environment_probe
from bench.run.tasks.rank_quality import CHECKPOINTS

ROOT = Path(__file__).resolve().parents[2]
TINY = "synthetic:users=60:items=30:columns=4:pairs=10"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.quality", "--threads", "1", "--device", "cpu", *arguments]


def name_of(record: Record) -> str:
    return str(record.cell.get("mixer") or record.cell["baseline"])


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "FTMAMBA_DATA": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_study_end_to_end_and_resumed(tmp_path: Path) -> None:
    out = tmp_path / "results" / "tiny"
    setting = ["--dataset", TINY, "--mixers", "attention", "--baselines", "popularity,oracle", "--seeds", "0,1"]
    setting += ["--steps", "4", "--d-model", "16", "--layers", "1", "--out", str(out)]
    done = subprocess.run(
        command(*setting), cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert "NDCG@10" in done.stdout
    assert (tmp_path / "reports" / "tiny.html").is_file()
    run = load_run(out)
    assert [(name_of(record), record.cell["seed"], record.status) for record in run.records] == [
        ("popularity", 0, "ok"), ("oracle", 0, "ok"), ("attention", 0, "ok"), ("attention", 1, "ok"),
    ]  # fmt: skip
    for record in run.records:
        table = read_per_user(per_user_path(out, record.cell_id))
        assert record.values["ndcg@10"] == pytest.approx(table["ndcg@10"].mean())
        assert record.values["users_evaluated"] == len(table)
    trained = run.records[-1]
    assert trained.values["params"]
    assert trained.values["train_steps_per_s"]
    assert trained.values["peak_memory_bytes"] is not None or "peak_memory_bytes" in trained.notes
    assert trained.samples["step"][-1] == trained.values["steps"] == 4
    assert not list((out / CHECKPOINTS).iterdir())

    # The last record is lost, as if the machine had stopped: a second run makes that one, to the same result.
    lines = (out / "records.jsonl").read_bytes().splitlines(keepends=True)
    (out / "records.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    again = subprocess.run(
        command("--resume", "--out", str(out), "--json", "--quiet"),
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    records = json.loads(again.stdout)
    assert len(records) == 4
    before = {name: value for name, value in trained.values.items() if "@" in name}
    assert {name: value for name, value in records[-1]["values"].items() if "@" in name} == before


def test_interrupted_study_keeps_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command("--dataset", TINY, "--mixers", "attention", "--baselines", "popularity", "--steps", "1000000",
                "--out", str(out)),
        cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )  # fmt: skip
    records = out / "records.jsonl"
    while process.poll() is None and not (records.is_file() and records.read_bytes()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"continue with: python -m bench.quality --resume --out {out}" in said
    assert [name_of(record) for record in load_run(out).records] == ["popularity"]


def test_a_study_without_a_number_fails_and_has_its_report_where_it_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    setting = ["--dataset", TINY, "--mixers", "attention", "--baselines", "popularity", "--seeds", "0"]
    done = subprocess.run(
        command(*setting, "--timeout", "0.05", "--quiet", "--out", "run"), cwd=tmp_path, env=environment(tmp_path),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("warning: cannot write the report reports/run.html: ")
    assert done.stderr.endswith("; it is run/report.html instead\n")
    assert [record.status for record in load_run(tmp_path / "run").records] == ["timeout", "timeout"]
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--dataset", "movielens"], "unknown data set 'movielens'; choose from movielens-100k"),
        (["--dataset", "synthetic:users=no"], "users of synthetic must be a whole number"),
        (["--dataset", ""], "is an empty list"),
        (["--mixers", "mamba,rnn"], "unknown mixer 'rnn'; choose from"),
        (
            ["--baselines", "best"],
            "unknown value 'best' for baselines; choose from random, popularity, recent-popularity, ",
        ),
        (["--loss", "hinge"], "unknown value 'hinge' for losses; choose from mse, bce, softmax"),
        (["--protocol", "mine"], "unknown value 'mine' for protocol; choose from full, paper"),
        (["--features", "all"], "unknown value 'all' for features; choose from ids, attributes"),
        (["--match", "flops"], "unknown value 'flops' for match; choose from depth, params, time"),
        (["--preset", "big"], "unknown preset 'big'; choose from ablations-cpu, "),
        (["--seeds", "-1"], "seeds takes whole numbers from 0"),
        (["--seeds", "a"], "seeds takes whole numbers from 0 to 2,147,483,647, got 'a'"),
        (["--at", "0"], "ks takes whole numbers from 1"),
        (["--steps", "-5"], "steps takes whole numbers from 1"),
        (["--layers", "0"], "layers takes whole numbers from 1"),
        (
            ["--d-model", "12", "--heads", "own", "--device", "cpu", "--list"],
            "d_model 12 is not a multiple of n_heads 8",
        ),
        (["--batch-size", "1", "--device", "cpu", "--list"], "a training step takes 2 pairs at least"),
        (["--protocol", "paper", "--refit", "true", "--device", "cpu", "--list"], "chooses nothing on validation"),
        (["--epochs", "2", "--steps", "5", "--device", "cpu", "--list"], "steps and epochs are two budgets"),
        (["--dropouts", "1"], "dropouts takes numbers from 0 to 0.999"),
        (["--negatives", "0"], "negatives takes whole numbers from 1"),
        (["--learning-rates", "0.1,x"], "learning_rates takes numbers between 0 and 1, got 'x'"),
        (["--learning-rates", "7"], "learning_rates takes numbers between 0 and 1"),
        (["--learning-rates", "nan"], "learning_rates takes numbers between 0 and 1"),
        (["--id-dropout", "1"], "id_dropout takes numbers from 0 to 0.999"),
        (["--timeout", "0"], "timeout_s takes numbers between 0 and"),
        (["--timeout", "nan"], "timeout_s takes numbers between 0 and"),
        (["--device", "tpu"], "unknown value 'tpu' for device"),
        (["--mixers", "none", "--baselines", "none", "--device", "cpu", "--list"], "nothing to rank with"),
        (["--resume"], "--resume needs --out"),
        (["--dataset", "hm"], "hm must be supplied by you: articles.csv, customers.csv"),
        (["--dataset", "movielens-100k"], "get it with: python -m bench.datasets fetch movielens-100k"),
        (["--dataset", "hm", "--data", "."], "does not hold hm: articles.csv, customers.csv"),
        (["--data", "."], "--data needs --dataset NAME"),
        (["--dataset", "hm,coupon", "--data", "."], "--data is the folder of one data set"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.setenv("FTMAMBA_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert quality.main(arguments) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_settings_do_not_continue_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {"gpus": [], "cpu": {"model": "Some CPU"}, "torch": {"version": "2.9"}, "threads": {"torch": 1}}
    monkeypatch.setattr(environment_probe, "probe", lambda **_: machine)
    spec = plan_of(preset="quick").to_dict()
    (tmp_path / "run.json").write_text(json.dumps({"schema": SCHEMA, "spec": spec, "machine": machine}))
    assert quality.main(["--resume", "--out", str(tmp_path), "--steps", "7"]) == 2
    assert "was begun with steps 300, not 7" in capsys.readouterr().err


def plan_of(preset: str = "quality", **changes: Any) -> Plan:
    return Plan({**presets.load(preset), "device": "cpu", **changes}).resolved("cpu")


def test_cells_hold_nothing_that_changes_nothing() -> None:
    """A baseline is the same cell whatever the towers are; a softmax cell whatever the negatives."""
    losses = ("softmax", "mse")
    one, other = (plan_of(losses=losses, **change).cells() for change in ({}, {"negatives": 3, "timeout_s": 9.0}))
    same = {cell.id for cell in one} & {cell.id for cell in other}
    assert same == {cell.id for cell in one if cell.get("loss") in (None, "softmax")}
    assert [(cell.baseline, cell.seed) for cell in one if "baseline" in cell] == [
        ("random", 0), ("random", 1), ("random", 2), ("popularity", 0), ("recent-popularity", 0), ("itemknn", 0),
        ("ease", 0), ("ials", 0), ("ials", 1), ("ials", 2),
    ]  # fmt: skip


def test_match_params_widens_attention_only() -> None:
    cells = plan_of(match="params").cells()
    d_ffn = {cell.mixer: cell.params.get("d_ffn") for cell in cells if "mixer" in cell}
    assert d_ffn["mamba"] is None
    assert d_ffn["attention"]


def test_axes_of_a_sweep_are_axes_here_too() -> None:
    cells = plan_of(mixers=["mamba:d_state=4", "attention"], layers=[1, 2], batch_sizes=[8], seeds=[0]).cells()
    found = {
        (cell.mixer, cell.params.get("d_state"), cell.n_layers, cell.batch_size) for cell in cells if "mixer" in cell
    }
    assert found == {("mamba", 4, 1, 8), ("mamba", 4, 2, 8), ("attention", None, 1, 8), ("attention", None, 2, 8)}


@pytest.mark.parametrize("value", [None, [[1]], [None], {}, "x", True, [{}]], ids=repr)
def test_settings_of_any_kind_make_a_plan_or_a_plan_error(value: object) -> None:
    for name in presets.load("quality"):
        with contextlib.suppress(PlanError, DataError):  # a message for people; anything else is a traceback
            plan_of(**{name: value}).cells()
