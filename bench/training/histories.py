"""Events as the rows of batches: whose, up to where, and what follows them. A model is given nothing else.

An epoch cuts every user's events into rows of at most ``history_length`` events, in other places each time. A model
learns to predict at the end of every visit in a row, or at the last one of it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.data.dataset import DataSet, Ints
from bench.data.encode import fit
from bench.data.events import DAY_S, Events, next_visits
from bench.data.targets import Stage
from ftmamba.columns import TableEncoder
from ftmamba.features import FeatureBatch
from ftmamba.history import HistoryBatch
from ftmamba.spec import EventSpec, FeatureSpec

Floats = npt.NDArray[np.floating[Any]]
Targets = Literal["visit", "window"]


class Histories:
    """The events before a moment as tensors; ranges of their rows become histories.

    Args:
        data: a data set with events.
        stage: whose ``known`` events these are; all columns are fitted on them and on their users.
        device: of the tensors.
        dtype: of numbers.
        like: histories whose columns are taken as they were fitted, since a model has learned them.
    """

    def __init__(
        self, data: DataSet, stage: Stage, device: str = "cpu", dtype: torch.dtype = torch.float32,
        like: Histories | None = None,
    ) -> None:  # fmt: skip
        self.known, self.stage = stage.known, stage
        columns = like.columns if like else TableEncoder.fit(
            stage.known.frame, numeric=stage.known.numeric, categorical=stage.known.categorical
        )  # fmt: skip
        self.columns: TableEncoder = columns
        batch = columns.transform(stage.known.frame).to(device, dtype)
        item, time = (torch.tensor(stage.known.column(name), device=device) for name in ("item", "time"))
        self._flat = (item, batch.numeric, batch.categorical, time)
        cardinalities = tuple(column.n_rows for column in columns.categorical)
        self.events = EventSpec(data.items.n_rows, batch.numeric.shape[1], cardinalities)
        self.static: FeatureSpec | None = None
        self._users: FeatureBatch
        if like and like.static:
            self.static, self._users = like.static, like._users
        elif data.users.numeric or data.users.categorical:
            encoder = fit(data.users, np.flatnonzero(stage.known.lengths), ids=False)
            self.static = encoder.features
            self._users = encoder.transform(data.users.frame).to(device, dtype)

    def read(self, first: Ints, stop: Ints) -> tuple[HistoryBatch, FeatureBatch | None]:
        """The events from row ``first`` to before ``stop`` of each of some users, and the users' own columns."""
        lengths = stop - first
        places = first[:, None] + np.arange(lengths.max())
        index = torch.from_numpy(np.minimum(places, len(self.known.visit) - 1)).to(self._flat[0].device)
        item, numeric, categorical, time = (each[index] for each in self._flat)
        history = HistoryBatch(item, numeric, categorical, time, torch.from_numpy(lengths).to(index.device))
        if self.static is None:
            return history, None
        return history, self.static_of(self.known.column("user")[first])

    def static_of(self, users: Ints) -> FeatureBatch | None:
        """The users' own columns, where there are any."""
        index = torch.from_numpy(users).to(self._flat[0].device)
        return None if self.static is None else self._users.rows(index)

    def one(self, at: Ints) -> HistoryBatch:
        """Some events, each as the next one of its user."""
        index = torch.from_numpy(at).to(self._flat[0].device)
        return HistoryBatch._make([*(each[index, None] for each in self._flat), torch.ones_like(index)])

    def latest(self, users: Ints, history_length: int) -> tuple[Ints, Ints]:
        """First row and end of the last events of some users."""
        stop = self.known.offsets[users + 1]
        return np.maximum(self.known.offsets[users], stop - history_length), stop


