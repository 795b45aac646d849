"""A real cell, really measured, on small sizes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, feature_spec, tower_cost
from bench.records.store import load_run
from bench.run import measure as measure_module
from bench.run import verify as verify_module
from bench.run.attempt import WORKER
from bench.run.child import run_child
from bench.run.measure import build, measure
from bench.run.optimizer import StandingAdamW
from bench.run.verify import WrongResultError, relative_error, verify
from bench.run.worker import attempt
from ftmamba.encoder import FTEncoder
from ftmamba.features import random_batch
from ftmamba.spec import EncoderSpec

ROOT = Path(__file__).resolve().parents[3]
CELL = Cell(task="train_step", mixer="attention", backend="sdpa", n_tokens=40, batch_size=3, n_layers=2, d_model=32)


def request(budget_s: float, *, verified: bool = True) -> dict[str, Any]:
    return {"settings": {"budget_s": budget_s}, "threads": 1, "verified": verified}


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(2)


@pytest.mark.parametrize("task", ["forward", "train_step"])
@pytest.mark.parametrize(("mixer", "backend"), [("attention", "sdpa"), ("mamba", "reference")])
def test_a_cell_gives_times_and_memory(task: str, mixer: str, backend: str) -> None:
    found = measure(CELL.but(task=task, mixer=mixer, backend=backend), request(0.05, verified=False))
    assert len(found["samples"]["wall_s"]) >= 2
    assert all(seconds > 0 for seconds in found["samples"]["wall_s"])
    assert sum(found["samples"]["wall_s"]) <= found["measured_s"]
    assert found["values"]["baseline_memory_bytes"]
    assert found["env"]["threads"] == 1
    assert found["notes"]["wall_s"]
    assert found["notes"]["verify"].startswith("off the float64 reference by ")


def test_the_training_step_is_the_papers_loss_and_a_whole_step_of_adamw() -> None:
    step = build(CELL)
    torch.manual_seed(CELL.seed)
    features = feature_spec(CELL.n_tokens)
    tower = FTEncoder(encoder_spec(CELL), features)
    batch = random_batch(features, CELL.batch_size, torch.Generator().manual_seed(CELL.seed))
    other = torch.randn(CELL.batch_size, CELL.d_model)
    loss = F.mse_loss((tower(batch) * other).sum(-1), torch.tensor([0.0, 1.0, 0.0]))
    first, second = step(), step()
    torch.testing.assert_close(first, loss.detach())
    torch.testing.assert_close(second, first)  # the tower stands still


def test_standing_adamw_does_all_of_adamws_arithmetic() -> None:
    def gradients(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,))]

    ours = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(5))]
    theirs = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(5))]
    standing, adamw = StandingAdamW(ours), torch.optim.AdamW(theirs, lr=0.0)
    for seed in range(3):
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients(seed), strict=True):
                parameter.grad = gradient
        standing.step()
        adamw.step()
    assert all(parameter.grad is None for parameter in ours)
    for parameter, mean, square in zip(theirs, standing._means, standing._squares, strict=True):
        torch.testing.assert_close(mean, adamw.state[parameter]["exp_avg"])
        torch.testing.assert_close(square, adamw.state[parameter]["exp_avg_sq"])
    torch.testing.assert_close(ours[0].detach(), torch.ones(3, 4))


def test_a_pair_is_timed_in_turn() -> None:
    found = measure(CELL.but(paired_with="attention/reference"), request(0.05))
    assert found["notes"]["paired_with"] == "attention/reference"
    ratios, ours, theirs = (found["samples"][name] for name in ("paired_ratio", "wall_s", "paired_wall_s"))
    assert len(ratios) >= 2
    assert min(ours) / max(theirs) <= min(ratios) <= max(ratios) <= max(ours) / min(theirs)


def test_autocast_keeps_float32_weights_and_multiplies_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[torch.dtype]] = {"factors": set(), "gradients": set()}
    linear = F.linear

    def watched(x: Tensor, *rest: Any) -> Tensor:
        y = linear(x, *rest)
        seen["factors"].add(y.dtype)
        return y

    monkeypatch.setattr(F, "linear", watched)
    monkeypatch.setattr(StandingAdamW, "step", lambda self: seen["gradients"].update(
        each.grad.dtype for each in self._parameters if each.grad is not None
    ))  # fmt: skip
    build(CELL.but(precision="autocast"))()
    assert seen == {"factors": {torch.bfloat16}, "gradients": {torch.float32}}
    monkeypatch.undo()
    assert "plain torch by 0.0" in verify(CELL.but(precision="autocast"))  # of bfloat16, not of float32
    assert "plain torch by 0.0" not in verify(CELL)


def test_precision_is_set_anew_for_each_cell() -> None:
    states = []
    for precision in ("tf32", "own"):
        build(CELL.but(precision=precision))
        states.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    assert states == [("high", True), ("highest", False)]


def test_equal_cells_do_the_same_work_whatever_the_backend() -> None:
    torch.testing.assert_close(build(CELL)(), build(CELL.but(backend="reference"))())


def test_peak_memory_of_attention_with_all_weights_in_memory() -> None:
    """The materialised weights of the first block dominate: n_heads * L * L floats, held at least twice at once."""
    cell = CELL.but(task="forward", backend="reference", n_tokens=900, batch_size=1)
    peak = measure(cell, request(0.01))["values"]["peak_memory_bytes"]
    weights = 8 * 900 * 900 * 4
    assert peak is not None
    assert 1.9 * weights < peak < 4.5 * weights
    assert peak >= 0.9 * (tower_cost(cell).peak_bytes - 4 * tower_cost(cell).params)


def test_torch_running_into_the_limit_of_memory_is_out_of_memory() -> None:
    cell = CELL.but(task="forward", backend="reference", n_tokens=8000, batch_size=1)  # two times 2 GB of weights
    asked = {**request(0.1), "cells": [{"cell": dict(cell)}], "memory_limit_bytes": 2**30, "cpus": [], "seconds": None}
    outcome = run_child(WORKER, asked, timeout_s=600)
    assert outcome.reply is not None
    assert outcome.reply["status"] == "oom"
    assert "can't allocate memory" in outcome.reply["reason"]


def test_a_result_that_is_not_finite_gets_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(cell: Cell) -> Callable[[], Tensor]:
        return lambda: torch.tensor([1.0, math.inf])

    monkeypatch.setattr(measure_module, "build", infinite)
    with pytest.raises(WrongResultError, match="not finite"):
        measure(CELL, request(0.01))


@pytest.mark.parametrize("task", ["forward", "train_step"])
@pytest.mark.parametrize("fault", [1e-3, math.nan])
def test_a_wrong_backend_gets_no_number(task: str, fault: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = verify_module.results

    def slightly_wrong(cell: Cell, dtype: torch.dtype, weights: dict[str, Tensor]) -> list[Tensor]:
        found = right(cell, dtype, weights)
        if cell.backend == "sdpa":
            found[-1] = found[-1] + fault * found[-1].abs().max().clamp(min=1e-6)
        return found

    cell = CELL.but(task=task)
    assert verify(cell).startswith("off the float64 reference by")
    monkeypatch.setattr(verify_module, "results", slightly_wrong)
    with pytest.raises(WrongResultError, match="backend sdpa is off by"):
        measure(cell, request(0.01, verified=False))


def test_the_error_is_relative_to_what_matters() -> None:
    truth = [torch.tensor([100.0, -1.0]), torch.tensor([1e-9])]
    assert relative_error([torch.tensor([100.0, -1.0]), torch.tensor([5e-9])], truth) < 1e-9
    assert relative_error([torch.tensor([101.0, -1.0]), torch.tensor([1e-9])], truth) == pytest.approx(0.01)
    assert math.isnan(relative_error([torch.tensor([math.nan, 0.0]), torch.tensor([1e-9])], truth))


@pytest.mark.parametrize(("mixer", "backend"), [("mambapy", "pscan"), ("hf_mamba", "sequential")])
def test_peers_are_held_against_our_reference(mixer: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = CELL.but(mixer=mixer, backend=backend, task="train_step", n_tokens=40)
    assert verify(cell).startswith("off the float64 reference by")

    def narrower(of: Cell) -> EncoderSpec:
        spec = encoder_spec(of)
        return replace(spec, mixer=replace(spec.mixer, d_conv=3)) if of.mixer == mixer else spec

    monkeypatch.setattr(verify_module, "encoder_spec", narrower)
    with pytest.raises(RuntimeError, match="size mismatch"):
        verify(cell)
    monkeypatch.undo()
    weights = verify_module.build(cell.but(mixer="mamba", backend="reference")).state_dict()
    slower_decay = {name: w + 0.1 if name.endswith("A_log") else w for name, w in weights.items()}
    right = verify_module.results
    monkeypatch.setattr(
        verify_module, "results",
        lambda c, d, w: right(c, d, slower_decay if c.mixer == mixer else weights),
    )  # fmt: skip
    with pytest.raises(WrongResultError, match=f"backend {backend} is off by"):
        verify(cell)


def test_a_compiled_tower_is_compiled_for_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(FTEncoder, "compile", lambda self, **options: compiled.append(options))
    verify(CELL.but(execution="compile"))
    assert compiled == [{"fullgraph": True}]


def test_a_peer_without_a_reference_is_not_compared() -> None:
    assert verify(CELL.but(mixer="torch_transformer", backend="torch")) == (
        "not compared: torch_transformer has no reference"
    )


def test_a_real_sweep_in_which_the_parent_never_loads_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from bench.sweep import main\n"
        "code = main(['--preset', 'smoke', '--device', 'cpu', '--lengths', '32', '--backends', 'reference,sdpa',\n"
        "    '--tasks', 'train_step', '--mixers', 'attention', '--budget', '0.02', '--out', 'run', '--quiet'])\n"
        "assert code == 0 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    records = load_run(tmp_path / "run").records
    assert [record.status for record in records] == ["ok"] * 2
    assert {record.cell["backend"] for record in records} == {"reference", "sdpa"}
    assert all(record.env["overhead_s"] < record.env["process_s"] for record in records)
    for record in records:
        assert 0 < record.values["import_s"] + record.values["first_call_s"] < record.env["process_s"]
        assert record.env["precision"] == {
            "float32_matmul": "highest", "tf32_cudnn": False, "flush_denormal": False, "autocast": [],
        }  # fmt: skip


def test_settings_of_precision_are_read_as_they_are() -> None:
    torch.set_flush_denormal(True)
    try:
        with torch.autocast("cpu"):
            told = measure_module.precision()
    finally:
        torch.set_flush_denormal(False)
    assert (told["flush_denormal"], told["autocast"]) == (True, ["cpu"])


def test_a_process_that_is_not_fresh_tells_of_no_first_call() -> None:
    reply = attempt(CELL.but(task="forward"), request(0.01))  # torch is here already
    assert reply["status"] == "ok"
    assert not {"import_s", "first_call_s"} & reply["values"].keys()
