"""What gave no number, and why; lines of results files that could not be read."""

from __future__ import annotations

from collections import Counter

from bench.records.record import Record
from bench.render import words
from bench.render.blocks import Block, Bullets, Column, Prose, Section, Table
from bench.render.findings import Findings

ORDER = 110
TERMINAL = True

MEANING = {
    "oom": "ran out of memory",
    "timeout": "ran out of time",
    "skipped": "not tried",
    "error": "failed",
}


def build(findings: Findings) -> Section | None:
    failed = [(run.name, record) for run in findings.runs for record in run.records if record.status != "ok"]
    problems = [problem for run in findings.runs for problem in run.problems]
    blocks: list[Block] = []
    if failed:
        counts = Counter(record.status for _, record in failed)
        told = ", ".join(f"{count} {MEANING[status]} ({status})" for status, count in counts.most_common())
        total = sum(len(run.records) for run in findings.runs)
        blocks.append(Prose(f"{len(failed)} of {total} attempts gave no number: {told}."))
        blocks.append(_table(failed, several_runs=len(findings.runs) > 1))
    if problems:
        blocks.append(Prose("These lines of the results could not be used:"))
        blocks.append(Bullets(problems))
    return Section("gaps", "Failures and skips", blocks) if blocks else None


def _table(failed: list[tuple[str, Record]], *, several_runs: bool) -> Table:
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for run, record in failed:
        key = (run if several_runs else "", words.fields(record.cell), record.status, record.reason)
        groups.setdefault(key, []).append(record.round)
    return Table(
        name="gaps",
        caption="Attempts without a number",
        columns=[
            *([Column("run", lambda item: item[0][0])] if several_runs else []),
            Column("cell", lambda item: item[0][1]),
            Column("status", lambda item: item[0][2]),
            Column("rounds", lambda item: ", ".join(map(str, item[1]))),
            Column("reason", lambda item: item[0][3]),
        ],
        items=list(groups.items()),
    )