class Positions(NamedTuple):
    """Where there is something to predict: row numbers of events, in their order, all (n,).

    Attributes:
        at: ends of visits, up to which a model has read.
        first, stop: the events that it is to predict, of later visits of the same user.
    """

    at: Ints
    first: Ints
    stop: Ints

    @classmethod
    def of(cls, stage: Stage, targets: Targets) -> Positions:
        """Everything to be learned from what is known.

        Args:
            stage: whose known events train.
            targets: the next ``visit``, or all visits in the ``window`` that follows, of those windows that have ended
                when the stage begins.
        """
        events = stage.known
        at, first, stop = next_visits(events)
        if targets == "window":
            user, time = events.column("user"), events.column("time")
            begin = time.min(initial=stage.before)
            span = stage.before - begin + events.window_s + 2
            ends = time[at] + 1 + events.window_s
            stop = np.searchsorted(user * span + time - begin, user[at] * span + ends - begin)
            stop = np.where(ends <= stage.before, stop, first)
        n_targets = np.r_[0, np.cumsum(events.target)]
        some = n_targets[stop] > n_targets[first]
        return cls(at[some], first[some], stop[some])


@dataclass(frozen=True)
class Rows:
    """The rows of a batch: ranges of events, and for each row the range of positions to predict at, all (n_rows,)."""

    first: Ints
    stop: Ints
    begin: Ints
    end: Ints

    def at(self, index: Ints) -> Rows:
        return Rows(self.first[index], self.stop[index], self.begin[index], self.end[index])


