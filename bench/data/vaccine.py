"""Vaccination messages, simulated: who answers which message, calibrated to what trials published.

Individual answers to vaccination messages are not public. Published are averages: over 19 messages to 47,306 patients
the uptake rose from about 42 % by 2.1 points, by 4.6 with the best message (Milkman et al., PNAS 2021,
doi 10.1073/pnas.2101165118; the control rate is implied by the relative lift). The message effects here have that mean
and that spread. A 7-message trial with individual data (Kato, Sasaki, Ohtake, 2024) checks them in the tests: its arms
must not spread more than these effects and its sample size make likely.

**Not calibrated, because nobody published it:** how much the best message differs from person to person. Here it does
so by ``PERSONAL`` log-odds (one standard deviation). A ranking result on this data set is a result about that
assumption. The best ranking is known (baseline ``oracle``).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats
from scipy.special import expit

from bench.data.dataset import Adapter, DataSet, Table
from bench.data.simulated import draw

Floats = npt.NDArray[np.float64]

N_USERS = 8000
MESSAGES_EACH = 20  # 160,000 pairs, as many as in arXiv 2409.17165
DAY_S = 86_400

CONTROL_RATE = 0.42
MEAN_LIFT = 0.021
BEST_LIFT = 0.046
N_ARMS = 19
PERSONAL = 0.5
TRAITS = 4  # hidden directions in which people, and messages, differ

FRAMINGS = ("facts", "age", "protects others", "protects you", "what others do", "deadline", "convenience", "reserved")
SENDERS = ("doctor", "pharmacy", "health office")
CHANNELS = ("text", "letter")
REMINDERS = (1, 2)


def load(folder: Path) -> DataSet:
    """Draw the data set; it is the same every time."""
    random = np.random.default_rng(0)
    users, trait, willing = _users(random)
    items, appeal, standing = _messages(random)
    effect = _effects(willing, trait @ appeal.T, standing)
    return draw(
        random, (trait, appeal), (willing, effect), each=MESSAGES_EACH, moments=365, moment_s=DAY_S,
        name=ADAPTER.name,
        users=Table(
            frame=users, key="person", numeric=("age", "years_of_school", "distance_km"),
            categorical=("sex", "vaccinated_last_season", "chronic_condition", "insurance", "district"),
        ),
        items=Table(
            frame=items, key="message", numeric=("words", "urgency"),
            categorical=("framing", "sender", "channel", "reminders"),
        ),
        negatives="observed",
    )  # fmt: skip


def _users(random: np.random.Generator) -> tuple[pd.DataFrame, Floats, Floats]:
    """People, their hidden traits, and their log-odds of coming without a message."""
    n = N_USERS
    age = np.clip(random.normal(50.6, 16.3, n), 18, 95).round()  # as in Buttenheim et al., JAMA Netw Open 2022
    school = np.clip(random.normal(13, 3, n), 4, 22).round()
    distance = random.lognormal(1.0, 0.8, n)
    before = random.random(n) < 0.405  # vaccinated the season before, same source
    chronic = random.random(n) < expit((age - 60) / 15)
    sex = np.where(random.random(n) < 0.554, "f", "m")
    insurance = random.choice(["public", "private", "none"], n, p=[0.5, 0.42, 0.08])
    frame = pd.DataFrame(
        {
            "person": np.arange(n), "age": age, "years_of_school": school, "distance_km": distance, "sex": sex,
            "vaccinated_last_season": before.astype(int), "chronic_condition": chronic.astype(int),
            "insurance": insurance, "district": random.integers(0, 40, n),
        }
    )  # fmt: skip
    scaled = np.stack([(age - 50) / 16, (school - 13) / 3, np.log(distance) - 1, 2.0 * before - 1], axis=1)
    mixing = random.standard_normal((scaled.shape[1], TRAITS)) / 2
    trait = scaled @ mixing + 0.5 * random.standard_normal((n, TRAITS))
    trait = (trait - trait.mean(axis=0)) / trait.std(axis=0)
    leaning = 1.2 * (2.0 * before - 1) + 0.2 * (age - 50) / 16 - 0.2 * (np.log(distance) - 1)
    leaning += 0.5 * random.standard_normal(n)
    return frame, trait, leaning + _shift(leaning, CONTROL_RATE)


def _shift(leaning: Floats, rate: float) -> float:
    """What to add to log-odds so that their mean probability is ``rate``."""
    return float(optimize.brentq(lambda shift: expit(leaning + shift).mean() - rate, -20, 20, xtol=1e-14))


def _messages(random: np.random.Generator) -> tuple[pd.DataFrame, Floats, Floats]:
    """Messages, whom they appeal to, and how they stand in general (mean 0, deviation 1)."""
    rows = list(itertools.product(FRAMINGS, SENDERS, CHANNELS, REMINDERS))
    frame = pd.DataFrame(rows, columns=["framing", "sender", "channel", "reminders"])
    n = len(frame)
    frame.insert(0, "message", np.arange(n))
    frame["words"] = random.integers(12, 90, n).astype(float)
    frame["urgency"] = random.random(n).round(2)
    parts = [
        np.asarray(random.standard_normal((len(names), 1 + TRAITS)))[frame[column].map(names.index)]
        for column, names in (
            ("framing", FRAMINGS),
            ("sender", SENDERS),
            ("channel", CHANNELS),
            ("reminders", REMINDERS),
        )
    ]
    mixed = parts[0] + 0.4 * parts[1] + 0.4 * parts[2] + 0.4 * parts[3] + 0.4 * random.standard_normal((n, 1 + TRAITS))
    mixed = (mixed - mixed.mean(axis=0)) / mixed.std(axis=0)
    appeal = mixed[:, 1:] * PERSONAL / TRAITS**0.5
    return frame, appeal, mixed[:, 0]


def _effects(willing: Floats, personal: Floats, standing: Floats) -> Floats:
    """What each message adds to the log-odds of everybody, so that uptake over people is as published."""
    base = expit(willing[:, None] + personal)
    spread = lift_deviation() / float((base * (1 - base)).mean()) * standing
    return spread + _shift(willing[:, None] + personal + spread, CONTROL_RATE + MEAN_LIFT)


def lift_deviation() -> float:
    """Deviation of the messages' lifts, from the mean and the best of ``N_ARMS`` of them.

    The best of n normal draws lies about ``ppf((n - 0.375) / (n + 0.25))`` deviations above their mean (Blom, 1958).
    """
    return (BEST_LIFT - MEAN_LIFT) / float(stats.norm.ppf((N_ARMS - 0.375) / (N_ARMS + 0.25)))


ADAPTER = Adapter(
    name="vaccine",
    about="160,000 simulated answers of 8,000 people to 96 vaccination messages, calibrated to published trials",
    licence="generated",
    homepage="bench/data/vaccine.py",
    load=load,
    simulated=True,
)
