"""Time of one tower's step: ``pytest --benchmark-only tests/perf/test_models.py``. Grouped by task and length."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.plan.cell import Cell
from bench.plan.tower import tower_cost
from bench.run.measure import build
from bench.run.probes import memory
from ftmamba import mixers


@pytest.mark.parametrize("n_tokens", [32, 100, 1000])
@pytest.mark.parametrize("mixer", ["mamba", "attention"])
@pytest.mark.parametrize("task", ["forward", "train_step"])
def test_tower(benchmark: BenchmarkFixture, task: str, mixer: str, n_tokens: int) -> None:
    backend = mixers.find(mixer).backends.resolve("auto", "cpu")
    cell = Cell(task=task, mixer=mixer, backend=backend, n_tokens=n_tokens, batch_size=8, n_layers=2, d_model=64)
    step = build(cell)
    step()  # compiled kernels and work space come into being here, not in the memory pass
    _, reading = memory.peak_of(step, cell.device)
    cost = tower_cost(cell)
    assert cost is not None
    benchmark.group = f"{task}, L={n_tokens}"
    benchmark.extra_info.update(
        n_tokens=n_tokens,
        batch_size=cell.batch_size,
        mixer=mixer,
        backend=backend,
        peak_memory_bytes=reading.values["peak_memory_bytes"],
        flops=cost.flops,
        min_bytes=cost.min_bytes,
    )
    benchmark.pedantic(step, rounds=10, iterations=1, warmup_rounds=1)
