"""Records whose truth is known, because the cost of every cell is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bench.plan.cell import Cell
from bench.records.record import Record

LENGTHS = (100, 300, 1000, 3000, 10000)
BACKENDS = {"mamba": "numba", "attention": "sdpa"}


def planted_records(
    costs: dict[str, Callable[[float], float]],
    *,
    memory: dict[str, Callable[[float], float]] | None = None,
    lengths: Sequence[int] = LENGTHS,
    rounds: int = 3,
    n_samples: int = 10,
    between: float = 0.0,
    within: float = 0.0,
    seed: int = 0,
    run: str = "planted",
    **fields: Any,
) -> list[Record]:
    """Samples of seconds with median ``costs[mixer](L)``.

    Args:
        between, within: standard deviations on the log scale, between rounds and inside one.
        fields: of every cell.
    """
    rng = np.random.default_rng(seed)
    settings = {"task": "forward", "batch_size": 8, "n_layers": 2, "d_model": 64, **fields}
    records = []
    for mixer, cost in costs.items():
        for n in lengths:
            cell = Cell(mixer=mixer, backend=BACKENDS.get(mixer, "reference"), n_tokens=n, **settings)
            for round_ in range(rounds):
                noise = rng.normal(0, between) + rng.normal(0, within, n_samples)
                values = {"peak_memory_bytes": round(memory[mixer](n))} if memory else {}
                samples = {"wall_s": list(cost(n) * np.exp(noise))}
                records.append(
                    Record(
                        run=run,
                        cell_id=cell.id,
                        round=round_,
                        cell=dict(cell),
                        status="ok",
                        samples=samples,
                        values=values,
                        notes={"verify": "off the float64 reference by 1e-7"},
                    )
                )
    return records


def without_number(records: list[Record], status: str, limit: str = "", **where: Any) -> list[Record]:
    """The same records, but cells whose fields match ``where`` gave no number."""
    return [
        Record(
            run=record.run, cell_id=record.cell_id, round=record.round, cell=record.cell, status=status,
            reason=f"planted {status}", notes={"censored_by": limit} if limit else {},
        )
        if all(record.cell[name] == value for name, value in where.items())
        else record
        for record in records
    ]  # fmt: skip


@pytest.fixture(name="planted_records", scope="session")
def _planted_records() -> Callable[..., list[Record]]:
    return planted_records


@pytest.fixture(name="without_number", scope="session")
def _without_number() -> Callable[..., list[Record]]:
    return without_number
