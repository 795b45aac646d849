"""Numbers and findings in words: the only place that decides how a figure is written for people."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.analysis.cells import ENERGY, MEMORY, TIME, VARIANT, CellSummary, number, variant_of
from bench.analysis.cheapest import Standing
from bench.analysis.crossover import Crossover
from bench.analysis.estimate import Estimate
from bench.analysis.gate import Gate
from bench.analysis.limit import SHORTEST, Limit
from bench.analysis.means import Mean
from bench.analysis.quality import Comparison
from bench.analysis.scaling import Scaling
from bench.plan import tasks
from bench.plan.axes import BY_FIELD, is_default
from bench.render.numbers import (
    MINUS,
    NONE,
    count,
    duration,
    interval,
    length,
    percent,
    plain,
    printable,
    quantity,
    short,
    significant,
    tick,
    times,
)  # fmt: skip

__all__ = [
    "MINUS", "NONE", "count", "duration", "interval", "length", "percent", "plain", "printable",
    "quantity", "short", "significant", "tick", "times",
]  # fmt: skip
SHARES_ALIKE = 0.1  # shares of the limit that differ by no more tell of no difference in care
MOST_NAMED = 3  # of those that are cheapest alike
MARK = "\u2020"  # some rounds ran beside other work
METRIC_NAMES = {TIME: "time", MEMORY: "peak memory", ENERGY: "energy"}


def exponent(estimate: Estimate) -> str:
    """``1.02 (0.98 to 1.06)``, two decimals."""
    value, low, high = (f"{x:.2f}".replace("-", MINUS) for x in (estimate.value, estimate.low, estimate.high))
    return value if math.isnan(estimate.low) else f"{value} ({low} to {high})"


def growth(found: Scaling) -> str:
    """The exponent of a curve, marked where it rests on rounds beside other work; empty where it has none."""
    return exponent(found.exponent) + (f" {MARK}" if found.disturbed else "") if found.exponent else ""


def varying(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the fields in which the cells differ, in the order of the fields; a default is as good as none."""
    own = [{name: value for name, value in cell.items() if not is_default(name, value)} for cell in cells]
    names = list(dict.fromkeys(name for cell in own for name in cell))
    return [name for name in names if len({str(cell.get(name)) for cell in own}) > 1]


def task(name: object) -> str:
    return tasks.find(str(name)).words if name in tasks.names() else str(name)


def noun(task_name: object) -> str:
    """The task as a thing that has a cost: ``a training step``."""
    return tasks.find(str(task_name)).noun if task_name in tasks.names() else str(task_name)


def variant(fields: Mapping[str, Any]) -> str:
    """``mamba/numba``, ``attention(n_heads=2)/sdpa``"""
    return str(variant_of(fields))


def metric(name: str) -> str:
    """A cost or a metric of ranking."""
    return METRIC_NAMES.get(name) or ranking_metric(name)


_METRIC_WORDS = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "hit_rate": "hit rate"}


def ranking_metric(name: str) -> str:
    """``NDCG@10``, ``hit rate@10``"""
    kind, at, k = name.partition("@")
    part, _, rest = kind.partition("_") if kind.startswith(("repeated_", "explored_")) else ("", "", kind)
    return _METRIC_WORDS.get(rest, rest) + at + k + (part and f", {part}")


def mean(each: Mean, digits: int = 4) -> str:
    """``0.0812 (0.0771 to 0.0853)``"""
    value, low, high = (f"{x:.{digits}f}".replace("-", MINUS) for x in (each.value, each.low, each.high))
    return value if math.isnan(each.low) else f"{value} ({low} to {high})"


def comparison(found: Comparison) -> str:
    """One sentence on two models."""
    metric = ranking_metric(found.metric)
    if found.verdict == "no difference found":
        least = "" if math.isnan(found.smallest) else f"; one of {smallest(found)} would probably have shown"
        return f"no difference found between {found.first} and {found.second} in {metric}{least}"
    better, worse = (found.first, found.second) if found.verdict == "better" else (found.second, found.first)
    by = abs(found.difference.value)
    low, high = sorted((abs(found.difference.low), abs(found.difference.high)))
    return f"{better} ranks better than {worse}, by {by:.3f} in {metric} (95 %: {low:.3f} to {high:.3f})"


