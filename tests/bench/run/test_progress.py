"""How a sweep's progress looks: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from bench.records.record import Record
from bench.run.progress import Progress

OK = Record(run="r", cell_id="cell-[b]", round=1, cell={}, status="ok", samples={"wall_s": [0.1, 0.25, 0.3]})
OOM = Record(run="r", cell_id="cell-2", round=1, cell={}, status="oom", reason="no memory")


def show(*, terminal: bool, quiet: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200, highlight=False)
    with Progress(2, 3, quiet=quiet, console=console) as progress:
        progress.advance(OK, 2.04)
        progress.advance(OOM, 1.0)
    return file.getvalue()


def test_piped_it_is_one_line_a_record() -> None:
    assert show(terminal=False).splitlines() == [
        "[4/5] cell-[b] round 1: ok, median 250 ms of 3 (2.0 s)",
        "[5/5] cell-2 round 1: oom, no memory (1.0 s)",
    ]


def test_on_a_terminal_it_is_a_bar_with_the_time_left_and_the_failures() -> None:
    shown = show(terminal=True)
    assert "5/5" in shown
    assert "left" in shown
    assert "cell-2 round 1: oom, no memory" in shown
    assert "median" not in shown


def test_quiet_it_says_nothing() -> None:
    assert show(terminal=False, quiet=True) == ""
    assert show(terminal=True, quiet=True) == ""
