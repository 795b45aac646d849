"""What a mixer's own parameters cost, such as the number of heads: one mixer with several values of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench.analysis.cells import MEMORY, TIME, CellSummary, identity, variant_of, without
from bench.analysis.peers import ratio
from bench.plan.cell import PARAMS
from bench.render import words
from bench.render.blocks import Block, Bullets, Column, Prose, Section, Table, fold_if_long
from bench.render.entries import NOTHING, length, multiple, reading
from bench.render.findings import Findings

ORDER = 65
TERMINAL = True
Group = dict[str, CellSummary]  # cells that differ in their parameters alone, by their parameters in words


def build(findings: Findings) -> Section | None:
    """Only where cells of one run differ in nothing but the parameters of their mixer."""
    blocks: list[Block] = []
    for mixer, groups in _by_mixer(findings).items():
        variants = sorted({name for group in groups for name in group}, key=_order(groups))
        usual = [name for name in variants if any(_is_usual(group[name]) for group in groups if name in group)]
        base = (usual or variants)[0]
        others = [name for name in variants if name != base]
        blocks.append(Bullets([*_sentences(mixer, groups, base, others)]))
        blocks += [fold_if_long(_table(findings, mixer, groups, base, others, metric)) for metric in (TIME, MEMORY)]
    about = Prose("Ratios with 95 % intervals; below 1 a value costs less than the one it is compared with.", "note")
    return Section("parameters", "What a mixer's parameters cost", [*blocks, about]) if blocks else None


def _by_mixer(findings: Findings) -> dict[str, list[Group]]:
    """Groups of two and more, by their mixer."""
    groups: dict[str, Group] = defaultdict(dict)
    for cell in findings.summary.cells:
        params = cell.cell.get(PARAMS)
        if isinstance(params, Mapping) and params:
            key = identity({"run": cell.run, **without(cell.cell, PARAMS, "paired_with")})
            groups[key][_spelled(params)] = cell
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups.values():
        if len(group) > 1:
            found[str(next(iter(group.values())).cell["mixer"])].append(group)
    for each in found.values():  # of the parameters those that differ
        names = words.varying(cell.cell[PARAMS] for group in each for cell in group.values())
        each[:] = [{_spelled(cell.cell[PARAMS], names): cell for cell in group.values()} for group in each]
    return found


def _spelled(params: Mapping[str, Any], names: list[str] | None = None) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items() if names is None or name in names)


def _is_usual(cell: CellSummary) -> bool:
    return bool(variant_of(cell.cell).mixer == cell.cell["mixer"])


def _order(groups: list[Group]) -> Any:
    """Parameters by their values, not by their digits."""
    values = {name: list(cell.cell[PARAMS].values()) for group in groups for name, cell in group.items()}
    return lambda name: [
        (str(type(each)), each if isinstance(each, int | float) else str(each)) for each in values[name]
    ]


def _sentences(mixer: str, groups: list[Group], base: str, others: list[str]) -> Iterator[str]:
    """Of each task its longest L at which both gave a number."""
    longest: dict[tuple[str, str], Group] = {}
    for group in sorted(groups, key=lambda group: next(iter(group.values())).n_tokens):
        for name in others:
            if name in group and base in group and ratio(group[base], group[name], TIME):
                longest[str(group[base].cell.get("task")), name] = group
    for (task, name), group in longest.items():
        found = ratio(group[base], group[name], TIME)
        assert found is not None
        where = f"{words.noun(task)} at L = {group[base].n_tokens:,}, {words.setting(group[base].cell)}"
        yield f"{mixer}: {name} takes {words.factor(found)} the time of {base} in {where}."


def _table(findings: Findings, mixer: str, groups: list[Group], base: str, others: list[str], metric: str) -> Table:
    def first(group: Group) -> CellSummary:
        return next(iter(group.values()))

    def over(group: Group, name: str) -> Any:
        if base not in group or name not in group:
            return reading(group.get(name), metric) if name in group else NOTHING
        return multiple(group[base], group[name], metric)

    return Table(
        name=f"parameters-{mixer}-{metric}",
        caption=f"{mixer}: {words.METRIC_NAMES[metric]} as a multiple of that with {base}",
        columns=[
            Column("task", lambda group: words.task(first(group).cell.get("task"))),
            Column("backend", lambda group: str(first(group).cell.get("backend"))),
            *findings.setting_column(lambda group: (first(group).run, first(group).cell)),
            Column("L", lambda group: length(first(group).n_tokens), numeric=True),
            Column(base, lambda group: reading(group.get(base), metric), numeric=True),
            *(Column(name, partial(over, name=name), numeric=True) for name in others),
        ],
        items=groups,
        head=3 + findings.varies,
    )
