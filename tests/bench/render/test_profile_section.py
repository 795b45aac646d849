"""A profile as people see it: on a terminal and on the page."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from bench.analysis.profile import profiles_of
from bench.plan.cell import Cell
from bench.records.record import Record
from bench.records.store import Run
from bench.render import words
from bench.render.findings import Findings
from bench.render.page import render
from bench.render.sections import profile as section
from bench.render.sections.profile import seconds_text, signed_percent
from bench.render.terminal import print_run

SCAN_MS = {100: 1.0, 1000: 12.0}


def profile_run(mixers: tuple[str, ...] = ("mamba", "attention"), content_tokens: int = 0) -> Run:
    records = []
    for mixer in mixers:
        op = {"mamba": "selective_scan", "attention": "attention"}.get(mixer, "block")
        for n_tokens, ms in SCAN_MS.items():
            cell = Cell(task="profile", profiled="train_step", content_tokens=content_tokens, mixer=mixer,
                        backend="numba", n_tokens=n_tokens, batch_size=4,
                        n_layers=2, d_model=64)  # fmt: skip
            parts = {f"forward/blocks.0/{op}": ms, f"backward/blocks.0/{op}": 2 * ms, "forward/blocks.0/in_proj": 1.0,
                     "forward/tokenizer": 0.5, "forward/loss": 0.01, "update/optimizer": 0.25}  # fmt: skip
            total = sum(parts.values()) / 1e3
            records.append(
                Record(
                    run="profiled", cell_id=cell.id, round=0, cell=dict(cell), status="ok",
                    samples={"wall_s": [total * 0.98] * 9, "marked_wall_s": [total] * 9,
                             **{f"region_s:{name}": [ms / 1e3] * 9 for name, ms in parts.items()}},
                    values={"profiled_s": total * 1.1, "roof_flops_per_s": 1e11,
                            "op_s:forward/tokenizer:aten::<b>cat</b>": 0.0004,
                            "op_calls:forward/tokenizer:aten::<b>cat</b>": 3, "roof_bytes_per_s:1024": 1e10,
                            "flops:forward/blocks.0/in_proj": 2e7, "min_bytes:forward/blocks.0/in_proj": 2e6,
                            "live_bytes:forward/blocks.0/in_proj": 2**20},
                )
            )  # fmt: skip
    return Run("profiled", {}, records)


def printed(run: Run, width: int = 80) -> str:
    stream = io.StringIO()
    print_run(run, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


def test_the_table_of_a_cell() -> None:
    text = printed(profile_run(("mamba",)))
    head, one_thousand = text.split("mixer mamba/numba, L 1,000\n")
    assert "mixer mamba/numba, L 100\n" in head
    rows = {cells[0]: cells[1:] for line in one_thousand.splitlines() if (cells := re.split(r"\s{2,}", line.strip()))}
    assert rows["scan"] == ["36.0 ms", "12.0 ms", "24.0 ms", "95%", words.NONE, words.NONE]
    assert rows["projections"] == ["1.00 ms", "1.00 ms", words.NONE, "2.6%", "1.00 MiB", "20%"]
    assert rows["step"] == ["37.8 ms", "13.5 ms", "24.0 ms", "100%", "1.00 MiB", "20%"]
    assert "37.0 ms unmarked (9 steps) and 37.8 ms with regions marked (9 steps, +2.0%)" in " ".join(text.split())
    assert "Ops under torch's profiler, 400 µs of 41.5 ms a step; the largest: aten::<b>cat</b> in forward/tok" in text


@pytest.mark.parametrize("mixers", [("mamba", "attention"), ("torch_transformer",)])
def test_tables_fit_in_80_columns_and_are_plain_when_piped(mixers: tuple[str, ...]) -> None:
    text = printed(profile_run(mixers))
    table = text[
        text.index("Time and memory of a step by region") : text.index("How far") if "How far" in text else None
    ]
    assert max(map(len, table.split("\n\n")[0].splitlines())) <= 80
    assert "…" not in text
    assert "\x1b" not in text


def test_a_cell_without_numbers_says_why() -> None:
    run = profile_run(("mamba",))
    failed = Record(
        run="r", cell_id="c", round=0, cell=run.records[0].cell, status="oom", reason="no [b]memory[/b]\x1b"
    )
    text = printed(Run("r", run.meta, [failed]))
    assert "oom" in text
    assert "no [b]memory[/b]" in text
    assert "\x1b" not in text


def test_the_section_has_a_picture_a_curve_and_its_tables() -> None:
    found = section.build(Findings.of([profile_run()]))
    assert found is not None
    by_kind = {type(block).__name__: block for block in found.blocks}
    figures: Any = by_kind["Figures"]
    assert len(figures.figures) == 2
    assert "L = 1,000: scan 95%" in figures.figures[1].alt or "L = 1,000: scan 95%" in figures.figures[0].alt
    hints = [text for figure in figures.figures for texts in figure.hints.values() for text in texts]
    assert any(text.startswith("scan, train step, mamba/numba, L 1,000") and "36.0 ms" in text for text in hints)
    table: Any = by_kind["Table"]
    assert len(table.rows) == 2 * 2 * (5 + 1)  # the last is the whole step
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_two_towers_are_told_on_the_page_and_on_the_terminal() -> None:
    run = profile_run(("mamba",), content_tokens=30)
    assert "content tower L 30" in " ".join(printed(run).split())
    found = section.build(Findings.of([run]))
    assert found is not None
    tables: Any = [block for block in found.blocks if type(block).__name__ == "Table"]
    assert [table.name for table in tables] == ["profile-regions", "profile-towers"]
    assert tables[0].columns[2].name == "setting"
    assert tables[0].rows[0][2].text == "content tower L 30"


def test_small_regions_are_drawn_as_the_rest_and_shares_stay_whole() -> None:
    profile = profiles_of([profile_run(("mamba",))])[-1]
    drawn = section._drawn(profile.groups())
    assert "tokenizer" not in drawn  # 1.3 % of the step
    assert drawn["rest"] == pytest.approx((0.5 + 0.01 + 0.25) / 37.76, rel=1e-3)
    assert sum(drawn.values()) == pytest.approx(1)


def test_a_page_of_a_profile_shows_it_and_takes_no_markup_from_names() -> None:
    page = render(Findings.of([profile_run()]))
    assert "Where the time and the memory go" in page
    assert "<b>cat</b>" not in page
    assert "&lt;b&gt;cat&lt;/b&gt;" in page


def test_profiles_are_no_cells_of_a_sweep() -> None:
    findings = Findings.of([profile_run()])
    assert findings.summary.cells == ()


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0.0%"), (0.004, "0.4%"), (0.0994, "9.9%"), (0.0996, "10%"), (1.2, "120%")]
)
def test_percentages(share: float, text: str) -> None:
    assert words.percent(share) == text


def test_signs_and_zeros() -> None:
    assert signed_percent(-0.021) == f"{words.MINUS}2.1%"
    assert signed_percent(0.5) == "+50.0%"
    assert seconds_text(0.0) == words.NONE
