"""What a sweep prints at its end."""

from __future__ import annotations

import io

from rich.console import Console

from bench.records.store import Run
from bench.render.terminal import print_run

MEMORY = {"mamba": lambda n: 2**20 * n, "attention": lambda n: 2**21 * n}
LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}


def printed(records, width=80):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_run(Run("planted", {}, records), console)
    return console.file.getvalue()


def test_table_exponents_and_crossovers(planted_records, without_number):
    records = planted_records(LINEAR, memory=MEMORY)
    lines = printed(without_number(records, "oom", "memory", mixer="attention", n_tokens=10000)).splitlines()
    assert lines[0] == "Answer"
    assert lines[1].startswith("Forward: attention is faster up to L* = 500 (95 %: 500), mamba from there on, by 6.0x")
    caption = "All cells (cpu, float32, B 8, 2 layers, d 64): time of one step"
    start = next(i for i, line in enumerate(lines) if line.startswith(caption))
    table = lines[start + 1 : lines.index("", start)]
    row = next(line.split() for line in table if "mamba/numba" in line and "1,000 " in line)
    assert row == ["forward", "mamba/numba", "1,000", "1.00", "ms", "1.00", "to", "1.00", "ms", "1,000", "MiB", "8,000"]
    assert any("attention/sdpa" in line and "oom" in line for line in table)
    assert max(map(len, table)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "time forward mamba/numba 1.00 (1.00 to 1.00) 1,000 to 10,000" in text
    assert "time forward mamba/numba attention/sdpa 6.0x 3,000 500 500" in text


def test_what_does_not_fit_side_by_side_goes_into_further_tables(planted_records):
    """Every text is whole, each part of a table has the columns that name its rows, and nothing is wider."""
    records = planted_records(LINEAR, memory=MEMORY, lengths=(100, 1000))
    wide, narrow = printed(records, 200), printed(records, 60)
    assert "rows/s" in narrow
    assert narrow.count("attention/sdpa") > wide.count("attention/sdpa")
    for word in set(wide.split()):
        assert word in narrow


def test_names_are_not_markup(planted_records):
    records = [
        type(r)(**{**r.to_dict(), "cell": {**r.cell, "mixer": f"[red]{r.cell['mixer']}[/]\x1b[2J"}})
        for r in planted_records(LINEAR)
    ]
    text = printed(records)
    assert "[red]mamba[/]" in text
    assert "\x1b" not in text


def test_nothing_to_show():
    assert printed([]) == "No records.\n"
