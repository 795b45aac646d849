"""What a sweep prints at its end."""

from __future__ import annotations

import io

from rich.console import Console

from bench.analysis.scaling import summarise
from bench.render.terminal import print_summary

LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}


def printed(records):
    console = Console(file=io.StringIO(), width=80)
    print_summary(summarise(records), console)
    return console.file.getvalue()


def test_table_exponents_and_crossovers(planted_records, without_number):
    records = planted_records(LINEAR, memory={"mamba": lambda n: 2**20 * n, "attention": lambda n: 2**21 * n})
    text = printed(without_number(records, "oom", "memory", mixer="attention", n_tokens=10000))
    lines = text.splitlines()
    assert lines[0] == "All at B 8, 2 layers, d 64, float32, cpu"
    row = next(line.split() for line in lines if "mamba/numba" in line and "1,000 " in line)
    assert row[:5] == ["forward", "mamba/numba", "1,000", "1.00", "ms"]
    assert row[-3:] == ["1,000", "MiB", "8,000"] or row[-2:] == ["MiB", "8,000"]
    assert any("attention/sdpa" in line and "oom" in line for line in lines)
    assert any("mamba/numba: time ~ L^1.00 (1.00 to 1.00)" in line for line in lines)
    assert any(line.startswith("time, forward: attention/sdpa is faster up to L* = 500") for line in lines)
    table = lines[: lines.index("", 2)]
    assert max(map(len, table)) <= 80


def test_names_are_not_markup(planted_records):
    records = [
        type(r)(**{**r.to_dict(), "cell": {**r.cell, "mixer": f"[red]{r.cell['mixer']}[/]\x1b[2J"}})
        for r in planted_records(LINEAR)
    ]
    text = printed(records)
    assert "[red]mamba[/]" in text
    assert "\x1b" not in text


def test_nothing_to_show():
    assert printed([]) == "No records of a sweep.\n"
