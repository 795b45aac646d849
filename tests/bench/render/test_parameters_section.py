"""One mixer with several values of a parameter: planted ratios come out, over the usual value where it is there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.sections import parameters


def tables(section: Any) -> dict[str, list[list[str]]]:
    found = {}
    for block in section.blocks:
        if block.template == "table":
            found[block.name] = [[column.name for column in block.columns]]
            found[block.name] += [[cell.text for cell in row] for row in block.rows]
    return found


def planted(planted_records: Any, factors: dict[int, float], **fields: Any) -> list[Any]:
    return [
        record
        for heads, factor in factors.items()
        for record in planted_records(
            {"attention": lambda n, factor=factor: factor * 1e-6 * n}, memory={"attention": lambda n: 1000 * n},
            lengths=(100, 1000), between=0.01, params={"n_heads": heads}, **fields,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("heads", "base"), [((1, 2, 8, 16), 8), ((1, 2, 16), 1)])
def test_ratios_are_over_the_usual_value_or_the_smallest(planted_records: Any, heads: Any, base: int) -> None:
    records = planted(planted_records, {n: float(n) for n in heads})
    section = parameters.build(Findings.of([Run("r", {}, records)]))
    assert section is not None
    head, *rows = tables(section)["parameters-attention-wall_s"]
    others = [n for n in heads if n != base]
    assert head == ["task", "backend", "L", f"n_heads={base}", *(f"n_heads={n}" for n in others)]
    assert [row[2] for row in rows] == ["100", "1,000"]
    for row in rows:
        told = [float(text.rstrip("x")) for text in row[4:]]
        assert told == pytest.approx([n / base for n in others], rel=0.06)
    sentences = section.blocks[0].items
    assert len(sentences) == len(others)
    assert re.match(
        rf"attention: n_heads={others[0]} takes \S+x \(95 %: \S+x to \S+x\) the time of n_heads={base} in a forward "
        "pass at L = 1,000",
        sentences[0],
    )
    assert tables(section)["parameters-attention-peak_memory_bytes"][1][4] == "1.00x"


def test_one_value_alone_has_no_section(planted_records: Any) -> None:
    both = planted_records({"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-6 * n})
    assert parameters.build(Findings.of([Run("r", {}, both)])) is None
    elsewhere = planted(planted_records, {8: 1.0}) + planted(planted_records, {2: 1.0}, batch_size=64)
    assert parameters.build(Findings.of([Run("r", {}, elsewhere)])) is None
