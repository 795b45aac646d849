"""The truth tests on a reduced size, and that each of them can fail."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace

import pytest

import bench.selftest
from bench.analysis.scaling import summarise
from bench.records.record import Record
from bench.truth import curves, intervals, measured, memory, timer, turns, verdicts
from bench.truth.finding import Finding, judge_error, judge_share, median_interval

STEADY = ("peak of", "L* of memory", "intervals of")


def test_the_benchmark_passes_its_truth_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that no load of the machine touches; how the others are judged is tested below, on planted records."""
    others = ",".join(name for name in bench.selftest.CHECKS if name != "turns")  # which takes its time to start
    code = bench.selftest.main(["--quick", "--json", "--checks", others])
    told = json.loads(capsys.readouterr().out)
    findings = {each["name"]: each for each in told["findings"]}
    assert sum(told["counts"].values()) == len(findings) == 14
    steady = [each for name, each in findings.items() if name.startswith(STEADY)]
    assert [each["outcome"] for each in steady] == ["pass"] * 7
    assert code == ("fail" in told["counts"])


@pytest.mark.parametrize(
    ("error", "low", "high", "disturbed", "outcome"),
    [(0.04, -1, 1, False, "pass"), (-0.04, -0.041, -0.039, False, "pass"), (0.06, 0.04, 0.08, False, "ambiguous"),
     (0.06, 0.055, 0.065, False, "fail"), (-0.06, -0.065, -0.055, False, "fail"), (0.9, 0.8, 1.0, True, "ambiguous")],
)  # fmt: skip
def test_an_error_beyond_its_own_uncertainty_fails(error, low, high, disturbed, outcome) -> None:
    assert judge_error(error, low, high, 0.05, disturbed=disturbed) == outcome


@pytest.mark.parametrize(
    ("count", "total", "outcome"), [(10, 200, "pass"), (12, 200, "ambiguous"), (30, 200, "fail"), (1, 10, "ambiguous")]
)
def test_a_share_beyond_its_binomial_interval_fails(count, total, outcome) -> None:
    assert judge_share(count, total, at_most=0.05) == outcome
    assert judge_share(total - count, total, at_least=0.95) == outcome


def test_the_median_of_few_values_has_students_interval() -> None:
    centre, low, high = median_interval([1.0, 2.0, 6.0])
    assert centre == 2.0
    # 4.303 is Student's t with two degrees of freedom; the standard deviation is sqrt(7).
    assert high - centre == centre - low == pytest.approx(4.303 * 7**0.5 * (3.14159265 / 2 / 3) ** 0.5, rel=1e-3)


def curve_records(planted_records, factor):
    costs = {law: lambda n, turns=turns: 1e-9 * turns(n) ** factor for law, turns in curves.TURNS.items()}
    return planted_records(costs, lengths=curves.LENGTHS, between=0.001, within=0.001)


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (1.1, "fail"), (0.9, "fail")])
def test_a_wrong_exponent_fails(planted_records, factor, outcome) -> None:
    for scaling in summarise(curve_records(planted_records, factor)).scalings:
        assert curves.judge_exponent(scaling, disturbed=False).outcome == outcome


def test_a_wrong_crossing_fails(planted_records) -> None:
    found = summarise(curve_records(planted_records, 1.0)).crossovers
    (right,) = [each for each in found if {each.cheaper.mixer, each.dearer.mixer} == {curves.LINEAR, curves.QUADRATIC}]
    assert curves.judge_crossing(right, disturbed=False).outcome == "pass"
    shifted = replace(right, n_tokens=right.n_tokens.map(1.1))
    assert curves.judge_crossing(shifted, disturbed=False).outcome == "fail"
    backwards = replace(right, cheaper=right.dearer, dearer=right.cheaper)
    assert curves.judge_crossing(backwards, disturbed=False).outcome == "fail"


def test_a_wrong_peak_fails() -> None:
    assert memory.judge_peak("a", [1000, 1019], 1000).outcome == "pass"
    assert memory.judge_peak("a", [1000, 1021], 1000).outcome == "fail"
    assert memory.judge_peak("a", [], 1000).outcome == "ambiguous"


def test_a_refused_cell_that_is_not_taken_as_a_bound_fails(planted_records, without_number) -> None:
    costs = {name: lambda n: 1.0 for name in memory.BYTES}
    records = planted_records(costs, memory=memory.BYTES, lengths=memory.LENGTHS)
    for limit, outcome in (("memory", "pass"), ("time", "fail")):
        refused = without_number(records, "oom", limit, mixer=memory.QUADRATIC, n_tokens=memory.LENGTHS[-1])
        (found,) = [each for each in summarise(refused).crossovers if each.metric == memory.MEMORY]
        assert memory.judge_bound(found).outcome == outcome
    assert memory.judge_bound(None).outcome == "fail"


