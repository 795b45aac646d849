"""Sentences and tables say what the numbers carry, and no more."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from bench.analysis.cells import summarise_cells
from bench.analysis.peers import ratio
from bench.records.store import Run
from bench.render import svg, words
from bench.render.findings import Findings
from bench.render.page import sections

COSTS = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}
RATES = {"roof_flops_per_s": 1e11, "roof_exps_per_s": 1e9, "roof_bytes_per_s:1000000": 1e10}
META = {"machine": {"roof": {"float32": RATES}}}
MEMORY = {"mamba": lambda n: 1e5 + 2000 * n, "attention": lambda n: 1e5 + 900 * n}


def built(records: list[Any]) -> dict[str, Any]:
    return {section.name: section for section in sections(Findings.of([Run("r", {}, records)]))}


def said(section: Any) -> str:
    told = []
    for block in section.blocks:
        told += [getattr(block, "text", ""), *(getattr(block, "items", ()) if block.template == "bullets" else ())]
        told += [cell.text for row in getattr(block, "rows", ()) for cell in row]
    return " | ".join(told)


def test_a_single_length_has_its_ratio_with_an_interval(planted_records: Any) -> None:
    found = built(planted_records(COSTS, memory=MEMORY, lengths=(1000,), between=0.02))
    told = said(found["answer"])
    assert re.search(r"Forward: mamba is faster than attention, by \S+x \(95 %: \S+x to \S+x\) at L = 1,000\.", told)
    assert re.search(r"time \| forward \| ● mamba 2\.\dx \| [12]\.\d+x to 2\.\d+x", told)
    assert "L*" not in told
    assert "grows" not in told
    records = planted_records(COSTS, lengths=(1000,), between=0.02)
    (answer, *_) = sections(Findings.of([Run("r", META, records)]))
    assert re.search(
        r"at the limit of this machine mamba would be faster .*, by \S+x at L = 1,000, where", said(answer)
    )


def test_what_rounds_to_one_has_no_winner(planted_records: Any) -> None:
    """The interval excludes 1 by far, and the factor is written 1.00x."""
    costs = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1.004e-6 * n}
    told = said(built(planted_records(costs, between=1e-5))["answer"])
    assert "no clear difference between" in told
    assert "1.00x" not in told
    apart = {**costs, "attention": lambda n: 1.02e-6 * n}
    assert "mamba is faster than attention" in said(built(planted_records(apart, between=1e-5))["answer"])


def test_a_table_without_crossings_has_no_column_of_them(planted_records: Any) -> None:
    apart = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 3e-6 * n}
    for costs, names in ((apart, []), (COSTS, ["L*", "95 % interval"])):
        (table,) = [b for b in built(planted_records(costs, between=0.01))["crossover"].blocks if b.template == "table"]
        columns = [column.name for column in table.columns]
        assert [name for name in columns if name in ("L*", "95 % interval")] == names
        assert all(
            set(column) != {words.NONE} for column in zip(*[[c.text for c in r] for r in table.rows], strict=True)
        )


def test_medians_and_exponents_of_disturbed_rounds_are_marked(planted_records: Any) -> None:
    records = [
        replace(r, env={"other_busy_cores": 1.0 if r.cell["mixer"] == "attention" and r.round == 0 else 0.0})
        for r in planted_records(COSTS, memory=MEMORY, between=0.01)
    ]
    found = built(records)
    rows = [row for block in found["cells"].blocks for row in getattr(block, "rows", ())]
    assert {row[1].text: words.MARK in row[3].text for row in rows} == {"mamba/numba": False, "attention/sdpa": True}
    assert "1 of 3 rounds ran beside other work" in next(r[3].hint for r in rows if r[1].text == "attention/sdpa")
    assert not any(words.MARK in cell.text for row in rows for cell in row if "iB" in cell.text)
    grows = next(line for line in said(found["answer"]).split(" | ") if "grows as" in line)
    assert re.search(rf"\) {words.MARK} with attention and L\^\S+ \([^)]*\) with mamba", grows)
    assert f"is marked {words.MARK}" in said(found["answer"])


@pytest.mark.parametrize("paired", [False, True])
def test_a_disturbed_cell_has_no_multiple_unless_it_took_turns(planted_records: Any, paired: bool) -> None:
    records = planted_records(COSTS, memory=MEMORY, lengths=(1000,), between=0.01)
    busy = [replace(r, env={"other_busy_cores": 1.0}) for r in records]
    if paired:
        turns = {"samples": {"wall_s": [2e-3], "paired_ratio": [2.0] * 8}, "notes": {"paired_with": "mamba/numba"}}
        busy = [replace(r, **turns) if r.cell["mixer"] == "attention" else r for r in busy]
    attention, mamba = summarise_cells(busy)
    found = ratio(mamba, attention, "wall_s")
    assert (found is None) == (not paired)
    assert ratio(mamba, attention, "peak_memory_bytes") is not None


def test_a_terminal_draws_nothing(planted_records: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("bench.render.plots.new_axes", lambda *a, **k: drawn.append(a))
    records = planted_records(COSTS, memory=MEMORY, between=0.02)
    records += planted_records({m: lambda n, c=c: 3 * c(n) for m, c in COSTS.items()}, memory=MEMORY, n_layers=6)
    assert sections(Findings.of([Run("r", {}, records)]), terminal=True)
    assert drawn == []


def test_without_an_undisturbed_pair_there_is_no_verdict(planted_records: Any) -> None:
    busy = [replace(r, env={"other_busy_cores": 1.0}) for r in planted_records(COSTS, memory=MEMORY, between=0.02)]
    told = said(built(busy)["answer"])
    assert "No verdict in time" in told
    assert "faster" not in told


def test_every_line_of_a_picture_is_in_its_legend(planted_records: Any) -> None:
    findings = Findings.of([Run("r", META, planted_records(COSTS, between=0.02))])
    (section,) = [each for each in sections(findings) if each.name == "scaling"]
    figure = section.blocks[0].figures[0]
    assert "limit, in the mixer's colour" in svg.inline(figure, "")


def test_twelve_mixers_have_a_line_each(planted_records: Any) -> None:
    names = ("mamba", "attention", "bimamba", "fnet", "gated_deltanet", "hstu", "linear_attention", "linformer",
             "longformer", "mamba2", "mlp", "performer")  # fmt: skip
    costs = {name: lambda n, i=i: (1 + i) * 1e-6 * n for i, name in enumerate(names)}
    records = planted_records(costs, memory=costs, between=0.01)
    records += planted_records(costs, memory=costs, between=0.01, batch_size=64)
    found = built(records)
    told = [line for line in said(found["answer"]).split(" | ") if "mamba is fastest at L = 100 to 10,000" in line]
    assert len(told) == 1
    (table,) = [block for block in found["answer"].blocks if getattr(block, "name", "") == "mixers"]
    assert len(table.rows) == 12
    assert [row[0].text.split()[1].partition("/")[0] for row in table.rows] == list(names)
    assert len({row[0].tint for row in table.rows}) == 12
    maps = [block for block in found["winners"].blocks if block.template == "table"]
    assert all(len(block.rows) == 2 for block in maps)  # one for each batch, not for each pair
    assert len(found["crossover"].blocks[0].drawings) == 1