def gate(found: Gate) -> str:
    """One sentence on what a data set can show."""
    metric, least, gap = ranking_metric(found.metric), f"{found.smallest:.4f}", f"{found.gap:.4f}".replace("-", MINUS)
    late = found.recent > max(found.gap, 0)
    drift = (
        f"; what was liked lately is {found.recent:.4f} above popularity, so that drift decides here" if late else ""
    )
    told = f"the best collaborative baseline, {found.best}, is {gap} above popularity in {metric}"
    if found.is_open:
        times_ = times(found.gap / found.smallest)
        return (
            f"{found.dataset} can tell models apart: {told}, {times_} the smallest visible difference ({least}){drift}."
        )
    return (
        f"{found.dataset} cannot tell models apart: {told}, less than the smallest visible difference ({least}){drift}."
    )


def best(against: Sequence[Comparison]) -> str:
    """One sentence on the model with the highest score and all others."""
    beaten = [f"{each.second} (by {each.difference.value:.3f})" for each in against if each.verdict == "better"]
    open_ = [each for each in against if each.verdict != "better"]
    told = [f"{against[0].first} scores highest in {ranking_metric(against[0].metric)}"]
    told += [f"it ranks better than {', '.join(beaten)}"] if beaten else []
    if open_:
        found = f"no difference found to {', '.join(each.second for each in open_)}"
        largest = max(open_, key=lambda each: 0.0 if math.isnan(each.smallest) else each.smallest)
        told.append(found if math.isnan(largest.smallest) else f"{found}, where {smallest(largest)} would have shown")
    return "; ".join(told)


def smallest(found: Comparison) -> str:
    """The least difference that would have shown, beside the score: ``0.0120 (15% of 0.0800)``"""
    share = f" ({percent(found.smallest / found.score)} of {found.score:.4f})" if found.score > 0 else ""
    return NONE if math.isnan(found.smallest) else f"{found.smallest:.4f}{share}"


def setting(fields: Mapping[str, Any], *, only: Iterable[str] | None = None) -> str:
    """``cpu, float32, B 32, 4 layers, d 64``; defaults are left out, but of what every number depends on."""
    wanted = fields.keys() if only is None else set(only)
    text = ", ".join(
        field(name, value)
        for name, value in fields.items()
        if name in wanted
        and name not in ("task", "op", "n_tokens", *VARIANT)
        and (only is not None or name in ("device", "dtype") or not is_default(name, value))
    )
    return re.sub(r"\b1 layers", "1 layer", text)


def field(name: str, value: object) -> str:
    """One value of a cell: ``B 32``."""
    form = BY_FIELD[name].words if name in BY_FIELD else ""
    shown = f"{value:,}" if "{:,}" in form and number(value) is not None else str(value)
    return form.replace("{:,}", "{}").replace("{}", shown) or f"{name} {value}"


def cell(summary: CellSummary) -> str:
    """``train step, mamba/numba, L 1,000, B 32, 4 layers, d 64, float32, cpu``"""
    return fields(summary.cell)


def fields(cell: Mapping[str, Any]) -> str:
    """A cell's fields in words, whatever they are."""
    named = variant(cell) if "mixer" in cell or "op" in cell else ""
    n_tokens = number(cell.get("n_tokens"))
    where = f"L {n_tokens:,.0f}" if n_tokens is not None else ""
    return ", ".join(part for part in (task(cell.get("task")), named, where, setting(cell)) if part)


