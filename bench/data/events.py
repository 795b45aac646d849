"""User histories: every event of every user in the order of time, repeats kept, and what of them is known at a moment.

Events of one user at one time are a visit (a basket): which of them came first is not known, so that they must neither
see nor predict each other, and a moment never falls inside of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.files import DataError, Odd, Say

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DAY_S = 86_400
WINDOW_S = 14 * DAY_S  # what is predicted: the items of the next fortnight
N_CUTS = 5
ROWS = ("user", "item", "time")


@dataclass(frozen=True, kw_only=True)
class Events:
    """The event table; ``Events.of`` makes it.

    Attributes:
        frame: sorted by user, time, item: ``user`` and ``item`` (row numbers, int64), ``time`` (seconds, int64), and
            further columns.
        numeric: further columns that are numbers; missing ones are NaN.
        categorical: further columns that are categories; missing ones are None.
        offsets: the rows of user u are ``offsets[u]`` to ``offsets[u + 1]``, (n_users + 1,).
        visit: of each row; rows of one user with equal time share one, (n_events,).
        target: whether the row is what a model is to predict where it lies ahead (a like, not any rating), (n_events,).
        cuts: moments of the protocol (``bench.data.targets``): what comes before one is known, what follows predicted.
        window_s: how far ahead is predicted, in seconds.
    """

    frame: pd.DataFrame
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    offsets: Ints
    visit: Ints
    target: Flags
    cuts: tuple[int, ...]
    window_s: int

    @classmethod
    def of(
        cls, frame: pd.DataFrame, n_users: int, n_items: int, say: Say, *, numeric: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (), target: Flags | None = None, cuts: tuple[int, ...] = (),
        window_s: int = WINDOW_S,
    ) -> Events:  # fmt: skip
        """Events in any order as a table; a few rows without a user, item or time are left out and told.

        Args:
            frame: ``user``, ``item`` (-1 where unknown), ``time``, and the named columns.
            n_users: rows of the user table.
            n_items: rows of the item table.
            say: is called with a line for people where rows are left out.
            numeric: names of columns.
            categorical: names of columns.
            target: of each row of ``frame``; all where not given.
            cuts: where not given, as many as ``N_CUTS`` whose windows end, one after the other, with the last event.
            window_s: seconds.

        Raises:
            DataError: a column is missing or no number, or many rows or all of them cannot be used.
        """
        if absent := [name for name in (*ROWS, *numeric, *categorical) if name not in frame]:
            raise DataError(f"events have no column {', '.join(absent)}; found {', '.join(map(str, frame.columns))}")
        for name in (*ROWS, *numeric):
            if not pd.api.types.is_numeric_dtype(frame[name]):
                raise DataError(f"column {name} of the events holds no numbers but {frame[name].dtype}")
        keep, wanted = _usable(frame, n_users, n_items, say), np.ones(len(frame), bool) if target is None else target
        user, item, time = (frame[name].to_numpy()[keep].astype(np.int64) for name in ROWS)
        order = np.lexsort((item, time, user))  # stable: equal rows stay as given
        columns = {name: frame[name].to_numpy()[keep][order] for name in (*numeric, *categorical)}
        table = pd.DataFrame({"user": user[order], "item": item[order], "time": time[order], **columns})
        last = int(time.max()) + 1
        return cls(
            frame=table, numeric=numeric, categorical=categorical, visit=_visits(table), target=wanted[keep][order],
            offsets=np.r_[0, np.cumsum(np.bincount(user, minlength=n_users))].astype(np.int64),
            cuts=cuts or moments(last, N_CUTS, window_s), window_s=window_s,
        )  # fmt: skip

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Events of each user, (n_users,)."""
        return np.diff(self.offsets)

    def column(self, name: str) -> Ints:
        """``user``, ``item`` or ``time`` of each row."""
        return self.frame[name].to_numpy(np.int64)


