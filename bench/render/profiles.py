"""What `bench.profile` prints at its end: one table a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.analysis.cells import MEMORY, TIME
from bench.analysis.profile import Profile, Share
from bench.records.text import printable
from bench.render import words

MOST_OPS = 3


def print_profiles(profiles: Sequence[Profile], console: Console) -> None:
    """Print where the time and the memory of each cell go, then its most expensive ops."""
    for profile in profiles:
        heading = ", ".join(part for part in (words.fields(profile.cell), content_tower(profile)) if part)
        console.print(f"\n[bold]{escape(printable(heading))}[/]", highlight=False)
        if not profile.regions:
            console.print(escape(printable(f"{profile.status}: {profile.reason}")), highlight=False)
            continue
        console.print(_table(profile, "region", profile.groups()))
        if profile.content_tokens:
            console.print(_table(profile, "tower", profile.towers()))
        for line in remarks(profile):
            console.print(escape(printable(line)), highlight=False)


def content_tower(profile: Profile) -> str:
    """``content tower L 30``, or nothing where there is one tower."""
    return f"content tower L {profile.content_tokens:,}" if profile.content_tokens else ""


def _table(profile: Profile, what: str, shares: Sequence[Share]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column(what, no_wrap=True)
    for name in ("time", "forward", "backward", "share", "memory", "of roof"):
        table.add_column(name, justify="right", no_wrap=True)
    for share in shares:
        table.add_row(escape(words.short(share.name, 24)), *cost_texts(share))
    step = sum(share.live_bytes or 0.0 for share in shares)
    total = [seconds_text(profile.marked_s), "", "", "100%", words.quantity(step, MEMORY) if step else words.NONE, ""]
    table.add_row("step", *total, style="bold")
    return table


def cost_texts(share: Share) -> list[str]:
    """Time, forward, backward, share, memory and share of the roof."""
    return [
        seconds_text(share.seconds),
        seconds_text(share.forward_s),
        seconds_text(share.backward_s),
        words.percent(share.share),
        words.quantity(share.live_bytes, MEMORY) if share.live_bytes else words.NONE,
        words.NONE if share.roof_share is None else words.percent(share.roof_share),
    ]


def remarks(profile: Profile) -> Iterator[str]:
    """How far the figures can be trusted, what the GPU waited for, and which ops cost most."""
    plain, marked = profile.n_steps
    yield (
        f"A step takes {seconds_text(profile.plain_s)} unmarked ({plain} steps) and {seconds_text(profile.marked_s)} "
        f"with regions marked ({marked} steps, {signed_percent(profile.overhead)}); regions add up to all of it."
    )
    if profile.launch_bound is not None:
        yield f"Launch-bound: no kernel runs in {words.percent(profile.launch_bound)} of an unmarked step."
    if "op_s" in profile.notes:
        yield f"No times by op: {profile.notes['op_s']}."
    if profile.ops and profile.profiled_s:
        total = seconds_text(sum(op.seconds for op in profile.ops))
        yield f"Ops under torch's profiler, {total} of {seconds_text(profile.profiled_s)} a step; the largest:"
    for op in profile.ops[:MOST_OPS]:
        calls = "1 call" if op.calls == 1 else f"{op.calls:g} calls"
        yield f"{op_text(op.name)} in {op.region}: {seconds_text(op.seconds)}, {calls}"


def op_text(name: str) -> str:
    return words.short(name, 60)


def seconds_text(seconds: float) -> str:
    return words.quantity(seconds, TIME) if seconds else words.NONE


def signed_percent(share: float) -> str:
    return f"{100 * share:+.1f}%".replace("-", words.MINUS)
