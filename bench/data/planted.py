"""Long memory that can be seen: histories whose next item depends on the event a known distance back, and on no other.

Each of 1,000 users has ``distance`` events drawn at random and then 301 that follow from them: event t is the successor
of event ``t - distance``, or, with probability ``NOISE``, any item. The successor of an item is fixed, and never
itself. So ``planted:distance=1000`` (10, 100, 5,000, ...) differs from another distance in nothing but how far back one
must look. Two events depend on each other only where a multiple of the distance lies between them: whoever reads fewer
events than the distance before the last one, of whatever mixer, has the score of the marginal, ``marginal_ndcg``. Who
reads them all can reach ``best_ndcg`` and nothing more on average (baseline ``oracle``).

``planted:distance=1000:shuffled=1`` is the control: the same draws, but what comes before the test is in random order,
so that how often each item occurs is all that is left. How much that is worth is not known exactly: it has no oracle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.dataset import FIRST_80, Adapter, DataSet, Ints, Table, sizes
from bench.data.event_logs import first_pairs
from bench.data.events import Events

Floats = npt.NDArray[np.float64]

SETTINGS = {"distance": 100, "shuffled": 0, "seed": 0}
LIMITS = {"distance": (1, 100_000), "shuffled": (0, 1), "seed": (0, 2**31)}
N_USERS = 1000
N_ITEMS = 200
N_LINKED = 301  # events of each user that follow from another one, the last of them to be predicted
NOISE = 0.2
STEP_S = 3600


def adapter_of(settings: str) -> Adapter:
    """The data set of ``settings``, such as ``distance=1000:shuffled=1``.

    Raises:
        DataError: unknown setting, or a value that cannot be.
    """
    chosen = sizes(settings, "planted", SETTINGS, LIMITS)
    name = f"planted:{settings}" if settings else "planted"
    return Adapter(
        name=name,
        about="histories whose next item depends on the event at a distance: planted:distance=1000",
        licence="generated",
        homepage="bench/data/planted.py",
        simulated=not chosen["shuffled"],
        load=lambda folder: generate(name, **chosen),
    )


def generate(
    name: str, *, distance: int, shuffled: int, seed: int, n_users: int = N_USERS, n_items: int = N_ITEMS,
    n_linked: int = N_LINKED,
) -> DataSet:  # fmt: skip
    """Draw a data set; its one cut lies before the last event.

    Args:
        name: of the data set.
        distance: how many events back the one lies that an event follows from.
        shuffled: whether the events before the last are in random order.
        seed: of everything.
        n_users: rows of the user table.
        n_items: rows of the item table.
        n_linked: events of each user that follow from another one.
    """
    random = np.random.default_rng(seed)
    follows = successors(random, n_items)
    n = distance + n_linked
    item = random.integers(0, n_items, (n_users, n))  # where it is not overwritten: the beginning, and the noise
    linked = random.random((n_users, n)) >= NOISE
    for start in range(distance, n, distance):
        ahead = slice(start, min(start + distance, n))
        behind = slice(ahead.start - distance, ahead.stop - distance)
        item[:, ahead] = np.where(linked[:, ahead], follows[item[:, behind]], item[:, ahead])
    source = item[:, -1 - distance].copy()
    if shuffled:
        item[:, :-1] = random.permuted(item[:, :-1], axis=1)

    def truth(users: Ints, items: slice) -> Floats:
        chosen = np.arange(n_items)[items] == follows[source[users], None]
        return np.asarray(NOISE / n_items + (1 - NOISE) * chosen)

    user, time = np.repeat(np.arange(n_users), n), np.tile(np.arange(n) * STEP_S, n_users)
    frame = pd.DataFrame({"user": user, "item": item.ravel(), "time": time})
    events = Events.of(frame, n_users, n_items, print, cuts=((n - 1) * STEP_S,), window_s=STEP_S)
    return DataSet(
        name=name,
        users=Table(frame=pd.DataFrame({"user_id": range(n_users)}), key="user_id"),
        items=Table(frame=pd.DataFrame({"item_id": range(n_items)}), key="item_id"),
        interactions=first_pairs(events),
        split_rule=FIRST_80.replace("time", "simulated time"),
        truth=None if shuffled else truth,
        events=events,
    )


def successors(random: np.random.Generator, n_items: int) -> Ints:
    """What follows each item: one circle through all of them, so that nothing follows itself."""
    circle = random.permutation(n_items)
    follows = np.empty(n_items, np.int64)
    follows[circle] = np.roll(circle, -1)
    return follows


def marginal_ndcg(n_items: int = N_ITEMS, k: int = 10) -> float:
    """NDCG@k of any list where every item is as likely as any other."""
    return float((1 / np.log2(np.arange(2, k + 2))).sum() / n_items)


def best_ndcg(n_items: int = N_ITEMS, k: int = 10) -> float:
    """NDCG@k, on average, of a list that begins with the successor; noise may hit any item of the list."""
    return 1 - NOISE + NOISE * marginal_ndcg(n_items, k)


ADAPTER = adapter_of("")
