"""Which of many mixers costs least at each length, and which pairs of them are worth a word of their own."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.cells import Variant, identity
from bench.analysis.crossover import Crossover, sign
from bench.analysis.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Standing:
    """All variants of one setting and metric at one length.

    Attributes:
        run, setting, metric: as in `Crossover`.
        n_tokens: the length.
        order: the variants that gave a number, from the cheapest on.
        over: cost of each over that of the first; of the first nothing.
    """

    run: str
    setting: Mapping[str, Any]
    metric: str
    n_tokens: int
    order: tuple[Variant, ...]
    over: Mapping[Variant, Estimate]

    @property
    def cheapest(self) -> tuple[Variant, ...]:
        """The first, and all that do not clearly cost more."""
        return tuple(each for each in self.order if each not in self.over or not sign(self.over[each]))


def groups_of(crossovers: Iterable[Crossover]) -> list[list[Crossover]]:
    """Those of one run, setting and metric together."""
    groups: dict[str, list[Crossover]] = defaultdict(list)
    for found in crossovers:
        groups[identity({"run": found.run, "setting": found.setting, "metric": found.metric})].append(found)
    return list(groups.values())


def standings(group: Sequence[Crossover]) -> list[Standing]:
    """One for each length at which two variants at least gave a number.

    Args:
        group: of one run, setting and metric.
    """
    ratios: dict[int, dict[tuple[Variant, Variant], Estimate]] = defaultdict(dict)
    for found in group:
        for n, ratio in zip(found.lengths, found.ratios, strict=True):
            ratios[n] |= {(found.dearer, found.cheaper): ratio, (found.cheaper, found.dearer): ratio.map(1.0, -1.0)}
    told = []
    for n, pairs in sorted(ratios.items()):
        lost = {each: sum(pairs[pair].value > 1 for pair in pairs if pair[0] == each) for each, _ in pairs}
        order = tuple(sorted(lost, key=lambda each: (lost[each], each)))
        over = {each: pairs[each, order[0]] for each in order[1:] if (each, order[0]) in pairs}
        told.append(
            Standing(
                run=group[0].run, setting=group[0].setting, metric=group[0].metric, n_tokens=n, order=order, over=over
            )
        )
    return told


def leading(crossovers: Sequence[Crossover]) -> list[Crossover]:
    """Of two variants their crossover; of more that of each that is cheapest and the next one to be so.

    Where one is cheapest at every length, its crossover with the second at the longest.
    """
    kept = []
    for group in groups_of(crossovers):
        found = standings(group)
        if len(group) < 2 or not found:
            kept += group
            continue
        wanted = {frozenset(pair) for pair in itertools.pairwise(_in_turn(found))} or {frozenset(found[-1].order[:2])}
        kept += [each for each in group if frozenset((each.cheaper, each.dearer)) in wanted]
    return kept


def _in_turn(found: Sequence[Standing]) -> list[Variant]:
    """Who is cheapest from the shortest length on; of some that are so alike, one that stays so longest."""
    turns: list[Variant] = []
    now: list[Variant] = []
    for each in found:
        still = [variant for variant in each.cheapest if variant in now]
        turns += now[:1] if not still else []
        now = still or list(each.cheapest)
    return [*turns, now[0]]
