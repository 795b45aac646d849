"""The command as people meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bench.profile
from bench import cli, command
from bench.records.store import load_run
from bench.run import environment

FACTS = {"gpus": [], "torch": {"cuda": None, "version": "0"}, "threads": {"torch": 1}}
SMALL = ("--mixer", "attention", "--length", "12", "--layers", "1", "--d-model", "16", "--budget", "0.05",
         "--threads", "1", "--device", "cpu")  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--mixer lstm", "unknown mixer 'lstm'; choose from mamba, attention"),
        ("--backend cudnn", "unknown backend 'cudnn'; choose for mamba: auto"),
        ("--task fly", "'fly' for profiled; choose from forward, train_step"),
        ("--length 1", "a table has at least 2 tokens"),
        ("--lengths 10,,20", "empty place between its commas"),
        ("--device cuda", "device cuda is not usable: this build of torch has no CUDA"),
        ("--content-length 1", "content_length takes 0 for one tower"),
        ("--budget 0", "budget_s takes numbers between 0 and"),
        ("--d-model 12 --mixer attention --heads own", "d_model 12 is not a multiple of n_heads 8"),
        ("--execution compile", "No such option"),
        ("--out /dev/null/x", "cannot write to /dev/null/x"),
        ("surplus", "unexpected extra argument"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    argv: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "probe", lambda **_: FACTS)
    monkeypatch.chdir(tmp_path)
    assert bench.profile.main(argv.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message.lower() in printed.err.lower()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "probe", lambda **_: FACTS)
    (tmp_path / "run.json").write_text("{}")
    assert bench.profile.main([*SMALL, "--out", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "run.json").read_text() == "{}"


def run(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "bench.profile", *SMALL, *argv]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A profile of one small cell, from end to end."""
    folder = tmp_path_factory.mktemp("profile")
    return folder, run(folder, "--out", "results/one", "--content-length", "5")


def test_a_profile_from_end_to_end(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    root, done = finished
    assert done.returncode == 0, done.stderr
    assert "[1/1] profile-train_step-attention" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    for word in ("tokenizer", "attention", "user tower", "content tower", "scoring", "optimizer", "step", "unmarked"):
        assert word in done.stdout
    folder = root / "results" / "one"
    (record,) = load_run(folder).records
    assert record.status == "ok"
    assert record.notes == {}
    assert json.loads((folder / "run.json").read_text())["spec"]["content_length"] == 5
    traces = sorted(path.name for path in (folder / "traces").iterdir())
    assert traces == [".gitignore", f"{record.cell_id}.json.gz"]
    assert "Where the time and the memory go" in (root / "reports" / "one.html").read_text()


def test_json_is_all_that_goes_to_standard_output(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.conclude(finished[0] / "results" / "one", command.show, as_json=True) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["status"] == "ok"
    phases = {name.split(":")[1].split("/")[0] for name in record["samples"] if name.startswith("region_s:")}
    assert phases == {"forward", "backward", "update"}


def test_a_cell_that_fails_is_told_and_quiet_leaves_standard_error_empty(tmp_path: Path) -> None:
    done = run(tmp_path, "--out", "results/one", "--timeout", "0.2", "--quiet")
    assert done.returncode == 1  # no cell has a number
    assert done.stderr == ""
    assert "timeout" in done.stdout
    assert "did not end within 0.2 s" in done.stdout
    (record,) = load_run(tmp_path / "results" / "one").records
    assert record.status == "timeout"


def test_the_parent_loads_no_torch() -> None:
    assert torch.__version__  # it is there to be loaded
    program = "import sys, bench.profile; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
