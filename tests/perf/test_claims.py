"""Promises in seconds on two cores: ranking a large catalogue (5 s), and the report of 1,000 cells (10 s)."""

from __future__ import annotations

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.metrics.ranking import Positives
from bench.plan.cell import Cell
from bench.records.record import Record
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render
from bench.training.ranking import inner_product, top_items

LENGTHS = tuple(100 * 2**i for i in range(10))


def test_ranking_1000_users_by_100000_items(benchmark: BenchmarkFixture) -> None:
    n_users, n_items, width = 1000, 100_000, 128
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, width, generator=generator) for n in (n_users, n_items))
    none = np.array([], dtype=np.int64)
    known = Positives.of(none, none, n_users, n_items)
    benchmark.extra_info["promise_s"] = 5
    benchmark.pedantic(
        top_items, (inner_product(users, items), np.arange(n_users), known, 10), rounds=5, warmup_rounds=1
    )


def test_report_of_1000_cells(benchmark: BenchmarkFixture) -> None:
    exponents = {"mamba": ("numba", 1.0), "attention": ("sdpa", 2.0)}
    random = np.random.default_rng(0)
    records = []
    for mixer, (backend, exponent) in exponents.items():
        for task in ("forward", "train_step"):
            for batch_size in (1, 2, 4, 8, 16):
                for n_layers in (1, 2, 4, 8, 12):
                    for n_tokens in LENGTHS:
                        cell = Cell(
                            task=task, mixer=mixer, backend=backend, n_tokens=n_tokens, batch_size=batch_size,
                            n_layers=n_layers, d_model=64,
                        )  # fmt: skip
                        seconds = 1e-8 * n_tokens**exponent * np.exp(random.normal(0, 0.02, (2, 20)))
                        records += [
                            Record(
                                run="many", cell_id=cell.id, round=round_, cell=dict(cell), status="ok",
                                samples={"wall_s": each.tolist()}, values={"peak_memory_bytes": 1000 * n_tokens},
                            )
                            for round_, each in enumerate(seconds)
                        ]  # fmt: skip
    meta = {"argv": ["bench.sweep"], "machine": {}}
    benchmark.extra_info["promise_s"] = 10
    benchmark.pedantic(lambda: render(Findings.of([Run("many", meta, records)])), rounds=3, warmup_rounds=1)