class RowSampler:
    """Endless epochs of batches of rows of like length, the same for the same seed.

    Args:
        events: that train.
        positions: of these.
        history_length: events that a row has at most.
        batch_events: events that a batch has at most, pads included; one row at least.
        seed: of cuts and order.
        last: whether a row ends with its one position; else it has all that fall in it.
    """

    def __init__(
        self, events: Events, positions: Positions, history_length: int, batch_events: int, seed: int, *, last: bool
    ) -> None:
        if not len(positions.at):
            raise ValueError("no visit is followed by another one, so that nothing can be learned from these events")
        self._offsets, self._positions, self._last = events.offsets, positions, last
        self._user = events.column("user")[positions.at]
        self._length, self._batch_events = history_length, batch_events
        self._random = np.random.default_rng(seed)
        self.steps_an_epoch = len(list(self._epoch(np.random.default_rng(seed))))

    def batches(self) -> Iterator[Rows]:
        while True:
            yield from self._epoch(self._random)

    def _epoch(self, random: np.random.Generator) -> Iterator[Rows]:
        rows = self._cut(random)
        lengths = rows.stop - rows.first
        order = np.lexsort((random.random(len(lengths)), -lengths))
        batches, start = [], 0
        while start < len(order):
            n = max(1, self._batch_events // int(lengths[order[start]]))
            batches.append(order[start : start + n])
            start += n
        yield from (rows.at(batches[i]) for i in random.permutation(len(batches)))

    def _cut(self, random: np.random.Generator) -> Rows:
        """Every user's events in rows, the first one as long as chance has it; rows without a position are left out."""
        n, at = np.diff(self._offsets), self._positions.at
        shift = np.where(n > self._length, random.integers(1, self._length + 1, len(n)), self._length)
        n_rows = 1 + np.maximum(0, -(-(n - shift) // self._length))
        user, k = expand(np.zeros_like(n_rows), n_rows)
        if self._last:  # as many rows as this, each up to a position drawn for it
            end = np.sort(random.permutation(len(at))[: len(user)]) + 1
            stop = at[end - 1] + 1
            return Rows(np.maximum(self._offsets[self._user[end - 1]], stop - self._length), stop, end - 1, end)
        first = self._offsets[user] + np.maximum(0, shift[user] + (k - 1) * self._length)
        stop = np.minimum(self._offsets[user + 1], self._offsets[user] + shift[user] + k * self._length)
        begin, end = np.searchsorted(at, first), np.searchsorted(at, stop)
        return Rows(first, stop, begin, end).at(np.flatnonzero(end > begin))


def expand(first: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """All numbers of some ranges, one range after another: whose range, and the number; (n,) each."""
    counts = stop - first
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)


@dataclass(frozen=True)
class Batch:
    """What a training step sees.

    Attributes:
        history, static: of each row.
        row, column: where in the history each position is, (n_positions,).
        which, target, weight: position of each item that is to be predicted, its place in the scores, and its share of
            the position, 1 in sum over it; each pair once, (n_targets,).
        items: rows of the items that are scored; None where all are, (n_scored,).
        log_weight: logarithm of how many items each of these stands for, (n_scored,); None where all are scored.
        own: in how many visits the user had each scored item so far, (n_positions, n_scored); None where not wanted.
    """

    history: HistoryBatch
    static: FeatureBatch | None
    row: Tensor
    column: Tensor
    which: Tensor
    target: Tensor
    weight: Tensor
    items: Tensor | None = None
    log_weight: Tensor | None = None
    own: Tensor | None = None

    @classmethod
    def of(
        cls, histories: Histories, positions: Positions, rows: Rows, half_life: float | None = None,
        drawn: Ints | None = None, log_q: Floats | None = None,
    ) -> Batch:  # fmt: skip
        """Make a batch.

        Args:
            histories: what is known.
            positions: where something can be predicted in it.
            rows: of the batch.
            half_life: of an event in ``own``, in days; None leaves that out.
            drawn: items that stand for the catalogue, drawn with replacement; None scores all.
            log_q: logarithm of the chance of each item to be drawn, (n_items,).
        """
        known, n_items = histories.known, histories.events.n_items
        owner, place = expand(rows.begin, rows.end)
        which, event = expand(positions.first[place], positions.stop[place])
        keep = known.target[event]
        which, target = np.divmod(np.unique(which[keep] * n_items + known.column("item")[event[keep]]), n_items)
        weight = (1 / np.bincount(which, minlength=len(place))[which]).astype(np.float32)
        history, static = histories.read(rows.first, rows.stop)
        found = [owner, positions.at[place] - rows.first[owner], which, target, weight]
        items, scored = None, np.arange(n_items)
        if drawn is not None and log_q is not None:
            items = np.union1d(drawn, target)
            scored = np.full(n_items, -1)
            scored[items] = np.arange(len(items))
            with np.errstate(divide="ignore"):  # what is only a target stands for nothing else
                stands_for = np.log(np.bincount(scored[drawn], minlength=len(items)) / len(drawn)) - log_q[items]
            found[3:4] = [scored[target]]
            found += [items, stands_for.astype(np.float32)]
        tensors = [torch.from_numpy(each).to(history.item.device) for each in found]
        batch = cls(history, static, *tensors)
        if half_life is None:
            return batch
        n_scored = n_items if items is None else len(items)
        own = torch.from_numpy(own_counts(known, rows, owner, positions.at[place], scored, n_scored, half_life))
        return replace(batch, own=own.to(history.item.device))


def own_counts(
    known: Events, rows: Rows, owner: Ints, at: Ints, scored: Ints, n_scored: int, half_life: float
) -> Floats:
    """In how many visits users had each item up to some positions, one weighing half as much every ``half_life`` days.

    Args:
        known: the events.
        rows: of a batch; what comes before a row does not count.
        owner: row of each position, not falling, (n,).
        at: event at which the position is, rising within a row, (n,).
        scored: column of each item in what is returned; -1 for none, (n_items,).
        n_scored: columns.
        half_life: in days.
    """
    time, far = known.column("time"), len(known.visit) + 1
    row, event = expand(rows.first, rows.stop)
    after = np.searchsorted(owner * far + at, row * far + event)  # the first position that has read the event
    column = scored[known.column("item")[event]]
    item = known.column("item")
    again = (item[event] == item[event - 1]) & (known.visit[event] == known.visit[event - 1]) & (event > 0)
    keep = (after < len(at)) & known.target[event] & (column >= 0) & ~again
    keep[keep] = owner[after[keep]] == row[keep]
    after, event, column = after[keep], event[keep], column[keep]
    weight = np.exp2(-(time[at[after]] - time[event]) / (half_life * DAY_S))
    flat = np.bincount(after * n_scored + column, weight, len(at) * n_scored).astype(np.float32)
    counts: Floats = flat.reshape(len(at), n_scored)
    kept = np.exp2(-np.diff(time[at], prepend=0) / (half_life * DAY_S), where=np.diff(owner, prepend=-1) == 0,
                   out=np.zeros(len(at))).astype(np.float32)  # fmt: skip
    for i in np.flatnonzero(kept):
        counts[i] += kept[i] * counts[i - 1]
    return counts
