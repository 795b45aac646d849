"""Where the time and the memory of a step go, by region: a stacked picture over L, tables by region, tower and op."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.analysis.cells import MEMORY, TIME, VARIANT, identity, without
from bench.analysis.profile import Op, Profile, Share, profiles_of
from bench.render import words
from bench.render.axes import SIZE, legend, new_axes, set_ticks
from bench.render.blocks import Block, Bullets, Column, Figure, Figures, Folded, Prose, Section, Table, TableCell
from bench.render.entries import amount, length
from bench.render.findings import Findings
from bench.render.styles import BASELINE, INK, RULE, STYLES
from bench.render.svg import drawing

ORDER = 100
TERMINAL = True

LEAST_DRAWN = 0.02  # of a step's time; less is drawn as part of the rest
MOST_OPS = 40
REST = "rest"
_PLAIN = ""
_HATCHED = "////"
# Scan and attention have the colours of their mixers; a hatch tells two regions of one colour apart.
_STYLES = {
    "scan": (STYLES[0].light, _PLAIN),
    "attention": (STYLES[1].light, _PLAIN),
    "block": (STYLES[1].light, _HATCHED),
    "rest of mixer": (STYLES[0].light, _HATCHED),
    "projections": (STYLES[2].light, _PLAIN),
    "convolution": (STYLES[3].light, _PLAIN),
    "feed-forward": (STYLES[4].light, _PLAIN),
    "optimizer": (STYLES[5].light, _PLAIN),
    "tokenizer": (BASELINE.light, _PLAIN),
    "norm": (BASELINE.light, _HATCHED),
    "head": (STYLES[5].light, _HATCHED),
    REST: (RULE, _PLAIN),
}


def build(findings: Findings) -> Section | None:
    profiles = [profile for profile in profiles_of(findings.runs) if profile.regions]
    if not profiles:
        return None
    places = Places(profiles)
    blocks: list[Block] = [
        Prose(_lead(profiles, places), "lead"),
        Figures("Share of a step's time by region, forward and backward, all blocks together.", _figures(profiles)),
        _shares_table("regions", "region", places, profiles, Profile.groups),
    ]
    if any(profile.content_tokens for profile in profiles):
        towers = [profile for profile in profiles if profile.content_tokens]
        blocks.append(_shares_table("towers", "part", places, towers, Profile.towers))
    parts = _shares_table("blocks", "region", places, profiles, Profile.parts)
    blocks.append(Folded("Every block by itself", [parts], page_only=True))
    if any(profile.ops for profile in profiles):
        blocks.append(Folded("The most expensive ops", [_ops_table(profiles, places)], page_only=True))
    told = [f"{places.name(profile)}: {' '.join(remarks(profile))}" for profile in profiles]
    blocks.append(Folded("How far these figures can be trusted", [Bullets(told)]))
    blocks.append(Prose(METHOD, "note"))
    return Section("profile", "Where the time and the memory go", blocks)


class Places:
    """How cells are named in tables: mixer, L, and what else varies among them."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        names = words.varying(profile.cell for profile in profiles)
        self._axes = [name for name in names if name not in ("task", "n_tokens", *VARIANT)]
        self._tasks = "task" in names
        self._runs = len({profile.run for profile in profiles}) > 1
        towers = any(profile.content_tokens for profile in profiles)
        self.columns = [
            Column("mixer", lambda row: words.variant(row[0].cell)),
            Column("L", lambda row: length(row[0].n_tokens), numeric=True),
        ]
        if self._axes or self._tasks or self._runs or towers:
            self.columns.append(Column("setting", lambda row: self.setting(row[0])))

    def setting(self, profile: Profile) -> str:
        """What varies beside mixer and L."""
        parts = [profile.run] if self._runs else []
        parts += [words.task(profile.cell.get("task"))] if self._tasks else []
        parts += [words.setting(profile.cell, only=self._axes), content_tower(profile)]
        return ", ".join(part for part in parts if part)

    def name(self, profile: Profile) -> str:
        """In one text."""
        parts = (words.variant(profile.cell), f"L = {profile.n_tokens:,}", self.setting(profile))
        return ", ".join(part for part in parts if part)


METHOD = (
    "Time: of steps in which a mark is set whenever the program passes from one region to another, in the backward "
    "pass by the autograd node that runs; a step's time is divided among its regions without a rest. Means of the "
    "faster half of the steps. Memory: tensors in use at the moment when most are, by the region that allocated them, "
    "above what was in use before the step. Of roof: the least time that this machine's best rates allow, over the "
    "measured time. Rates are those of a matrix product (for all operations), of a copy (for the bytes that a region "
    "must read and write) and of exponentials in registers (for those of the scan and the softmax)."
)


def _lead(profiles: Sequence[Profile], places: Places) -> str:
    """The two largest regions of each curve's longest step."""
    parts = []
    for members in _curves(profiles):
        largest = sorted(members[-1].groups(), key=lambda share: -share.share)[:2]
        told = [f"{words.percent(share.share)} {share.name}" for share in largest]
        parts.append(f"{places.name(members[-1])}: {', '.join(told)}")
    return f"Most of {words.noun(profiles[0].cell.get('task'))} goes to: {'; '.join(parts)}."


def _curves(profiles: Sequence[Profile]) -> list[list[Profile]]:
    """Profiles that differ in L alone, in ascending order of L."""
    curves: dict[str, list[Profile]] = {}
    for profile in profiles:
        curves.setdefault(identity({"run": profile.run, **without(profile.cell, "n_tokens")}), []).append(profile)
    return list(curves.values())


def _figures(profiles: Sequence[Profile]) -> list[Figure]:
    several = len({profile.run for profile in profiles}) > 1
    return [_figure(members, i, several=several) for i, members in enumerate(_curves(profiles))]


