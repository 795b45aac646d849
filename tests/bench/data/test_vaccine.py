"""The calibration of the simulated vaccination messages against a trial that it was not made from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from bench.data import vaccine

# Antibody tests taken, by message (Kato, Sasaki, Ohtake, 2024), of the men who had a voucher and of those who had not.
RATES = ((0.035, 0.067, 0.109, 0.090, 0.087, 0.042, 0.072), (0.005, 0.009, 0.021, 0.015, 0.028, 0.013, 0.010))
MEN = 2272 // 14  # an arm


@pytest.mark.parametrize("rates", RATES)
def test_message_effects_are_not_refuted_by_the_rubella_trial(rates: tuple[float, ...]) -> None:
    """Arms with these effects spread at least as much as the trial's did in more than a twentieth of the draws."""
    random = np.random.default_rng(0)
    variance = vaccine.CONTROL_RATE * (1 - vaccine.CONTROL_RATE)
    spread = vaccine.lift_deviation() / variance  # in log-odds, which carry over to other rates
    truth = expit(float(logit(np.mean(rates))) + spread * random.standard_normal((4000, len(rates))))
    drawn = random.binomial(MEN, truth) / MEN
    assert (drawn.std(axis=1) >= np.std(rates)).mean() > 0.05
