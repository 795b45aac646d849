"""Verdicts against planted truth: A/A pairs, planted slow-downs, noise that allows no verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

from bench.analysis.compare import compare, differences, effect
from bench.records.store import Run

COSTS = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}


def slower(costs, factor):
    return {name: lambda n, cost=cost: factor * cost(n) for name, cost in costs.items()}


def pair(planted_records, factor=1.0, *, seed=0, **noise):
    before = planted_records(COSTS, seed=2 * seed, **noise)
    after = planted_records(slower(COSTS, factor), seed=2 * seed + 1, **noise)
    return Run("before", {}, before), Run("after", {}, after)


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_a_run_against_its_like_gets_few_wrong_verdicts(planted_records, rounds):
    """Ten cells a pair, sixty pairs: about 5 % of pairs at most have any cell called faster or slower."""
    wrong = 0
    for seed in range(60):
        change = compare(*pair(planted_records, seed=seed, rounds=rounds, between=0.02, within=0.03))
        wrong += any(each.verdict in ("faster", "slower") for each in change.cells)
    assert wrong <= 6


@pytest.mark.parametrize(("factor", "verdict"), [(1.05, "slower"), (1 / 1.05, "faster")])
def test_a_planted_change_of_five_percent_is_found(planted_records, factor, verdict):
    found = total = 0
    for seed in range(30):
        change = compare(*pair(planted_records, factor, seed=seed, rounds=3, between=0.005, within=0.02, n_samples=30))
        found += sum(each.verdict == verdict for each in change.cells)
        total += len(change.cells)
    assert total == 300
    assert found / total >= 0.95


def test_noise_that_hides_a_change_is_never_called_same(planted_records):
    """A true slow-down of 5 % with noise of 5 % between rounds."""
    counts = {"same": 0, "ambiguous": 0, "slower": 0, "faster": 0}
    for seed in range(30):
        for each in compare(*pair(planted_records, 1.05, seed=seed, rounds=2, between=0.05)).cells:
            counts[each.verdict] += 1
    assert counts["ambiguous"] > 200
    assert counts["same"] + counts["faster"] <= 3


def test_equal_runs_with_little_noise_are_the_same(planted_records):
    change = compare(*pair(planted_records, rounds=5, between=0.003))
    assert change.counts() == {"same": 10}


def test_a_certain_difference_within_the_margin_is_same(planted_records):
    change = compare(*pair(planted_records, 1.01, rounds=5, between=0.001), margin=0.03)
    assert change.counts() == {"same": 10}
    change = compare(*pair(planted_records, 1.01, rounds=5, between=0.001), margin=0.002)
    assert change.counts() == {"slower": 10}


def test_the_interval_of_the_ratio_holds_the_truth(planted_records):
    held = total = 0
    for seed in range(60):
        for each in compare(*pair(planted_records, 1.2, seed=seed, rounds=2, between=0.04)).cells:
            held += each.ratio.low <= 1.2 <= each.ratio.high
            total += 1
    assert held / total >= 0.93


def test_without_other_cells_the_p_value_is_welchs(planted_records):
    """One cell of two rounds a run: nothing to lean on, so the test is Welch's on the logarithms."""
    one = {"lengths": (100,), "rounds": 2, "n_samples": 1, "between": 0.03}
    before, after = (planted_records({"mamba": COSTS["mamba"]}, seed=seed, **one) for seed in (1, 2))
    (each,) = compare(Run("a", {}, before), Run("b", {}, after)).cells
    logs = [[math.log(record.samples["wall_s"][0]) for record in records] for records in (before, after)]
    assert each.p == pytest.approx(stats.ttest_ind(*logs, equal_var=False).pvalue)


def test_one_round_needs_the_whole_interval_beyond_the_margin(planted_records):
    noise = {"rounds": 1, "within": 0.01, "n_samples": 200}
    change = compare(*pair(planted_records, 1.03, **noise), margin=0.05)
    assert change.single_round
    assert "slower" not in change.counts()
    assert compare(*pair(planted_records, 1.2, **noise), margin=0.05).counts() == {"slower": 10}


def test_lost_and_gained_numbers(planted_records, without_number):
    before, after = pair(planted_records, between=0.01)
    after = Run("after", {}, without_number(after.records, "oom", mixer="attention", n_tokens=10000))
    change = compare(before, after)
    (lost,) = [each for each in change.cells if each.verdict == "lost"]
    assert lost.reason == "oom: planted oom"
    assert change.failures(10.0) == [f"{lost.cell_id} lost (oom: planted oom)"]
    assert compare(after, before).counts()["gained"] == 1


def test_cells_of_one_run_alone_are_listed(planted_records):
    before = Run("a", {}, planted_records(COSTS, lengths=(100, 300)))
    after = Run("b", {}, planted_records(COSTS, lengths=(300, 1000)))
    change = compare(before, after)
    assert (len(change.cells), len(change.only_before), len(change.only_after)) == (2, 2, 2)


def test_memory_is_compared_by_its_own_readings(planted_records):
    memory = {"mamba": lambda n: 1000 * n}
    double = {"mamba": lambda n: 2000 * n}
    runs = [Run(n, {}, planted_records({"mamba": COSTS["mamba"]}, memory=m)) for n, m in (("a", memory), ("b", double))]
    change = compare(*runs, metric="peak_memory_bytes")
    assert {round(each.ratio.value, 6) for each in change.cells} == {2.0}
    assert change.counts() == {"slower": 5}
    assert compare(*runs).counts() == {"same": 5}


def test_regressions_are_those_over_the_threshold(planted_records):
    change = compare(*pair(planted_records, 1.1, rounds=3, between=0.001))
    assert len(change.failures(0.05)) == 10
    assert change.failures(0.15) == []


def test_what_differs_between_machines_is_told():
    before = {"machine": {"cpu": {"model": "A"}, "gpus": [{"name": "X"}]}, "started_at": "1", "argv": ["a"]}
    after = {"machine": {"cpu": {"model": "B"}, "gpus": []}, "started_at": "2", "argv": ["b"], "git": None}
    assert list(differences(before, after)) == [
        ("machine cpu model", "A", "B"),
        ("machine gpus 0 name", "X", ""),
        ("git", "", "None"),
    ]


def test_disturbed_cells_get_no_verdict_on_time(planted_records):
    """Beside half of the rounds of one cell others took a core; what memory they hold is as ever."""
    records = planted_records(slower(COSTS, 2.0), rounds=2, memory=slower(COSTS, 1e12))
    after = [
        replace(record, env={"other_busy_cores": 1.0})
        if record.round == 0 and (record.cell["mixer"], record.cell["n_tokens"]) == ("mamba", 300)
        else replace(record, env={"other_busy_cores": 0.02})
        for record in records
    ]
    runs = Run("before", {}, planted_records(COSTS, rounds=2, memory=slower(COSTS, 5e11))), Run("after", {}, after)
    for one, other in (runs, runs[::-1]):
        change = compare(one, other)
        assert [each.reason for each in change.cells if each.verdict == "ambiguous"] == [
            "disturbed: others took 1.0 cores"
        ]
        assert len([each for each in change.cells if each.verdict != "ambiguous"]) == 9
        assert "ambiguous" not in compare(one, other, metric="peak_memory_bytes").counts()
    assert len(compare(*runs).failures(0.05)) == 9


def test_a_score_that_fell_to_nothing_is_the_largest_effect():
    assert effect(0.0) == effect(-1e-17) > effect(1e-9) > effect(2.0) == effect(0.5) > effect(float("nan")) == 0
