"""Planted tastes: users and items with hidden vectors, tables that show them through noise, and a known best ranking.

Any size, by name: ``synthetic:users=1000:items=500:columns=64`` has 64 columns on each side, so that sequence length
and quality can be swept together. Every column says a little about the hidden vector: the first half as a number, the
others as one of a few categories. A user likes an item with probability ``sigmoid(sharpness * taste . item + bias)``.
Nothing can rank better on average than these probabilities do; the baseline ``oracle`` ranks by them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from bench.data.dataset import Adapter, DataSet, Ints, Table, interactions, split_by_time
from bench.data.files import DataError

Floats = npt.NDArray[np.float64]

SETTINGS = {"users": 1000, "items": 500, "columns": 16, "pairs": 40, "seed": 0}
LIMITS = {"users": (2, 10_000_000), "items": (2, 10_000_000), "columns": (1, 100_000), "pairs": (1, 10_000),
          "seed": (0, 2**31)}  # fmt: skip
HIDDEN = 4  # width of the hidden vectors
BINS = 8  # categories of a categorical column
NOISE = 0.5  # deviation of a column's noise; that of the hidden vector's projection is 1
SHARPNESS = 2.0
HOUR_S = 3600


def adapter_of(settings: str) -> Adapter:
    """The data set of the sizes in ``settings``, such as ``users=100:columns=8``.

    Raises:
        DataError: unknown setting or a size that cannot be.
    """
    chosen = dict(SETTINGS)
    for part in settings.split(":") if settings else ():
        key, _, value = part.partition("=")
        if key not in chosen:
            raise DataError(f"unknown setting {key!r} of synthetic; choose from {', '.join(chosen)}")
        low, high = LIMITS[key]
        if not value.isdecimal() or not low <= int(value) <= high:
            raise DataError(f"{key} of synthetic must be a whole number from {low} to {high}, got {value!r}")
        chosen[key] = int(value)
    name = f"synthetic:{settings}" if settings else "synthetic"
    return Adapter(
        name=name,
        about="planted tastes with a known best ranking, of any size: synthetic:users=1000:items=500:columns=16",
        licence="generated",
        homepage="bench/data/synthetic.py",
        simulated=True,
        load=lambda folder: generate(name, **chosen),
    )


def generate(name: str, *, users: int, items: int, columns: int, pairs: int, seed: int) -> DataSet:
    """Draw a data set.

    Args:
        name: of the data set.
        users: rows of the user table.
        items: rows of the item table.
        columns: of each table, the id not counted.
        pairs: items that each user meets, liked or not.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    taste, content = random.standard_normal((users, HIDDEN)), random.standard_normal((items, HIDDEN))
    bias = random.normal(-1.0, 1.0, items)
    truth = _truth(taste, content, bias)
    tables = [
        Table(
            frame=_columns(random, hidden, columns, key),
            key=key,
            numeric=_numeric(columns),
            categorical=_categorical(columns),
        )
        for hidden, key in ((taste, "user_id"), (content, "item_id"))
    ]
    n = min(pairs, items)
    user = np.repeat(np.arange(users), n)
    item = np.concatenate([random.choice(items, n, replace=False) for _ in range(users)]).astype(np.int64)
    label = (random.random(len(user)) < _pairwise(taste, content, bias, user, item)).astype(np.float32)
    time = random.integers(0, 365 * 24, len(user)) * HOUR_S
    until = int(np.quantile(time, 0.8))
    return DataSet(
        name=name,
        users=tables[0],
        items=tables[1],
        interactions=interactions(user, item, time, label, split_by_time(time, until)),
        split_rule="by time: the first 80 % train, their last tenth validates, the rest tests",
        truth=truth,
    )


def _truth(taste: Floats, content: Floats, bias: Floats) -> Callable[[Ints, slice], Floats]:
    return lambda users, items: expit(SHARPNESS / HIDDEN**0.5 * taste[users] @ content[items].T + bias[items])


def _pairwise(taste: Floats, content: Floats, bias: Floats, user: Ints, item: Ints) -> Floats:
    dots = np.einsum("nk,nk->n", taste[user], content[item])
    return np.asarray(expit(SHARPNESS / HIDDEN**0.5 * dots + bias[item]), dtype=np.float64)


def _numeric(columns: int) -> tuple[str, ...]:
    return tuple(f"number_{i}" for i in range((columns + 1) // 2))


def _categorical(columns: int) -> tuple[str, ...]:
    return tuple(f"group_{i}" for i in range(columns // 2))


def _columns(random: np.random.Generator, hidden: Floats, columns: int, key: str) -> pd.DataFrame:
    """Each column is a noisy projection of the hidden vector on a random direction."""
    directions = random.standard_normal((HIDDEN, columns))
    directions /= np.linalg.norm(directions, axis=0)
    seen = hidden @ directions + NOISE * random.standard_normal((len(hidden), columns))
    names = (*_numeric(columns), *_categorical(columns))
    bins = np.clip(((seen + 2) / 4 * BINS).astype(np.int64), 0, BINS - 1)
    n_numeric = len(_numeric(columns))
    data = {
        name: seen[:, i] if i < n_numeric else np.char.add("g", bins[:, i].astype(str)) for i, name in enumerate(names)
    }
    return pd.DataFrame({key: np.arange(len(hidden)), **data})


ADAPTER = adapter_of("")
