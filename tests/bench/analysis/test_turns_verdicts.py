"""Verdicts from turns: against enumeration, against scipy, and on rounds with planted ratios and wild ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bench.analysis.turns import FEWEST, RISK, compare_turns, signed_ranks, undecided
from bench.records.record import Record


def rounds(logs, cell_id="a", **fields):
    """A record a round whose low quantiles have these ratios; the other readings are late by bursts."""
    late = np.repeat([1.0, 1.3, 5.0], 20)
    return [
        Record(
            run="r", cell_id=cell_id, round=i, cell={"task": "forward"}, status="ok",
            samples={"wall_s": list(0.01 * math.exp(x) * late), "paired_wall_s": list(0.01 * late[::-1])}, **fields,
        )
        for i, x in enumerate(logs)
    ]  # fmt: skip


def failed(by, cell_id="a"):
    notes = {"failed": by, "paired_with": "base"}
    return Record(run="r", cell_id=cell_id, round=8, cell={}, status="error", reason="gone", notes=notes)


def test_centre_and_interval_by_hand() -> None:
    logs = [-0.01, 0.02, 0.03, 0.05, 0.08, 0.12]
    ratio, _ = signed_ranks(logs)
    means = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(logs, 2))
    assert math.log(ratio.value) == pytest.approx(means[10])
    # With six values the range of the means is the 96.9 % interval, and there is no narrower one above 95 %.
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx((-0.01, 0.12))
    assert math.isnan(signed_ranks(logs[:5])[0].low)


@pytest.mark.parametrize("n", [5, 8, 11])
def test_p_is_the_share_of_signs_at_least_as_far(n) -> None:
    logs = np.random.default_rng(n).normal(0.5, 1, n)
    _, p = signed_ranks(logs)
    ranks = stats.rankdata(np.abs(logs))
    found = abs(ranks @ np.sign(logs))
    all_signs = np.array(list(itertools.product([-1, 1], repeat=n)))
    assert p == pytest.approx(float(np.mean(np.abs(all_signs @ ranks) >= found - 1e-9)))
    assert p == pytest.approx(float(stats.wilcoxon(logs, method="exact").pvalue))


def test_equal_readings_are_no_difference() -> None:
    assert signed_ranks([0.0] * 10)[1] == 1
    assert [each.verdict for each in compare_turns(rounds([0.0] * 10)).cells] == ["same"]


@pytest.mark.parametrize(
    ("centre", "verdict"), [(0.0, "same"), (math.log(1.05), "slower"), (-math.log(1.05), "faster"), (0.03, "slower")]
)
def test_a_wild_round_changes_no_verdict(centre, verdict) -> None:
    logs = [centre + x for x in (-0.012, 0.004, 0.009, -0.003, 0.001, -0.006, 0.011, -0.001, 0.002)]
    (change,) = compare_turns(rounds([*logs, *logs[:6], -3.0 if centre >= 0 else 3.0])).cells
    assert change.verdict == verdict
    assert math.log(change.ratio.value) == pytest.approx(centre, abs=0.005)
    assert change.after.value / change.before.value == pytest.approx(math.exp(centre), rel=0.01)


def test_few_rounds_and_scattered_ones_are_undecided() -> None:
    few, scattered = [0.05] * (FEWEST - 1), [0.05, -0.05] * 8
    assert undecided([*rounds(few, "few"), *rounds(scattered, "scattered"), *rounds([0.05] * FEWEST, "told")]) == {
        "few",
        "scattered",
    }
    assert 2 * 0.5 ** (FEWEST - 1) > RISK >= 2 * 0.5**FEWEST


def test_a_side_without_a_number() -> None:
    records = [failed("mine", "a"), failed("base", "b"), failed("mine, base", "c"), *rounds([0.0] * 8, "d")]
    change = compare_turns(records)
    assert {each.cell_id: each.verdict for each in change.cells} == {"a": "lost", "b": "gained", "d": "same"}
    assert change.failures(0.05) == ["a lost (error: gone)"]


def test_five_per_cent_are_found_and_nothing_is_not() -> None:
    """Asked after each of 16 rounds, with noise as heavy in its tails as a shared machine's."""
    rng, counts = np.random.default_rng(0), {0.0: [], math.log(1.05): []}
    for centre, found in counts.items():
        for _ in range(100):
            logs = centre + 0.015 * rng.standard_t(2, 16)
            looks = (compare_turns(rounds(logs[:n])).cells[0].verdict for n in range(FEWEST, 17))
            found.append(next((each for each in looks if each != "ambiguous"), "ambiguous"))
    like, slower = counts.values()
    assert like.count("slower") + like.count("faster") <= 0.05 * len(like)
    assert slower.count("slower") >= 0.95 * len(slower)
