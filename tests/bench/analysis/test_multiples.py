"""Ours beside its peers, from planted costs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bench.analysis.peers import find_peers, metrics_of, ratio
from bench.analysis.scaling import summarise
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render
from bench.render.terminal import print_run

COSTS = {"mamba": lambda n: 1e-6 * n, "mambapy": lambda n: 25e-6 * n, "attention": lambda n: 2e-9 * n * n}
MEMORY = {"mamba": lambda n: 1000 * n, "mambapy": lambda n: 8000 * n, "attention": lambda n: 3000 * n}


@pytest.fixture(name="records")
def _records(planted_records):
    return planted_records(COSTS, memory=MEMORY, lengths=(100, 1000), between=0.01)


def test_multiples_of_ours_by_hand(records) -> None:
    short, long = find_peers(summarise(records).cells)
    assert (short.ours.n_tokens, long.ours.n_tokens) == (100, 1000)
    found = {other.cell["mixer"]: ratio(long.ours, other, "wall_s") for other in long.others}
    assert found["mambapy"].value == pytest.approx(25, rel=0.05)
    assert found["mambapy"].low < 25 < found["mambapy"].high
    assert found["attention"].value == pytest.approx(2, rel=0.05)
    memory = [ratio(long.ours, other, "peak_memory_bytes").value for other in long.others]
    assert sorted(memory) == pytest.approx([3, 8])


def test_without_another_mamba_there_is_nothing_to_show(planted_records) -> None:
    two = {name: COSTS[name] for name in ("mamba", "attention")}
    assert find_peers(summarise(planted_records(two)).cells) == []


def test_turns_in_one_process_come_before_medians_of_several(records) -> None:
    turns = {"mambapy": [19.0, 20.0, 21.0]}
    paired = [
        replace(
            record,
            samples={**record.samples, "paired_ratio": turns[record.cell["mixer"]]},
            notes={"paired_with": "mamba/numba"},
        )
        if record.cell["mixer"] in turns
        else record
        for record in records
    ]
    short, _ = find_peers(summarise(paired).cells)
    found = {other.cell["mixer"]: ratio(short.ours, other, "wall_s").value for other in short.others}
    assert found["mambapy"] == pytest.approx(20)
    assert found["attention"] == pytest.approx(0.2, rel=0.05)


def test_runs_are_not_mixed(planted_records) -> None:
    ours = planted_records({"mamba": COSTS["mamba"]}, run="one")
    theirs = planted_records({"mambapy": COSTS["mambapy"]}, run="other")
    assert find_peers(summarise([*ours, *theirs]).cells) == []


def test_terminal_and_page_say_it(records, without_number) -> None:
    records = without_number(records, "timeout", "time", mixer="mambapy", n_tokens=1000)
    console = Console(file=io.StringIO(), width=80)
    print_run(Run("planted", {}, records), console)
    lines = console.file.getvalue().splitlines()
    title = lines.index("Time as a multiple of ours (mamba/numba)")
    head, *rows = [line.split() for line in lines[title + 1 : title + 4]]
    assert head == ["task", "L", "ours", "attention/sdpa", "mambapy/reference"]
    assert [row[:2] for row in rows] == [["forward", "100"], ["forward", "1,000"]]
    assert float(rows[0][-1].rstrip("x")) == pytest.approx(25, rel=0.05)
    assert rows[1][-1] == "timeout"
    page = render(Findings.of([Run("planted", {}, records)]))
    assert "Beside other implementations" in page
    assert "Time as a multiple of ours" in page
    assert metrics_of(find_peers(summarise(records).cells)) == ["wall_s", "peak_memory_bytes"]
