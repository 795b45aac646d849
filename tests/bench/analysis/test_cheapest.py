"""Of many mixers with planted costs the cheapest at each length, and the pairs that are worth a word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.analysis.cheapest import groups_of, leading, standings
from bench.analysis.crossover import best_against_best
from bench.analysis.scaling import summarise
from bench.render import words

# Cheapest: fnet up to 300, mamba and mlp alike at 1,000, mamba from there on.
COSTS = {
    "attention": lambda n: 3e-9 * n * n + 1e-4,
    "fnet": lambda n: 2e-6 * n,
    "mamba": lambda n: 1e-6 * n + 5e-4,
    "mlp": lambda n: 1e-6 * n + 5e-4 if n <= 1000 else 2e-6 * n,
}


def found_in(records: list[Any]) -> Any:
    summary = summarise(records)
    return best_against_best(summary.crossovers, summary.cells)


def test_the_cheapest_at_each_length(planted_records: Any) -> None:
    (group,) = groups_of(found_in(planted_records(COSTS, lengths=(100, 300, 1000, 3000), between=1e-4)))
    found = standings(group)
    assert [each.n_tokens for each in found] == [100, 300, 1000, 3000]
    assert [sorted(v.mixer for v in each.cheapest) for each in found] == [
        ["attention"], ["attention"], ["mamba", "mlp"], ["mamba"],
    ]  # fmt: skip
    assert [v.mixer for v in found[-1].order] == ["mamba", "fnet", "mlp", "attention"] or [
        v.mixer for v in found[-1].order
    ] == ["mamba", "mlp", "fnet", "attention"]
    for each in found:
        first = COSTS[each.order[0].mixer](each.n_tokens)
        for variant, ratio in each.over.items():
            assert abs(ratio.value / (COSTS[variant.mixer](each.n_tokens) / first) - 1) < 0.01


def test_two_that_took_turns_with_a_third_are_compared_through_it(planted_records: Any) -> None:
    """Their own readings are wild and say the contrary."""
    costs = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-6 * n, "fnet": lambda n: 3e-6 * n}
    turns = {"attention": 3.0, "fnet": 1.5}
    records = [
        replace(
            record,
            samples={**record.samples, "paired_ratio": [(1 + 0.01 * record.round) * turns[record.cell["mixer"]]]},
            notes={"paired_with": "mamba/numba"},
        )
        if record.cell["mixer"] in turns
        else record
        for record in planted_records(costs, lengths=(100, 1000), between=0.5)
    ]
    for each in standings(found_in(records)):
        assert [v.mixer for v in each.order] == ["mamba", "fnet", "attention"]
        assert [len(each.cheapest), *(round(ratio.value, 1) for ratio in each.over.values())] == [1, 1.5, 3.0]
    (pair,) = (x for x in found_in(records) if {x.cheaper.mixer, x.dearer.mixer} == {"fnet", "attention"})
    for ratio in pair.ratios:
        assert abs(ratio.value - 2) < 0.01
        assert 1.8 < ratio.low < 2 < ratio.high < 2.2


def test_it_is_said_in_one_sentence(planted_records: Any) -> None:
    (group,) = groups_of(found_in(planted_records(COSTS, lengths=(100, 300, 1000, 3000), between=1e-4)))
    told = words.cheapest(standings(group))
    assert told.startswith(
        "attention is fastest at L = 100 to 300, mamba or mlp at L = 1,000, mamba at L = 3,000; at L = 3,000 "
    )
    assert " takes 1.7x (95 %: 1.7x to 1.7x) as much" in told


def test_pairs_are_those_that_are_cheapest_in_turn(planted_records: Any) -> None:
    pairs = leading(found_in(planted_records(COSTS, lengths=(100, 300, 1000, 3000), between=1e-4)))
    assert [{each.cheaper.mixer, each.dearer.mixer} for each in pairs] == [{"attention", "mamba"}]
    always = {name: lambda n, i=i: (1 + i) * 1e-6 * n for i, name in enumerate(("mlp", "mamba", "attention"))}
    (pair,) = leading(found_in(planted_records(always, between=1e-4)))
    assert (pair.cheaper.mixer, pair.dearer.mixer, pair.outcome) == ("mlp", "mamba", "always")
    two = found_in(planted_records({name: COSTS[name] for name in ("attention", "mamba")}))
    assert leading(two) == two


def test_what_gave_no_number_has_no_standing(planted_records: Any, without_number: Any) -> None:
    records = without_number(planted_records(COSTS, between=1e-4), "oom", mixer="attention", n_tokens=10000)
    (group,) = groups_of(found_in(records))
    by_length = {each.n_tokens: {v.mixer for v in each.order} for each in standings(group)}
    assert by_length[3000] == {*COSTS}
    assert by_length[10000] == {*COSTS} - {"attention"}
