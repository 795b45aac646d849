"""Prequential ranking: every visit is ranked by what came before it, and then revealed (Vinagre, Jorge and Gama,
arXiv 1504.08175).

Events go by in the order of time. Those of one time form one block, whoever's they are: all users of a block are ranked
before anything of it is revealed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import inf
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from bench.data.dataset import DataSet, Ints
from bench.data.events import DAY_S, Events, between, cut
from bench.data.targets import Stage
from bench.metrics.ranking import Positives, evaluate
from bench.plan.axes import DTYPE_BYTES
from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec
from bench.training.histories import Histories
from bench.training.history_model import BLOCK_EVENTS, HistoryModel, HistoryTrainer
from bench.training.search import Budget, trials_of
from ftmamba.state import put
from ftmamba.stream import Stream

Floats = npt.NDArray[np.floating]
BASELINES = {"popularity": inf, "recent-popularity": 14.0, "frequency": inf}  # with the half life of an event, in days
ARMS = ("frozen", "live", "retrained", "online")
BLOCK_BYTES = 2**28  # of states that are made at a time


class Ranker(Protocol):
    """What ranks and is told what happened."""

    def scores(self, users: Ints, now: int) -> Tensor:
        """Of all items, for some users at a moment, (n_users, n_items)."""

    def reveal(self, at: Ints) -> None:
        """Events that have happened: row numbers of one time, users in order."""

    def learn(self, now: int) -> None:
        """A moment at which weights may be updated."""


def blocks(events: Events, start: int) -> Iterator[Ints]:
    """Row numbers of the events from a moment on, those of one time together, in the order of time."""
    times = events.column("time")
    order = np.argsort(times, kind="stable")
    order = order[times[order] >= start]
    yield from np.split(order, np.flatnonzero(np.diff(times[order])) + 1) if len(order) else ()


def run(events: Events, start: int, ranker: Ranker, n_items: int, every_s: int, ks: Sequence[int]) -> pd.DataFrame:
    """Rank and reveal.

    Args:
        events: all of them; what lies before ``start`` is known.
        start: the first moment that is ranked.
        ranker: of users.
        n_items: rows of the catalogue.
        every_s: seconds between the moments at which weights may be updated.
        ks: cut-offs of the metrics.

    Returns:
        A row a visit: ``user``, ``time``, ``window`` (how often weights may have been updated), metrics.
    """
    user, item, times = (events.column(name) for name in ("user", "item", "time"))
    asked: list[tuple[Ints, int, int]] = []
    ranked: list[Ints] = []
    liked: list[tuple[Ints, Ints]] = []
    n_asked = window = 0
    for block in blocks(events, start):
        now = int(times[block[0]])
        while now >= start + (window + 1) * every_s:
            window += 1
            ranker.learn(start + window * every_s)
        wanted = block[events.target[block]]
        if len(wanted):
            users, place = np.unique(user[wanted], return_inverse=True)
            best = ranker.scores(users, now).topk(min(max(ks), n_items), dim=1).indices
            ranked.append(best.cpu().numpy())
            liked.append((n_asked + place, item[wanted]))
            asked.append((users, now, window))
            n_asked += len(users)
        ranker.reveal(block)
    if not asked:
        raise ValueError("no event to predict lies behind the cut")
    which, items = (np.concatenate(each) for each in zip(*liked, strict=True))
    positives = Positives.of(which, items, n_asked, n_items)
    metrics = evaluate(np.arange(n_asked), np.concatenate(ranked), positives, ks)
    about = {name: np.concatenate([np.full(len(each[0]), each[i]) if i else each[0] for each in asked])
             for i, name in enumerate(("user", "time", "window"))}  # fmt: skip
    return pd.DataFrame({**about, **metrics})


class Counts:
    """A baseline: how often an item was had, by all or by the user.

    Args:
        name: key of ``BASELINES``.
        events: all of them; those before ``start`` are counted at once, the others when they are revealed.
        start: the first moment that is ranked.
        n_items: rows of the catalogue.
    """

    def __init__(self, name: str, events: Events, start: int, n_items: int) -> None:
        self._events, self._half_life, self._now = events, BASELINES[name] * DAY_S, start
        self._all = torch.zeros(n_items, dtype=torch.float64)
        self._own = torch.zeros(len(events.lengths), n_items) if name == "frequency" else None
        known = np.flatnonzero(events.column("time") < start)
        self._add(known, np.exp2(-(start - events.column("time")[known]) / self._half_life))

    def _add(self, at: Ints, weight: Floats) -> None:
        keep = self._events.target[at]
        user, item = (torch.from_numpy(self._events.column(name)[at[keep]]) for name in ("user", "item"))
        self._all.index_add_(0, item, torch.from_numpy(weight[keep]))
        if self._own is not None:
            self._own.index_put_((user, item), torch.ones(len(item)), accumulate=True)

    def scores(self, users: Ints, now: int) -> Tensor:
        if self._own is None:
            return self._all.repeat(len(users), 1)
        return self._own[torch.from_numpy(users)] + self._all / (2 * self._all.max().clamp(min=1))

    def reveal(self, at: Ints) -> None:
        now = int(self._events.column("time")[at[0]])
        self._all *= 2.0 ** (-(now - self._now) / self._half_life)
        self._now = now
        self._add(at, np.ones(len(at)))

    def learn(self, now: int) -> None:
        """Nothing: counts have no weights."""


class Tower:
    """A tower that reads histories, with a state a user.

    Args:
        cell: with the ``arm``: ``frozen`` states, or ``live`` ones with weights as they were, ``retrained`` on all that
            is known at each update, or with ``online`` steps on what came since the last one; and with ``states``,
            which after an update are ``stale`` (as the earlier weights made them) or ``rebuilt``.
        data: with events.
        start: the first moment that is ranked.
        free_bytes: memory that all users' states may take.

    Attributes:
        learn_s, rebuild_s: seconds in updates of weights, and in making states anew.

    Raises:
        MemoryError: it is not enough, before anything is learned; keys and values have as much room for each user as
            the longest history needs.
    """

    def __init__(self, cell: Cell, data: DataSet, start: int, free_bytes: float = inf) -> None:
        assert data.events is not None
        # A tower reads every event, and learns the next visit at the end of each.
        fixed = {"own": "none", "targets": "visit", "read_at": "all", "positions": False, "epochs": 0.0, "trials": 0}
        self.cell, self.data, self.all = cell.but(**fixed), data, data.events
        self.learn_s = self.rebuild_s = 0.0
        self._now, (self._trial,) = start, trials_of(self.cell)
        fitted = Histories(data, self._stage(cut(self.all, start), start), cell.device, getattr(torch, cell.dtype))
        self._everything = self._histories(self.all, inf, fitted)
        columns = fitted.static.n_columns if fitted.static else 0
        self._room = columns + int(self.all.lengths.max(initial=0))  # tokens of the longest history
        self._check_room(free_bytes)
        trainer = HistoryTrainer(self.cell, fitted, Budget(cell.steps, cell.steps), None)
        self.model: HistoryModel = trainer.run(self._trial).model
        self.rebuild(start)

    def _check_room(self, free_bytes: float) -> None:
        n_users = len(self.all.lengths)
        needed = n_users * (encoder_spec(self.cell).state_bytes(self._room, DTYPE_BYTES[self.cell.dtype]) or 0)
        if needed > free_bytes:
            raise MemoryError(
                f"states of {n_users:,} users with room for {self._room:,} tokens each, the longest history, take "
                f"{needed / 2**30:.3g} GiB, and {free_bytes / 2**30:.3g} are free; choose a window, such as window=100"
            )

    def _stage(self, known: Events, before: float) -> Stage:
        none = np.empty(0, np.int64)
        return Stage(int(min(before, 2**62)), known, none, none, (none, none))

    def _histories(self, known: Events, before: float, like: Histories) -> Histories:
        return Histories(self.data, self._stage(known, before), self.cell.device, getattr(torch, self.cell.dtype), like)

    def rebuild(self, now: int) -> None:
        """Make all users' states from their events before a moment: all but the last in one pass, then that."""
        started, spec, everything = time.perf_counter(), self.model.tower.spec, self._everything
        vars(self).pop("states", None)  # the new ones take their place
        self.stream = Stream(self.model.tower)
        known, n_users, room = cut(self.all, now).lengths, len(self.all.lengths), self._room
        self.states = self.stream.start(n_users, everything.static_of(np.arange(n_users)), room)
        self.read = self.model.bias.new_zeros(n_users, spec.output_width)
        order = np.argsort(-known, kind="stable")[: np.count_nonzero(known)]
        most = max(1, BLOCK_BYTES // (spec.state_bytes(room, self.read.element_size()) or 1))
        while len(order):
            block, order = np.split(order, [min(most, max(1, BLOCK_EVENTS // int(known[order[0]])))])
            stop = self.all.offsets[block] + known[block]
            history, static = everything.read(self.all.offsets[block], stop - 1)
            state = self.stream.start(len(block), static, room, history)
            vectors, state = self.stream.step(everything.one(stop - 1), state)
            index = _index(block, vectors.device)
            self.states, self.read[index] = put(self.states, index, state), vectors
        self.rebuild_s += time.perf_counter() - started

    @torch.no_grad()
    def scores(self, users: Ints, now: int) -> Tensor:
        return self.model.score(self.read[_index(users, self.read.device)], slice(None), None)

    def reveal(self, at: Ints) -> None:
        if self.cell.arm == "frozen":
            return
        user = self.all.column("user")[at]
        nth = np.arange(len(at)) - np.searchsorted(user, user)
        for i in range(int(nth.max()) + 1):
            index = _index(user[nth == i], self.read.device)
            self.read[index], self.states = self.stream.step(self._everything.one(at[nth == i]), self.states, index)

    def learn(self, now: int) -> None:
        if self.cell.arm in ("frozen", "live"):
            return
        known = cut(self.all, now) if self.cell.arm == "retrained" else between(self.all, self._now, now)
        self._now, started = now, time.perf_counter()
        histories = self._histories(known, now, self._everything)
        n_steps = max(1, self.cell.steps // 10)
        trainer = HistoryTrainer(self.cell, histories, Budget(n_steps, n_steps), None)
        try:
            step = trainer.stepper(self.model, self._trial)
        except ValueError:  # nothing came twice to anybody since
            return
        self.model.train()
        for _ in range(n_steps):
            step()
        self.model.eval()
        self.learn_s += time.perf_counter() - started
        if self.cell.states == "rebuilt":
            self.rebuild(now)


def _index(at: Ints, device: torch.device) -> Tensor:
    return torch.from_numpy(at).to(device)
