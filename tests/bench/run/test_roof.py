"""Rates of the machine."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

import pytest
import torch

from bench.run import roof
from bench.run.probes import Reading
from bench.run.roof import numba_exp

FIXED_POINT = 0.6411857445  # of x = 2**-x, which exponentials taken over and over must reach


@pytest.mark.usefixtures("naps")
def test_rates_are_work_over_the_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.cycle((0.5, 0.25, 1.0))
    monkeypatch.setattr(torch, "mm", lambda a, b, out: time.sleep(next(seconds)))
    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, source: time.sleep(source.nbytes / 2**20))
    monkeypatch.setattr(numba_exp, "work", lambda: (lambda: time.sleep(2.0), 10))
    found = roof.measure("cpu", torch.float32)
    assert found == Reading({
        "roof_flops_per_s": 2 * 1024**3 / 0.25, "roof_exps_per_s": 5.0,
        **{f"roof_bytes_per_s:{n_bytes}": 2.0**21 for n_bytes in (2**20, 2**24, 2**28)},  # read and written
    })  # fmt: skip


def test_the_cpu_s_exponentials_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    outs: list[torch.Tensor] = []
    monkeypatch.setattr(numba_exp, "get_threads", lambda: 1)
    monkeypatch.setattr(numba_exp.torch, "empty", lambda *size: outs.append(torch.zeros(*size)) or outs[-1])
    work, n_exps = numba_exp.work()
    work()
    assert torch.allclose(outs[0], torch.full((16,), 4 * FIXED_POINT**2), atol=1e-5)
    assert n_exps == 4096 * 2 * 64


def test_the_gpu_s_exponentials_under_triton_s_interpreter() -> None:
    pytest.importorskip("triton")
    program = (
        "from bench.run.roof import triton_exp as t; import torch; outs = [];"
        "empty = torch.empty; t.torch.empty = lambda *a, **k: outs.append(empty(*a, **k)) or outs[-1];"
        "work, n = t.work('cpu', 2, 64); work();"
        f"assert n == 2 * 64 * 1024; assert torch.allclose(outs[0], torch.tensor({FIXED_POINT}), atol=1e-5), outs"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_there_is_a_reason_and_the_other_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "BUDGET_S", 0.0)
    monkeypatch.setitem(roof.EXP, "cpu", "not_there")
    found = roof.measure("cpu", torch.float32)
    assert found.values["roof_exps_per_s"] is None
    assert "No module named" in found.notes["roof_exps_per_s"]
    assert found.values["roof_flops_per_s"]


def test_the_best_of_two_measurements() -> None:
    first, second = Reading({"a": 1.0, "b": 5.0, "c": None}, {"c": "no"}), Reading({"a": 2.0, "b": 4.0, "c": None})
    found = roof.highest(first, second)
    assert found.values == {"a": 2.0, "b": 5.0, "c": None}
    assert found.notes == {"c": "no"}