def moments(end: int, n: int, window_s: int) -> tuple[int, ...]:
    """``n`` moments whose windows follow each other without overlap, the last window ending before ``end``."""
    return tuple(end - window_s * k for k in range(n, 0, -1))


def cut(events: Events, before: int, history_length: int | None = None) -> Events:
    """Every user's history: the events before a moment, the last ``history_length`` of them where that is given.

    Nothing that lies at the moment or later is in what is returned.

    Raises:
        ValueError: a length below 1.
    """
    if history_length is not None and history_length < 1:
        raise ValueError(f"history_length must be at least 1, got {history_length}")
    keep = events.column("time") < before
    counts = _per_user(keep, events.offsets)
    if history_length is not None:
        first = events.offsets[:-1] + counts - history_length  # times are sorted: what is kept begins each user's rows
        keep &= np.arange(len(keep)) >= np.repeat(first, events.lengths)
        counts = np.minimum(counts, history_length)
    return _rows(events, keep, counts)


def between(events: Events, since: int, before: int) -> Events:
    """The events from a moment on and before another one."""
    time = events.column("time")
    keep = (time >= since) & (time < before)
    return _rows(events, keep, _per_user(keep, events.offsets))


def window(events: Events, start: int) -> Events:
    """The events from a moment on that are to be predicted at it: the targets of the next ``window_s`` seconds."""
    time = events.column("time")
    keep = (time >= start) & (time < start + events.window_s) & events.target
    return _rows(events, keep, _per_user(keep, events.offsets))


def next_visits(events: Events) -> tuple[Ints, Ints, Ints]:
    """Where a model may predict: rows that end a visit which another one of the same user follows.

    Returns:
        These rows, and the first row and the end of the visit that follows each, all (n,). At any other row the model
        would be asked for the rest of a visit of which it has seen a part.
    """
    user = events.column("user")
    starts = np.flatnonzero(np.r_[True, np.diff(events.visit) != 0]) if len(user) else np.empty(0, np.int64)
    stops = np.r_[starts[1:], len(user)]
    follows = user[starts[1:]] == user[starts[:-1]]
    return stops[:-1][follows] - 1, starts[1:][follows], stops[1:][follows]


def _rows(events: Events, keep: Flags, counts: Ints) -> Events:
    return Events(
        frame=events.frame[keep].reset_index(drop=True), numeric=events.numeric, categorical=events.categorical,
        offsets=np.r_[0, np.cumsum(counts)].astype(np.int64), visit=events.visit[keep], target=events.target[keep],
        cuts=events.cuts, window_s=events.window_s,
    )  # fmt: skip


def _per_user(flags: Flags, offsets: Ints) -> Ints:
    """How many of each user's rows are flagged, (n_users,)."""
    return np.asarray(np.diff(np.r_[0, np.cumsum(flags)][offsets]), np.int64)


def _visits(table: pd.DataFrame) -> Ints:
    changes = (table["user"].diff() != 0) | (table["time"].diff() != 0)
    return changes.to_numpy().cumsum().astype(np.int64) - 1


def _usable(frame: pd.DataFrame, n_users: int, n_items: int, say: Say) -> Flags:
    """Rows of a known user and a known item with a time since 1970; the others are told."""
    odd, keep = Odd(Path("events")), np.ones(len(frame), bool)
    for name, end in (("user", n_users), ("item", n_items), ("time", 2**53)):
        values = frame[name].to_numpy(np.float64, na_value=np.nan)
        wrong = keep & ~((values >= 0) & (values < end))
        if wrong.any():
            row = int(wrong.argmax())
            what = "is none since 1970" if name == "time" else f"is in no row of the {name} table"
            odd.add(f"row {row + 1}", f"{name} {values[row]:.0f} {what}", int(wrong.sum()))
        keep &= ~wrong
    if not keep.any():
        raise DataError(f"there are no events{f': {odd.first}' if odd.first else ''}")
    odd.tell(len(frame), say)
    return keep
