"""Users whom a live system keeps up to date, each by a state or by a history that is read anew."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ftmamba.history import HistoryBatch, HistoryEncoder
from ftmamba.state import Cache, each_tensor, n_bytes, put
from ftmamba.stream import Stream, TowerState

BEGUN = 64  # events that a long state is made from: what its numbers are changes no time
BLOCK_EVENTS = 2**15  # that are read at a time when states are made anew


class Users(Protocol):
    """A pool of users, of whom some, or all of them, are meant by their rows."""

    def update(self, event: HistoryBatch, users: Tensor | None = None) -> None:
        """Take one more event of each."""

    def read(self, users: Tensor | None = None) -> Tensor:
        """What the tower has read of each, (n_users, d_out)."""

    def replay(self, history: HistoryBatch, users: Tensor) -> None:
        """Make them anew from their events."""

    def bytes_a_user(self) -> float:
        """Memory that is kept of one."""


class Kept:
    """Users by their states.

    Args:
        stream: of a tower.
        state: of the users.
        room: tokens for which caches that are made anew have memory.
    """

    def __init__(self, stream: Stream, state: TowerState, room: int | None = None) -> None:
        self.stream, self.state, self._room = stream, state, room

    def update(self, event: HistoryBatch, users: Tensor | None = None) -> None:
        self.state = self.stream.step(event, self.state, users)[1]

    def read(self, users: Tensor | None = None) -> Tensor:
        return self.stream.peek(self.state, users)

    def replay(self, history: HistoryBatch, users: Tensor) -> None:
        n_users, n_events = history.item.shape
        for some in torch.split(torch.arange(n_users, device=users.device), max(1, BLOCK_EVENTS // max(1, n_events))):
            state = self.stream.start(len(some), room=self._room, history=history.rows(some))
            self.state = put(self.state, users[some], state)

    def bytes_a_user(self) -> float:
        return n_bytes(self.state) / len(self.state.n_events)


class Recomputed:
    """Users by their last events, which the tower reads anew.

    Args:
        tower: of histories.
        history: the last events of each user, as many of all.
    """

    def __init__(self, tower: HistoryEncoder, history: HistoryBatch) -> None:
        self.tower, self.history = tower.eval(), history

    def update(self, event: HistoryBatch, users: Tensor | None = None) -> None:
        who = slice(None) if users is None else users
        for kept, new in zip(self.history[:-1], event[:-1], strict=True):
            kept[who] = torch.cat([kept[who][:, 1:], new], dim=1)

    @torch.no_grad()
    def read(self, users: Tensor | None = None) -> Tensor:
        return self.tower(self.history if users is None else self.history.rows(users))  # type: ignore[no-any-return]

    def replay(self, history: HistoryBatch, users: Tensor) -> None:
        """Read them from where all events are kept."""
        for kept, given in zip(self.history, history, strict=True):
            kept[users] = given

    def bytes_a_user(self) -> float:
        return n_bytes(self.history) / self.history.n_rows


def part(history: HistoryBatch, first: int, stop: int) -> HistoryBatch:
    """Each user's events from one number to before another, which all of them have."""
    lengths = torch.full_like(history.lengths, stop - first)
    return HistoryBatch._make([*(each[:, first:stop] for each in history[:-1]), lengths])


def begun(stream: Stream, history: HistoryBatch, room: int) -> TowerState:
    """States of users with as many events as the history has; of a long one, caches repeat its first tokens."""
    n_events = history.item.shape[1]
    first = stream.start(history.n_rows, room=room, history=part(history, 0, min(BEGUN, n_events)))
    state: TowerState = each_tensor(
        lambda each: lengthened(each, n_events) if isinstance(each, Cache) else each, first, whole=(Tensor, Cache)
    )
    return state._replace(n_events=state.n_events * 0 + n_events)


def lengthened(cache: Cache, n_seen: int) -> Cache:
    """The cache as if so many tokens had been seen: its own ones, over and over."""
    n_filled = min(n_seen, cache.k.shape[1])
    again = torch.arange(n_filled, device=cache.k.device) % int(cache.lengths().min())
    cache.k[:, :n_filled], cache.v[:, :n_filled] = cache.k[:, again], cache.v[:, again]
    return cache._replace(n_seen=cache.n_seen * 0 + n_seen)
