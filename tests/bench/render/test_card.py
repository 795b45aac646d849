"""The card says what was planted: the winner, the factor of both towers together, and what would change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.towers import Towers
from bench.records.record import Record
from bench.records.store import Run
from bench.render.blocks import Bullets, Prose
from bench.render.findings import Findings
from bench.render.page import render, sections
from bench.render.sections import card

COSTS: dict[str, Callable[[float], float]] = {"mamba": lambda n: 1e-4 * n, "attention": lambda n: 1e-6 * n * n}
ARGV = ["bench.decide", "--data", "csv:my tables", "--budget=5", "--layers", "3", "--out", "results/x"]


def run_of(records: list[Record], **towers: int) -> Run:
    sizes = Towers(**{"user": 1000, "content": 10, "batch_size": 8, "n_layers": 2, **towers})
    meta = {"towers": sizes.to_dict(), "argv": ARGV, "budget_min": 5.0, "spec": {"d_model": [64]}}
    return Run("planted", meta, records, folder=Path("results/planted"))


def told(run: Run) -> str:
    found = card.build(Findings.of([run]))
    assert found is not None
    lines = [block.items if isinstance(block, Bullets) else [block.text] for block in found.blocks
             if isinstance(block, Bullets | Prose)]  # fmt: skip
    return "\n".join(line for group in lines for line in group)


def both(planted_records: Any, **fields: Any) -> list[Record]:
    return [
        record
        for task in ("train_step", "forward")
        for record in planted_records(COSTS, memory=COSTS_IN_BYTES, lengths=(10, 20, 300, 1000), task=task, **fields)
    ]


COSTS_IN_BYTES: dict[str, Callable[[float], float]] = {"mamba": lambda n: 3000 * n, "attention": lambda n: 1000 * n}


def test_the_winner_is_that_of_both_towers_together(planted_records: Any) -> None:
    """0.1 + 0.001 s against 1 + 0.0001 s; memory three times; L* = 100; the batch of 1 gives the same order."""
    aside = planted_records(COSTS, lengths=(1000,), task="train_step", batch_size=1)
    text = told(run_of([*both(planted_records), *aside]))
    assert text.startswith("Take mamba: it trains fastest, and how well they rank is not known.")
    assert "A training step of both towers: 101 ms with mamba; attention takes 9.9x" in text
    assert "Peak memory of a training step of both towers: 986 KiB with attention; mamba takes 3.0x" in text
    assert "L of one tower, training: attention is faster up to L* = 100" in text
    assert "One round only" not in text
    assert "With B 1, training: mamba is faster than attention, by 10" in text
    assert "python -m bench.decide --data 'csv:my tables' --layers 3 --budget 20" in text


def test_short_towers_turn_the_answer(planted_records: Any) -> None:
    text = told(run_of(both(planted_records, rounds=1), user=10, content=20))
    assert "One round only" in text
    assert text.startswith("Take attention: it trains fastest")
    assert "A training step of both towers: 500 µs with attention; mamba takes 6.0x" in text


def test_what_gave_no_number_gives_no_decision(planted_records: Any) -> None:
    records = [
        record if record.cell["mixer"] == "mamba" or record.cell["n_tokens"] < 1000 else replace(
            record, status="oom", reason="planted oom", samples={}, values={})
        for record in both(planted_records)
    ]  # fmt: skip
    text = told(run_of(records))
    assert text.startswith("No decision: mamba alone gave a training time of both towers")
    assert "attention/sdpa, L 1,000" in text
    assert "oom, planted oom" in text


def test_the_page_opens_with_the_card_and_other_pages_have_none(planted_records: Any) -> None:
    run = run_of(both(planted_records))
    assert [section.name for section in sections(Findings.of([run]))][:2] == ["card", "answer"]
    assert "Take mamba: it trains fastest" in render(Findings.of([run]))
    assert card.build(Findings.of([replace(run, meta={})])) is None


@pytest.mark.parametrize("argv", [None, [], ["bench.decide", "--budget", "3"]])
def test_any_command_line_becomes_one_with_more_time(planted_records: Any, argv: list[str] | None) -> None:
    run = run_of(both(planted_records))
    text = told(replace(run, meta={**run.meta, "argv": argv}))
    assert text.rstrip().endswith("--budget 20")
    assert "--budget 3" not in text
