"""`python -m bench.campaign` without a GPU: what it refuses, and a rehearsal of its parts, cut off and continued."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.campaign import PARTS, is_complete, main
from bench.records.store import load_run

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = not Path("/dev/nvidiactl").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--parts", "sweep,speed"], "there is no part 'speed'; choose from correctness, kernels"),
        (["--seconds", "0"], "--seconds must be positive"),
        pytest.param([], "cuda", marks=pytest.mark.skipif(not NO_GPU, reason="there is a GPU")),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "run"), *arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert expected in told
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not NO_GPU, reason="a rehearsal is for machines without a GPU")
def test_a_rehearsal_goes_on_where_its_time_was_up(tmp_path: Path) -> None:
    def rehearse(parts: str, seconds: str) -> str:
        arguments = ("--rehearse", "--parts", parts, "--seconds", seconds, "--out", "small")
        done = subprocess.run(
            [sys.executable, "-m", "bench.campaign", *arguments], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "time is up" in rehearse("grid", "0.01")
    told = rehearse("sweep,quality,profiles,grid", "3000")
    assert told.count("complete") == 4
    records = {name: load_run(tmp_path / "small" / name).records for name in ("sweep", "quality", "profiles", "grid")}
    assert all(record.status == "ok" for each in records.values() for record in each)
    assert {record.cell["protocol"] for record in records["quality"]} == {"paper"}
    assert (tmp_path / "reports" / "small.html").exists()
    before = {name: len(each) for name, each in records.items()}
    rehearse("sweep,quality", "3000")
    assert {name: len(load_run(tmp_path / "small" / name).records) for name in before} == before


def test_the_first_parts_are_those_of_the_kernel_check(tmp_path: Path) -> None:
    from bench.plan.kernels import PARTS as CHECKS

    assert tuple(part.name for part in PARTS)[: len(CHECKS)] == CHECKS
    assert not is_complete(tmp_path)
