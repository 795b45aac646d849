"""L* at the limit against a search through every L; pairs and disturbed readings in verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.analysis.crossover import find_crossovers
from bench.analysis.limit import least_curve, limit_of
from bench.analysis.scaling import summarise
from bench.plan.tower import feature_spec
from bench.records.store import Run
from bench.render import words
from bench.render.findings import Findings
from bench.render.page import render
from ftmamba import AttentionSpec, EncoderSpec, MambaSpec, encoder_cost

RATES = {"roof_flops_per_s": 1e11, "roof_exps_per_s": 1e10, "roof_bytes_per_s:1000": 1e11}
META = {"machine": {"roof": {"float32": RATES}}}
SPECS = {"mamba": MambaSpec(), "attention": AttentionSpec()}
COSTS = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}  # equal at L = 500


def least(mixer: str, n_tokens: int) -> float:
    """By hand: arithmetic or exponentials, whichever takes longer; bytes move as fast as arithmetic needs them."""
    spec = EncoderSpec(mixer=SPECS[mixer], d_model=64, n_layers=2)
    cost = encoder_cost(spec, feature_spec(n_tokens), 8, "forward")
    return max(cost.flops / 1e11, cost.exps / 1e10, cost.min_bytes / 1e11)


def test_the_limit_is_where_least_times_cross(planted_records) -> None:
    summary = summarise(planted_records(COSTS))
    (found,) = [each for each in summary.crossovers if each.metric == "wall_s"]
    limit = limit_of(found, summary.cells, META)
    star = max(n for n in range(2, 3000) if least("attention", n) <= least("mamba", n)) + 1
    gap = least("attention", 10_000) / least("mamba", 10_000)
    assert limit.n_tokens == star
    assert (limit.cheaper.mixer, limit.longest, limit.measured) == ("mamba", 10_000, pytest.approx(20))
    assert limit.gap == pytest.approx(gap)
    assert limit.shares == pytest.approx((least("mamba", 10_000) / 0.01, least("attention", 10_000) / 0.2))
    assert least_curve(found.setting | {"mixer": "mamba", "backend": "numba"}, META, [100]) == [
        (100, pytest.approx(least("mamba", 100)))
    ]


def test_without_rates_or_a_cost_model_there_is_no_limit(planted_records) -> None:
    summary = summarise(planted_records(COSTS))
    (found,) = [each for each in summary.crossovers if each.metric == "wall_s"]
    assert limit_of(found, summary.cells, {}) is None
    other = summarise(planted_records({"mamba": COSTS["mamba"], "somebodys": COSTS["attention"]}))
    (found,) = [each for each in other.crossovers if each.metric == "wall_s"]
    assert limit_of(found, other.cells, META) is None


@pytest.mark.parametrize("odd", [{"n_tokens": 10**13}, {"note": float("nan")}, {"params": "none"}, {"d_model": -1}])
def test_records_of_cells_that_cannot_be_make_a_page_without_a_limit(planted_records, odd) -> None:
    records = [replace(record, cell={**record.cell, **odd}) for record in planted_records(COSTS)]
    assert "at the limit of this machine" not in render(Findings.of([Run("planted", META, records)]))


def test_a_gap_is_split_into_limit_and_implementation(planted_records) -> None:
    """Attention at 4 times its least time, Mamba at twice its own: half of the gap's growth is implementation."""
    costs = {"mamba": lambda n: 2 * least("mamba", round(n)), "attention": lambda n: 4 * least("attention", round(n))}
    summary = summarise(planted_records(costs))
    (found,) = [each for each in summary.crossovers if each.metric == "wall_s"]
    told = words.limit(limit_of(found, summary.cells, META))
    assert told.endswith(
        "where mamba reaches 50% of its limit and attention 25%: implementation widens the gap by 2.0x"
    )
    assert "at the limit of this machine mamba would be faster than attention from L* = " in told
    page = render(Findings.of([Run("planted", META, planted_records(costs))]))
    assert "at the limit of this machine mamba would be faster" in page
    assert "limit, in the mixer's colour" in page


def paired(records, ratio: float):
    """The same, attention in turns with Mamba."""
    name, result = "mamba/numba", []
    for each in records:
        if each.cell["mixer"] == "attention":
            samples, notes = {**each.samples, "paired_ratio": [ratio] * 10}, {**each.notes, "paired_with": name}
            each = replace(each, cell={**each.cell, "paired_with": name}, samples=samples, notes=notes)
        result.append(each)
    return result


def disturbed(records):
    return [replace(record, env={"other_busy_cores": 1.0}) for record in records]


def only_time(records):
    return [each for each in find_crossovers(summarise(records).cells) if each.metric == "wall_s"]


def test_readings_in_turns_speak_before_those_that_were_not(planted_records) -> None:
    """Medians scatter by a factor of three and say nothing; the pairs say 2.5 everywhere."""
    equal = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 1e-6 * n}
    (found,) = only_time(paired(planted_records(equal, between=1.0, within=0.1), 2.5))
    assert (found.outcome, found.cheaper.mixer) == ("always", "mamba")
    assert [ratio.value for ratio in found.ratios] == pytest.approx([2.5] * len(found.lengths))
    (alone,) = only_time(planted_records(equal, between=1.0, within=0.1))
    assert alone.outcome == "unclear"


def test_a_gap_is_split_by_the_pairs_and_only_where_there_is_one(planted_records) -> None:
    """Medians say one thing, pairs another: 3 at L = 10,000, where the limit allows some 24."""
    equal = {"mamba": lambda n: 1e-4 * n, "attention": lambda n: 1e-4 * n}
    cells = summarise(paired(planted_records(equal), 3.0)).cells
    (found,) = [each for each in find_crossovers(cells) if each.metric == "wall_s"]
    limit = limit_of(found, cells, META)
    assert limit.measured == pytest.approx(3.0)
    assert limit.shares[1] / limit.shares[0] == pytest.approx(limit.gap / 3)
    alike = summarise(planted_records(equal, between=0.3, within=0.1))
    (found,) = [each for each in alike.crossovers if each.metric == "wall_s"]
    assert "implementation" not in words.limit(limit_of(found, alike.cells, META))
    fast = summarise(planted_records({mixer: lambda n: 1e-9 * n for mixer in equal}))
    (found,) = [each for each in fast.crossovers if each.metric == "wall_s"]
    assert words.limit(limit_of(found, fast.cells, META)).endswith("more than all, so that a rate was measured too low")


def test_disturbed_readings_give_no_verdict_unless_in_turns(planted_records) -> None:
    records = disturbed(planted_records(COSTS))
    assert only_time(records) == []
    page = render(Findings.of([Run("planted", META, records)]))
    assert "readings ran beside other work" in page
    assert "is faster" not in page
    (found,) = only_time(disturbed(paired(planted_records(COSTS), 3.0)))
    assert [ratio.value for ratio in found.ratios] == pytest.approx([3.0] * len(found.lengths))


def test_one_disturbed_length_is_left_out(planted_records) -> None:
    records = planted_records(COSTS)
    some = [
        *disturbed(r for r in records if r.cell["n_tokens"] == 1000),
        *(r for r in records if r.cell["n_tokens"] != 1000),
    ]
    (found,) = only_time(some)
    assert 1000 not in found.lengths
    assert len(found.lengths) > 1
