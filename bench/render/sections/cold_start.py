"""What a process waits for before its first answer."""

from __future__ import annotations

from functools import partial

from bench.analysis.cells import TIME
from bench.analysis.cold_start import ColdStart, cold_starts
from bench.render import words
from bench.render.blocks import Column, Prose, Section, Table, TableCell
from bench.render.entries import length
from bench.render.findings import Findings

ORDER = 85
TERMINAL = True
ABOUT = (
    "Every cell ran in a process of its own. Imports: torch and the towers. First call: a new tower and a row of at "
    "most 64 tokens, until the result is there; libraries are loaded, thread pools started, kernels read from where an "
    "earlier process kept them. The longest first call compiled those that were not kept."
)


def build(findings: Findings) -> Section | None:
    """Only for runs that recorded it."""
    starts = cold_starts(record for run in findings.runs for record in run.records)
    if not starts:
        return None
    slowest = max(starts, key=lambda each: each.longest_s)
    lead = (
        f"A first call takes up to {_seconds(slowest.longest_s)} ({slowest.variant}, {words.task(slowest.task)}), "
        f"beside {_seconds(slowest.import_s)} of imports."
    )
    return Section("cold-start", "Cold start", [Prose(lead), Prose(ABOUT, "note"), _table(findings, starts)])


def _table(findings: Findings, starts: list[ColdStart]) -> Table:
    def seconds(each: ColdStart, name: str) -> TableCell:
        return TableCell(_seconds(getattr(each, name)), getattr(each, name))

    runs, executions = ({getattr(each, name) for each in starts} for name in ("run", "execution"))
    return Table(
        name="cold-start",
        caption="Seconds before the first answer of a fresh process, medians over processes, and the longest call",
        columns=[
            *([Column("run", lambda each: each.run)] if len(runs) > 1 else []),
            Column("task", lambda each: words.task(each.task)),
            Column("mixer", lambda each: findings.name(each.variant)),
            *([Column("execution", lambda each: each.execution)] if len(executions) > 1 else []),
            Column("imports", partial(seconds, name="import_s"), numeric=True),
            Column("first call", partial(seconds, name="first_call_s"), numeric=True),
            Column("longest first call", partial(seconds, name="longest_s"), numeric=True),
            Column("processes", lambda each: length(each.n), numeric=True, page_only=True),
        ],
        items=starts,
        head=2 + (len(runs) > 1) + (len(executions) > 1),
    )


def _seconds(seconds: float) -> str:
    return words.quantity(seconds, TIME)
