"""`python -m bench.gpu_check` without a GPU: what it refuses, what it would run, and a rehearsal of all of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu_check import main
from bench.plan.kernels import PARTS, cells

NO_GPU = not Path("/dev/nvidiactl").exists()


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "device cuda is not usable" in told
    assert not (tmp_path / "run").exists()


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--parts", "correctness,speed"]) == 2
    assert "there is no part 'speed'" in capsys.readouterr().err
    assert main(["--resume"]) == 2
    assert "--resume needs --out" in capsys.readouterr().err


@pytest.mark.parametrize("part", PARTS)
def test_every_cell_has_its_own_id(part: str) -> None:
    ids = [cell.id for cell in cells(part)]
    assert len(set(ids)) == len(ids) > 0


def test_every_kernel_cell_of_ours_has_a_peer_of_the_same_size() -> None:
    timed = [cell for cell in cells("kernels") if cell.task == "time" and cell.op != "roof" and cell.readout == "all"]
    ours = {(c.op, c.n_tokens, c.batch_size, c.width, c.dtype, c.direction) for c in timed if c.backend == "triton"}
    peers = {(c.op, c.n_tokens, c.batch_size, c.width, c.dtype, c.direction) for c in timed if c.backend == "mamba_ssm"}
    assert ours == peers


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(not NO_GPU, reason="a rehearsal is for machines without a GPU")
def test_rehearsal_stops_in_time_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "rehearsal"

    def check(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.gpu_check", "--rehearse", "--quiet", "--out", str(out), *flags]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=1200)

    first = check("--parts", "correctness", "--seconds", "0")
    assert first.returncode == 0, first.stderr
    assert "time is up, 12 cells left" in first.stderr
    second = check("--resume", "--json")
    assert second.returncode == 0, second.stderr
    records = json.loads(second.stdout)
    wanted = {cell.id for part in PARTS for cell in cells(part, rehearse=True)}
    assert {record["cell_id"] for record in records} == wanted
    assert {record["status"] for record in records} == {"ok"}
    checked = [
        record["values"]
        for record in records
        if record["cell"]["op"] == "selective_scan" and record["cell"]["task"] == "correctness"
    ]
    assert checked
    for values in checked:
        assert values["error:d_A"] <= values["allowed:d_A"]
    scan = next(r for r in records if r["cell"]["task"] == "time" and r["cell"]["backend"] == "triton")
    assert scan["samples"]["wall_s"]
    assert scan["values"]["min_bytes"] > 0