def _figure(profiles: Sequence[Profile], index: int, *, several: bool) -> Figure:
    """Stacked bars, one a length."""
    shares = [_drawn(profile.groups()) for profile in profiles]
    names = [name for name in _STYLES if any(name in each for each in shares)]
    hints: dict[str, list[str]] = {}
    with drawing():
        canvas, ax = new_axes((SIZE[0], 4.4))
        bottoms = [0.0] * len(profiles)
        for i, name in enumerate(names):
            heights = [each.get(name, 0.0) for each in shares]
            colour, hatch = _STYLES[name]
            x = range(len(profiles))
            ax.bar(x, heights, 0.72, bottoms, color=colour, hatch=hatch, edgecolor=RULE, linewidth=0.5, label=name)
            drawn = [at for at in x if heights[at]]
            middles = [bottoms[at] + heights[at] / 2 for at in drawn]
            ax.scatter(drawn, middles, color=INK, s=5, zorder=3, gid=f"share-{i}")
            hints[f"share-{i}"] = [
                f"{name}, {words.fields(profiles[at].cell)}: {words.percent(heights[at])} of a step, "
                f"{seconds_text(heights[at] * profiles[at].marked_s)}"
                for at in drawn
            ]
            bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        ax.set_ylim(0, 1)
        ax.set_xlim(-0.6, len(profiles) - 0.4)
        lengths = [profile.n_tokens for profile in profiles]
        set_ticks(ax.xaxis, list(range(len(profiles))), lambda at: f"{lengths[round(at)]:,}")
        set_ticks(ax.yaxis, [0, 0.25, 0.5, 0.75, 1], lambda share: f"{share:.0%}")
        ax.set_xlabel("sequence length L (tokens)", color=INK, fontsize=9)
        ax.set_ylabel("share of a step's time", color=INK, fontsize=9)
        legend(canvas, ax)
    parts = [profiles[0].run if several else "", words.fields(without(profiles[0].cell, "n_tokens"))]
    title = ", ".join(part for part in (*parts, content_tower(profiles[0])) if part)
    alt = f"{title}: share of time by region. " + " ".join(
        f"L = {length:,}: " + ", ".join(f"{name} {words.percent(value)}" for name, value in each.items()) + "."
        for length, each in zip(lengths, shares, strict=True)
    )
    return Figure(f"profile-{index}", title, alt, canvas, hints)


def _drawn(shares: Sequence[Share]) -> dict[str, float]:
    """Share by name; what is small, or has no colour of its own, is the rest."""
    found: dict[str, float] = {}
    for share in shares:
        name = share.name if share.name in _STYLES and share.share >= LEAST_DRAWN else REST
        found[name] = found.get(name, 0.0) + share.share
    return {name: found[name] for name in _STYLES if name in found}


def _shares_table(
    name: str, what: str, places: Places, profiles: Sequence[Profile], shares: Callable[[Profile], Sequence[Share]]
) -> Table:
    caption = {"regions": "Time and memory of a step by region", "towers": "By tower", "blocks": "By block and region"}
    return Table(
        f"profile-{name}",
        caption[name],
        [
            *places.columns,
            Column(what, lambda row: row[1].name),
            Column("time", lambda row: _seconds(row[1].seconds), numeric=True),
            Column("forward", lambda row: _seconds(row[1].forward_s), numeric=True),
            Column("backward", lambda row: _seconds(row[1].backward_s), numeric=True),
            Column("share", lambda row: amount(row[1].share, words.percent), numeric=True),
            Column("memory", lambda row: amount(row[1].live_bytes or None, _bytes), numeric=True),
            Column("of roof", lambda row: amount(row[1].roof_share, words.percent), numeric=True),
        ],
        [(profile, share) for profile in profiles for share in (*shares(profile), profile.whole())],
        by=len(places.columns),
    )


def _ops_table(profiles: Sequence[Profile], places: Places) -> Table:
    def share(row: tuple[Profile, Op]) -> float:
        return row[1].seconds / sum(op.seconds for op in row[0].ops)

    return Table(
        "profile-ops",
        "Ops (on CUDA kernels) by their own time, as torch's profiler tells it; it slows short ops down",
        [
            *places.columns,
            Column("op", lambda row: TableCell(op_text(row[1].name), hint=row[1].name)),
            Column("region", lambda row: str(row[1].region)),
            Column("time", lambda row: _seconds(row[1].seconds), numeric=True),
            Column("share of ops", lambda row: amount(share(row), words.percent), numeric=True),
            Column("calls a step", lambda row: amount(row[1].calls, lambda calls: f"{calls:g}"), numeric=True),
        ],
        [(profile, op) for profile in profiles for op in profile.ops[:MOST_OPS]],
        by=len(places.columns),
    )


def _seconds(seconds: float) -> TableCell:
    return TableCell(seconds_text(seconds), seconds)


def _bytes(n_bytes: float) -> str:
    return words.quantity(n_bytes, MEMORY)


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
        largest = "; ".join(f"{op_text(op.name)} in {op.region}: {seconds_text(op.seconds)}" for op in profile.ops[:3])
        all_s = seconds_text(profile.profiled_s)
        yield f"Ops under torch's profiler, {total} of {all_s} a step; the largest: {largest}."


def content_tower(profile: Profile) -> str:
    """``content tower L 30``, or nothing where there is one tower."""
    return words.field("content_tokens", profile.content_tokens) if profile.content_tokens else ""


def op_text(name: str) -> str:
    return words.short(name, 60)


def seconds_text(seconds: float) -> str:
    return words.quantity(seconds, TIME) if seconds else words.NONE


def signed_percent(share: float) -> str:
    return f"{100 * share:+.1f}%".replace("-", words.MINUS)
