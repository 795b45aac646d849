"""What a live system pays for one more event, by policy, and what its users wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bench.analysis.cells import STEP, TIME, CellSummary, variant_of
from bench.analysis.groups import grouped
from bench.analysis.live import PARTS, TOLD, Live, live_of
from bench.analysis.roof import roof_share
from bench.render import words
from bench.render.axes import amount_axis, legend, new_axes
from bench.render.blocks import Block, Bullets, Column, Figure, Figures, Prose, Section, Table, TableCell
from bench.render.entries import NOTHING, amount, length, reading
from bench.render.findings import Findings
from bench.render.numbers import STATE
from bench.render.styles import INK
from bench.render.svg import drawing

ORDER = 45
TERMINAL = True
VALUES = {"update_s": "update", "refresh_s": "refresh", "replay_s": "replay of a lost state"}
NAMES = {
    "queue_s": "queue", "update_s": "update", "refresh_s": "refresh", "top_k_s": "search", "total_s": "total",
    "closed_s": "one after the other", "late_s": "begun late",
}  # fmt: skip
ABOUT = (
    "Update: the state after one more event; refresh: what [CLS] reads behind it; users whose states are in memory are "
    "visited at random. A policy that recomputes keeps events alone, and reads them all for each refresh."
)
ABOUT_LOAD = (
    "Requests come when they are scheduled, and every time counts from there. Percentiles with 95 % intervals between "
    "order statistics; p99 stands only where an empty server's own is within a tenth of the bound."
)


def build(findings: Findings) -> Section | None:
    cells = [cell for cell in findings.summary.cells if cell.cell.get("task") == STEP and TIME in cell.estimates]
    loads = live_of(record for run in findings.runs for record in run.records)
    blocks = [*(_steps(findings, cells) if cells else []), *(_loads(findings, loads) if loads else [])]
    return Section("live", "What one more event costs a live system", blocks) if blocks else None


def _steps(findings: Findings, cells: Sequence[CellSummary]) -> Iterator[Block]:
    yield Bullets([*map(costs, _sides(findings, cells))], "lead")
    yield Prose(ABOUT, "note")
    yield Figures("Memory that is kept of one user.", [partial(state_plot, findings, cells)])
    yield Table(
        name="live", caption="A request, which is update and refresh, its parts, and what is kept of a user", head=3,
        columns=[
            Column("mixer and policy", lambda cell: variant_of(cell.cell).mixer),
            *findings.setting_column(lambda cell: (cell.run, cell.cell)),
            Column("events", lambda cell: length(cell.n_tokens - 1), numeric=True),
            Column("request", lambda cell: reading(cell, TIME), numeric=True),
            *(Column(text, partial(_value, name=name), True) for name, text in VALUES.items()),
            Column("bytes a user", lambda cell: amount(cell.values.get(STATE), _bytes), numeric=True),
            Column("by arithmetic", lambda cell: amount(cell.values.get(f"{STATE}_by_arithmetic"), _bytes), True),
            Column("users/s", lambda cell: amount(cell.rows_per_s and cell.rows_per_s.value, words.significant), True),
            Column("of limit", lambda cell: amount(roof_share(cell, findings.metas[cell.run]), words.percent), True),
        ],
        items=cells,
    )  # fmt: skip


def _sides(findings: Findings, cells: Sequence[CellSummary]) -> Iterator[list[CellSummary]]:
    """Cells of one setting and its longest history that several of them have, the cheapest first."""
    for own in grouped(cells, lambda cell: (cell.run, findings.where(cell.run, cell.cell))).values():
        by_length = grouped(own, lambda cell: cell.n_tokens)
        longest = max((n for n, group in by_length.items() if len(group) > 1), default=max(by_length))
        yield sorted(by_length[longest], key=lambda cell: cell.estimates[TIME].value)


def costs(cells: Sequence[CellSummary]) -> str:
    """``With histories of 999 events a user costs 0.2 ms a request and 38 KiB with mamba(state), ...``"""
    told = [
        f"{words.quantity(cell.estimates[TIME].value / cell.cell['batch_size'], TIME)}"
        f"{f' {words.MARK}' if cell.n_disturbed else ''} a request and {_bytes(cell.values.get(STATE, 0.0))} with "
        f"{variant_of(cell.cell).mixer}"
        for cell in cells
    ]
    batch = f", {cells[0].cell['batch_size']} at a time," if cells[0].cell["batch_size"] > 1 else ""
    return f"With histories of {cells[0].n_tokens - 1:,} events a user{batch} costs {'; '.join(told)}."


def state_plot(findings: Findings, cells: Sequence[CellSummary]) -> Figure | None:
    """Bytes of a user against the events that they had, a line a mixer and policy; None for one length."""
    lines = grouped([cell for cell in cells if STATE in cell.values], lambda cell: variant_of(cell.cell).mixer)
    if len({cell.n_tokens for cell in cells}) < 2 or not lines:
        return None
    hints: dict[str, list[str]] = {}
    with drawing():
        canvas, ax = new_axes()
        for i, (name, group) in enumerate(lines.items()):
            style, points = findings.styles[name], sorted({(cell.n_tokens - 1, cell.values[STATE]) for cell in group})
            ax.plot(*zip(*points, strict=True), color=style.light, linewidth=1.2, label=words.short(name, 28))
            x, y = zip(*points, strict=True)
            ax.scatter(x, y, marker=style.marker, color=style.light, s=34, zorder=3, gid=f"state-{i}")
            hints[f"state-{i}"] = [f"{name}: {_bytes(kept)} after {n:,} events" for n, kept in points]
        amount_axis(ax, [cell.n_tokens - 1 for cell in cells], "events")
        ax.set_yscale("log")
        ax.set_xlabel("events of the user", color=INK, fontsize=9)
        ax.set_ylabel("bytes", color=INK, fontsize=9)
        legend(canvas, ax)
    title = "Bytes a user against their events"
    alt = f"{title}. {' '.join(text for texts in hints.values() for text in texts)}"
    return Figure("live-state", title, alt, canvas, hints)


def _loads(findings: Findings, loads: Sequence[Live]) -> Iterator[Block]:
    yield Bullets([*map(waits, loads)], "lead")
    yield Prose(ABOUT_LOAD, "note")
    rows = [(each, part) for each in loads for part in PARTS if (part, 50) in each.percentiles]
    yield Table(
        name="live-load", caption="Seconds of live requests", items=rows, head=3,
        columns=[
            Column("mixer and policy", lambda row: row[0].label),
            Column("offered", lambda row: _rate(row[0], "rate_offered_per_s"), numeric=True),
            Column("part", lambda row: NAMES[row[1]]),
            *(Column(f"p{percent}", partial(_percentile, percent=percent), numeric=True) for percent in TOLD),
        ],
    )  # fmt: skip
    if failures := [f"{each.label}: {failure}" for each in loads for failure in each.failures]:
        yield Bullets(["Not usable:", *failures])


def waits(each: Live) -> str:
    """``mamba(state), 999 events, at 210 requests a second: p50 1.2 ms, p95 2.0 ms; ...``"""
    found_at = {percent: each.percentiles.get(("total_s", percent)) for percent in TOLD}
    total = [f"p{percent} {words.quantity(at.value, TIME)}" for percent, at in found_at.items() if at]
    low, high = each.values.get("highest_rate_per_s"), each.values.get("too_high_rate_per_s")
    bound = f"within {each.fields.get('bound_ms')} ms for 99 %"
    found = f"no rate that was tried holds {bound}" if not low else f"{low:,.0f} requests a second hold {bound}" + (
        f", {high:,.0f} do not" if high else ""
    )  # fmt: skip
    share = each.values.get("hit_rate")
    told = [
        f"{each.label}, {int(each.fields.get('n_tokens', 1)) - 1:,} events, at "
        f"{each.values.get('rate_offered_per_s', 0):,.0f} requests a second: {', '.join(total) or 'no percentiles'}",
        found, f"one client after the other reaches {each.values.get('closed_rate_per_s', 0):,.0f} a second",
        *([] if share is None else [f"states found in memory {words.percent(share)}"]), *each.why,
    ]  # fmt: skip
    return f"{'; '.join(told)}." if each.values else f"{each.label}: no number."


def _value(cell: CellSummary, name: str) -> TableCell:
    found = amount(cell.values.get(name), lambda value: words.quantity(value, TIME))
    return found if found is not NOTHING else TableCell(words.NONE, hint=cell.notes.get(name, ""))


def _bytes(n_bytes: float) -> str:
    return words.quantity(n_bytes, STATE)


def _rate(each: Live, name: str) -> TableCell:
    return amount(each.values.get(name), lambda value: f"{words.significant(value)}/s")


def _percentile(row: tuple[Live, str], percent: int) -> TableCell:
    found = row[0].percentiles.get((row[1], percent))
    if found is None:
        return NOTHING
    return TableCell(
        words.quantity(found.value, TIME), found.value, hint=words.interval(found, TIME), low=found.low,
        high=found.high, unit="s",
    )  # fmt: skip
