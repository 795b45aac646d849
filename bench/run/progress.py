"""How far a sweep is: a bar with the time left on a terminal, plain lines elsewhere. On standard error."""

from __future__ import annotations

import statistics

from rich import progress as bars
from rich.console import Console
from rich.markup import escape

from bench.records.record import Record


class Progress:
    """Tells of each record as it comes. Use as a context manager.

    Args:
        todo: cells to run.
        done: cells that an earlier session ran.
        quiet: say nothing.
        console: where to; standard error by default.
    """

    def __init__(self, todo: int, done: int = 0, *, quiet: bool = False, console: Console | None = None) -> None:
        self._total = todo + done
        self._count = done
        self._quiet = quiet
        self._console = console or Console(stderr=True, highlight=False)
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("left"),
            bars.TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            speed_estimate_period=600,
            refresh_per_second=1,  # drawing takes time from the cell that is being measured
        )
        self._task = self._bar.add_task("sweep", total=self._total, completed=done)

    def advance(self, record: Record, seconds: float) -> None:
        """One more record is written."""
        self._count += 1
        line = f"[{self._count}/{self._total}] {describe(record)} ({seconds:.1f} s)"
        if self._quiet:
            return
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._count, description=escape(record.cell_id))
            if record.status != "ok":
                self._bar.console.print(escape(line), soft_wrap=True)
        else:
            self._console.print(escape(line), soft_wrap=True)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:  # rich below 14.3 ends even a bar that was never shown with a new line
            self._bar.stop()


def describe(record: Record) -> str:
    """One line on a record."""
    label = f"{record.cell_id} round {record.round}: {record.status}"
    wall_s = record.samples.get("wall_s")
    if record.status == "ok" and wall_s:
        return f"{label}, median {statistics.median(wall_s) * 1e3:.4g} ms of {len(wall_s)}"
    if record.status == "ok":
        quality = record.values.get("ndcg@10")
        return label if quality is None else f"{label}, NDCG@10 {quality:.4f}"
    return f"{label}, {record.reason}"