def crossover(found: Crossover) -> str:
    """One sentence that says which of two mixers costs less where; only what the readings can tell."""
    cheaper, dearer = found.cheaper.mixer, found.dearer.mixer
    less = {TIME: "faster", MEMORY: "leaner"}.get(found.metric, "cheaper")
    if found.outcome == "alone":
        return f"only {cheaper} ran; {dearer} gave no number at any length"
    clear, star = found.clear, found.n_tokens
    many = len(found.lengths) > 1
    span = f"measured L ({found.lengths[0]:,} to {found.lengths[-1]:,})"
    if not clear:
        where = f"at any {span}" if many else f"at L = {found.lengths[0]:,}"
        return f"no clear difference between {cheaper} and {dearer} {where}"
    single = " (single readings, no interval)" if math.isnan(found.ratios[-1].low) else ""
    open_at = [f"{n:,}" for n in found.lengths if n not in clear]
    rest = f"; no clear difference at L = {', '.join(open_at)}" if open_at else ""
    sizes = (max(ratio.value, 1 / ratio.value) for ratio in found.ratios)
    factors = dict(zip(found.lengths, map(times, sizes), strict=True))
    if not many:
        factors[clear[-1]] = factor(found.ratios[0])
    by = f", by {factors[clear[-1]]} at L = {clear[-1]:,}{single}{rest}"
    if found.outcome == "always":
        if many and len(clear) > 1:
            by = f", by {factors[clear[0]]} at L = {clear[0]:,} and {by.removeprefix(', by ')}"
        where = f" at every {span}" if many and not open_at else ""
        return f"{cheaper} is {less} than {dearer}{where}{by}"
    if found.outcome == "bounded":
        low, high = round(star.low), round(star.high)
        return (
            f"L* lies between {low:,} and {high:,}: {dearer} is {less} than {cheaper} up to L = {low:,} "
            f"and gives no number at L = {high:,}, where {cheaper} does{single}{rest}"
        )
    within = "" if math.isnan(star.low) else f" (95 %: {star_interval(found)})"
    if len(found.crossings) > 1:
        others = ", ".join(length(n) for n in found.crossings[:-1])
        return (
            f"{cheaper} is {less} than {dearer} from L* = {length(star.value)} on{within}{by} "
            f"(the order also changes at L = {others})"
        )
    return f"{dearer} is {less} up to L* = {length(star.value)}{within}, {cheaper} from there on{by}"


def cheapest(found: Sequence[Standing]) -> str:
    """One sentence on which of many mixers costs least from which L to which."""
    least = {TIME: "fastest", MEMORY: "leanest"}.get(found[0].metric, "cheapest")

    def who(each: Standing) -> str:
        names = sorted(variant.mixer for variant in each.cheapest)
        return " or ".join(names) if len(names) <= MOST_NAMED else f"no single one ({len(names)} alike)"

    spans = []
    for names, group in itertools.groupby(found, who):
        lengths = [each.n_tokens for each in group]
        spans.append((names, f"L = {lengths[0]:,}" + (f" to {lengths[-1]:,}" if len(lengths) > 1 else "")))
    (names, where), *others = spans
    told = [f"{names} is {least} at {where}", *(f"{names} at {where}" for names, where in others)]
    last = found[-1]
    ahead = ""
    if len(last.cheapest) == 1 and len(last.order) > 1:
        second = last.order[1]
        ahead = f"; at L = {last.n_tokens:,} {second.mixer} takes {factor(last.over[second])} as much"
    return ", ".join(told) + ahead


def factor(ratio: Estimate) -> str:
    """``2.0x (95 %: 1.9x to 2.1x)``"""
    return times(ratio.value) + ("" if math.isnan(ratio.low) else f" (95 %: {times(ratio.low)} to {times(ratio.high)})")


def limit(found: Limit) -> str:
    """One sentence on a crossover at the limit, and how much of a gap the implementations are."""
    cheaper, dearer = found.cheaper.mixer, found.dearer.mixer
    where = "at every L" if found.n_tokens == SHORTEST else f"from L* = {found.n_tokens:,} on"
    told = (
        f"at the limit of this machine {cheaper} would be faster than {dearer} {where}, by {times(found.gap)} at "
        f"L = {found.longest:,}, where {cheaper} reaches {percent(found.shares[0])} of its limit and {dearer} "
        f"{percent(found.shares[1])}"
    )
    if max(found.shares) > 1:
        return f"{told}: more than all, so that a rate was measured too low"
    if math.isnan(found.measured) or abs(found.shares[0] - found.shares[1]) <= SHARES_ALIKE:
        return told
    factor = found.measured / found.gap
    change = f"narrows the gap by {times(1 / factor)}" if factor < 1 else f"widens the gap by {times(factor)}"
    return f"{told}: implementation {change}"


def star(found: Crossover) -> str:
    """L* alone, for tables: ``430``, ``1,000 to 3,000``."""
    if found.outcome == "bounded":
        return f"{length(found.n_tokens.low)} to {length(found.n_tokens.high)}"
    return length(found.n_tokens.value)


def star_interval(found: Crossover) -> str:
    """``319 to 359``"""
    low, high = length(found.n_tokens.low), length(found.n_tokens.high)
    return low if low == high else f"{low} to {high}"
