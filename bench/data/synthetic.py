"""Planted tastes: users and items with hidden vectors, tables that show them through noise, and a known best ranking.

Any size, by name: ``synthetic:users=1000:items=500:columns=64`` has 64 columns on each side, so that sequence length
and quality can be swept together. Every column says a little about the hidden vector: the first half as a number, the
others as one of a few categories. A user likes an item with probability ``sigmoid(sharpness * taste . item + bias)``.
Nothing can rank better on average than these probabilities do; the baseline ``oracle`` ranks by them.

In this each column speaks for itself. With ``interaction=200`` two columns of the user table, 200 tokens apart, each 1
or -1 by chance, say nothing alone; their product is one more component of the taste, which no other column tells and
which counts three times as much as all others together. Give models no ids then (``--features attributes``): with an
id, a user met in training can be remembered without a look at the columns.

A product of two columns that say nothing alone gives training no slope towards either (a parity; Abbe, Boix-Adsera,
Misiakiewicz, arXiv 2202.08658, on staircases): among many columns it takes very many steps to find, whatever a mixer
could carry. With ``alone=3`` each of the two also says half as much by itself, and leads to their product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.dataset import Adapter, DataSet, Table, sizes
from bench.data.files import DataError
from bench.data.simulated import draw

Floats = npt.NDArray[np.float64]

SETTINGS = {"users": 1000, "items": 500, "columns": 16, "pairs": 40, "interaction": 0, "alone": 0, "seed": 0}
LIMITS = {"users": (2, 10_000_000), "items": (2, 10_000_000), "columns": (1, 100_000), "pairs": (1, 10_000),
          "interaction": (0, 99_999), "alone": (0, 100), "seed": (0, 2**31)}  # fmt: skip
HIDDEN = 4  # width of the hidden vectors
BINS = 8  # categories of a categorical column
NOISE = 0.5  # deviation of a column's noise; that of the hidden vector's projection is 1
SHARPNESS = 2.0
INTERACTION = 6.0  # deviation of what the product of two columns adds; that of all others together is 2
HOUR_S = 3600


def adapter_of(settings: str) -> Adapter:
    """The data set of the sizes in ``settings``, such as ``users=100:columns=8``.

    Raises:
        DataError: unknown setting, a size that cannot be, or columns farther apart than there are.
    """
    chosen = sizes(settings, "synthetic", SETTINGS, LIMITS)
    if chosen["interaction"] >= chosen["columns"]:
        raise DataError(f"synthetic has no two of {chosen['columns']} columns {chosen['interaction']} tokens apart")
    name = f"synthetic:{settings}" if settings else "synthetic"
    return Adapter(
        name=name,
        about="planted tastes with a known best ranking, of any size: synthetic:users=1000:items=500:columns=16",
        licence="generated",
        homepage="bench/data/synthetic.py",
        simulated=True,
        load=lambda folder: generate(name, **chosen),
    )


def generate(
    name: str, *, users: int, items: int, columns: int, pairs: int, interaction: int, alone: int, seed: int
) -> DataSet:
    """Draw a data set.

    Args:
        name: of the data set.
        users: rows of the user table.
        items: rows of the item table.
        columns: of each table, the id not counted.
        pairs: items that each user meets, liked or not.
        interaction: tokens between the two columns of the user table whose product matters; 0 for none.
        alone: deviation of what each of these two adds by itself; that of their product is 6.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    taste, content = random.standard_normal((users, HIDDEN)), random.standard_normal((items, HIDDEN))
    bias = random.normal(-1.0, 1.0, items)
    told = taste
    if interaction:
        signs = random.choice([-1.0, 1.0], (users, 2))
        taste = np.column_stack([taste, INTERACTION * signs.prod(axis=1), *(alone * signs.T)])
        content = np.column_stack([content, random.standard_normal(items), *random.standard_normal((2, items))])
    tables = [_table(random, hidden, columns, key) for hidden, key in ((told, "user_id"), (content, "item_id"))]
    if interaction:
        for side, place in enumerate(((columns - interaction) // 2, (columns + interaction) // 2)):
            column = tables[0].frame.columns[1 + place]  # the first is the key
            texts = np.where(signs[:, side] > 0, "g1", "g0")
            tables[0].frame[column] = texts if column in tables[0].categorical else signs[:, side]
    return draw(
        random, (SHARPNESS / HIDDEN**0.5 * taste, content), (np.zeros(users), bias),
        each=pairs, moments=365 * 24, moment_s=HOUR_S, name=name, users=tables[0], items=tables[1],
    )  # fmt: skip


def _table(random: np.random.Generator, hidden: Floats, columns: int, key: str) -> Table:
    """Each column is a noisy projection of the hidden vector on a random direction."""
    directions = random.standard_normal((hidden.shape[1], columns))
    directions /= np.linalg.norm(directions, axis=0)
    seen = hidden @ directions + NOISE * random.standard_normal((len(hidden), columns))
    n_numeric = (columns + 1) // 2
    bins = np.clip(((seen[:, n_numeric:] + 2) / 4 * BINS).astype(np.int64), 0, BINS - 1)
    numbers = {f"number_{i}": values for i, values in enumerate(seen[:, :n_numeric].T)}
    groups = {f"group_{i}": np.char.add("g", values.astype(str)) for i, values in enumerate(bins.T)}
    frame = pd.DataFrame({key: np.arange(len(hidden)), **numbers, **groups})
    return Table(frame=frame, key=key, numeric=tuple(numbers), categorical=tuple(groups))


ADAPTER = adapter_of("")
