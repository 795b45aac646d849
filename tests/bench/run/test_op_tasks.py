"""Operators as cells of a plan, without a GPU: ours and peers at the same sizes, and a rehearsal in small."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.plan import presets
from bench.plan.cell import fingerprint
from bench.plan.plan import Plan
from bench.records.store import load_run
from bench.run.ops import wrong

ROOT = Path(__file__).resolve().parents[3]


def plan_of(preset: str) -> Plan:
    return Plan(presets.load(preset)).resolved("cuda")


def test_every_kernel_of_ours_has_a_peer_of_the_same_size() -> None:
    timed = [cell for cell in plan_of("gpu-ops").cells() if cell.op != "attention" and cell.readout == "all"]
    sizes = [
        {(c.op, c.n_tokens, c.batch_size, c.width, c.dtype, c.direction) for c in timed if c.backend == backend}
        for backend in ("triton", "mamba_ssm")
    ]
    assert sizes[0] == sizes[1] != set()


def test_parts_of_the_campaign_are_whole_curves_with_few_points() -> None:
    """A session that is cut off leaves curves behind, not holes: cells of one process differ in L alone."""
    parts = re.search(r"^GPU_PARTS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert parts is not None
    assert parts[1].split()[0] == "gpu-smoke"
    assert set(parts[1].split()) == {name for name in presets.names() if name.startswith("gpu-")}
    for preset in ("gpu-sweep", "gpu-eager", "gpu-float32"):
        plan = plan_of(preset)
        cells = plan.cells()
        n = plan.cells_per_process
        for first in range(0, len(cells), n):
            curve = cells[first : first + n]
            assert [cell.n_tokens for cell in curve] == list(plan.lengths)
            assert len({fingerprint({**cell, "n_tokens": 0}) for cell in curve}) == 1
    kernels = {(cell.mixer, cell.backend, cell.dtype) for cell in plan_of("gpu-sweep").cells()}
    assert {backend for mixer, backend, _ in kernels if mixer == "attention"} == {"sdpa_flash", "sdpa_cudnn"}
    assert ("mamba_ssm", "fused", "bfloat16") in kernels


def test_an_operator_has_the_axes_that_are_its_own() -> None:
    cells = plan_of("gpu-check").cells()
    assert {cell.d_conv for cell in cells if cell.op == "causal_conv"} == {4, 16}
    assert {cell.d_state for cell in cells if cell.op == "causal_conv"} == {16}
    assert {(cell.readout, cell.d_state, cell.initial_state) for cell in cells if cell.op == "selective_scan"} == {
        (readout, d_state, given) for readout in ("all", "last") for d_state in (4, 16, 32) for given in (True, False)
    }


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"error:y": 1.0, "allowed:y": 1.0}, ""),
        ({"error:y": 1.1, "allowed:y": 1.0}, "y is off by 1.1, allowed 1"),
        ({"error:y": float("nan"), "allowed:y": 1.0}, "y is off by nan, allowed 1"),
        ({"error:y": 0.0, "allowed:y": 1.0, "error:d_x": 3.0, "allowed:d_x": 2.0}, "d_x is off by 3, allowed 2"),
    ],
)
def test_what_is_off_by_more_than_is_allowed_is_told(values: dict[str, float], told: str) -> None:
    assert wrong(dict(values)) == told


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a rehearsal is for machines without a GPU")
def test_a_rehearsal_of_the_gpu_parts_goes_on_where_its_time_was_up(tmp_path: Path) -> None:
    """Through the Makefile's target, with Triton's interpreter on the CPU."""
    flags = "--device cpu --execution eager --dtype float32 --lengths 5 --batch-sizes 1 --widths 8 --budget 0.01"
    command = ["make", "--silent", "-C", str(ROOT), "--assume-old=.venv/.installed", "gpu"]
    command += [f"BIN={Path(sys.executable).parent}", f"GPU_OUT={tmp_path}"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}

    def rehearse(*settings: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*command, *settings], capture_output=True, text=True, env=environment, check=False)
        assert "Traceback" not in done.stderr
        return done

    own = f"GPU_FLAGS={flags} --backends triton,reference --d-state 4"
    first = rehearse("GPU_PARTS=gpu-check", own, "GPU_SECONDS=0.001")
    assert "time is up" in first.stderr
    second = rehearse("GPU_PARTS=gpu-check", own)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "gpu-check" / "report.html").is_file()
    assert not (ROOT / "reports" / "gpu-check.html").exists()
    records = load_run(tmp_path / "gpu-check").records
    assert {record.status for record in records} == {"ok"}
    scans = [
        record for record in records if record.cell["op"] == "selective_scan" and record.cell["backend"] == "triton"
    ]
    assert len(scans) == 4
    assert all(record.values["error:d_A"] <= record.values["allowed:d_A"] for record in scans)
    timed = rehearse("GPU_PARTS=gpu-ops", f"{own} --ops selective_scan,causal_conv")
    assert timed.returncode == 0, timed.stderr
    ours = [each for each in load_run(tmp_path / "gpu-ops").records if each.cell["backend"] == "triton"]
    assert all(record.samples["wall_s"] and record.values["min_bytes"] > 0 for record in ours)