def test_wrong_verdicts_fail() -> None:
    assert verdicts.judge_like(Counter(same=190, slower=10)).outcome == "pass"
    assert verdicts.judge_like(Counter(same=160, faster=40)).outcome == "fail"
    assert verdicts.judge_slower(Counter(slower=195, ambiguous=5)).outcome == "pass"
    assert verdicts.judge_slower(Counter(ambiguous=200)).outcome == "ambiguous"
    assert verdicts.judge_slower(Counter(slower=199, same=1)).outcome == "ambiguous"
    assert verdicts.judge_slower(Counter(slower=180, same=20)).outcome == "fail"


def test_the_check_of_turns_counts_each_kind_alone_and_beside_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds_of(jobs, versions, plan, threads, run, undecided):
        beside.append(len(busy))
        for round_ in range(plan["rounds"]):
            for cell, mine, other in jobs:
                ((amount,), (base,)) = mine.values(), other.values()
                samples = {"wall_s": [1.0 * amount] * 5, "paired_wall_s": [1.0 * base] * 5}
                yield Record(run=run, cell_id=cell.id, round=round_, cell=dict(cell), status="ok", samples=samples)

    class Busy:
        def __init__(self, command):
            assert command == turns.BUSY

        def __enter__(self):
            busy.append(self)
            return self

        def __exit__(self, *error):
            assert self not in busy

        def kill(self):
            busy.remove(self)

    busy: list[Busy] = []
    beside: list[int] = []
    monkeypatch.setattr(turns.turns, "rounds_of", rounds_of)
    monkeypatch.setattr(turns.subprocess, "Popen", Busy)
    findings = turns.check_turns(quick=False)
    pairs = turns.RUNS * turns.PAIRS * len(turns.WORK)
    assert [each.name for each in findings] == [
        f"{kind} in turns, {where}, {pairs} pairs" for where in turns.BESIDE for kind in ("A/A", "5 % slow-down")
    ]
    assert [each.outcome for each in findings] == ["pass"] * 4
    assert beside == [0] * turns.RUNS + [1] * turns.RUNS


def test_biased_readings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    true = intervals.PlantedClock.read
    monkeypatch.setattr(intervals.PlantedClock, "read", lambda *a: [1.1 * each for each in true(*a)])
    medians, _, _ = intervals.check_intervals(quick=True)
    assert medians.outcome == "fail"


def test_a_reading_that_differs_from_the_other_timer_fails() -> None:
    errors, calm, drifting = [0.05, 0.051, 0.049, 0.05], [0.001, 0.002, 0.0, 0.001], [0.001, 0.04, 0.04, 0.05]
    assert timer.judge([0.0, 0.3, -0.3, 0.01], calm, disturbed=False)["outcome"] == "pass"
    assert timer.judge(errors, calm, disturbed=False)["outcome"] == "fail"
    assert timer.judge(errors, drifting, disturbed=False)["outcome"] == "ambiguous"
    assert timer.judge(errors, calm, disturbed=True)["outcome"] == "ambiguous"


def test_without_the_other_timer_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer.importlib.util, "find_spec", lambda name: None)
    (finding,) = timer.check_timer(quick=True)
    assert (finding.outcome, finding.figure) == ("ambiguous", "pyperf is not installed (extra dev)")


def test_a_timer_that_does_not_end_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "TIMEOUT_S", 0.01)
    (finding,) = timer.check_timer(quick=True)
    assert (finding.outcome, finding.figure) == ("ambiguous", "pyperf did not end within 0.01 s")


def test_a_failed_truth_test_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Finding(name="good", figure="1 [1, 1]", mark="1", outcome="pass")
    monkeypatch.setattr(bench.selftest, "CHECKS", {"a": lambda *, quick: [good, replace(good, outcome="fail")]})
    assert bench.selftest.main(["--checks", "a", "--quiet"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"fail       {'good':32}  1 [1, 1]  (mark: 1)",
        "2 truth tests: 1 pass, 0 ambiguous, 1 fail",
    ]


@pytest.mark.parametrize("arguments", [["--checks", "none"], ["--checks", ""], ["--no-such"], ["stray"]])
def test_bad_input_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.selftest.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_a_measuring_process_that_dies_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured, "WORKER", (sys.executable, "-c", "import sys; sys.exit('gone')"))
    assert bench.selftest.main(["--checks", "memory"]) == 2
    assert capsys.readouterr().err == ("error: planted workloads could not be measured (exit code 1): gone\n")


def test_a_workload_that_fails_is_told() -> None:
    wrong = measured.Planted("run", "loop", 1, {"turns": "many"})
    with pytest.raises(measured.TruthError, match="the planted loop at L = 1 failed: TypeError"):
        measured.measure([wrong], rounds=1, budget_s=0.1)
