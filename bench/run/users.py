"""Users whom a live system keeps up to date, each by a state or by a history that is read anew."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ftmamba.history import HistoryBatch, HistoryEncoder
from ftmamba.state import Cache, each_tensor, fit, n_bytes, rows
from ftmamba.stream import Stream, TowerState

BEGUN = 64  # events that a long state is made from: what its numbers are changes no time


class Users(Protocol):
    """What keeps users; a slot holds one, or some that always come together."""

    slots: list[Any]

    def update(self, slot: int, event: HistoryBatch) -> None:
        """Take one more event of each user of a slot."""

    def refresh(self, slot: int) -> Tensor:
        """What the tower has read of each user of a slot, (n_users, d_out)."""

    def together(self, slots: list[int], event: HistoryBatch) -> Any:
        """Take one more event of one user a slot each, all at once, and return what ``read`` takes."""

    def read(self, joined: Any) -> Tensor:
        """What the tower has read of these users, (n_slots, d_out)."""

    def replay(self, slot: int, history: HistoryBatch) -> None:
        """Make a slot anew from its users' events."""

    def fill(self, history: HistoryBatch, n_slots: int) -> None:
        """Slots whose users have had the events of a history."""

    def bytes_a_user(self) -> float:
        """Memory that is kept of one."""


class Kept:
    """Users by their states.

    Args:
        tower: of histories.
        room: events for which caches have memory from the start.
    """

    def __init__(self, tower: HistoryEncoder, room: int | None = None) -> None:
        self.stream, self.room = Stream(tower), room
        self.slots: list[TowerState] = []

    def update(self, slot: int, event: HistoryBatch) -> None:
        self.slots[slot] = self.stream.step(event, self.slots[slot])[1]

    def refresh(self, slot: int) -> Tensor:
        return self.read(self.slots[slot])

    def replay(self, slot: int, history: HistoryBatch) -> None:
        self.slots[slot] = self.after(history)

    def together(self, slots: list[int], event: HistoryBatch) -> TowerState:
        if len(slots) == 1:
            self.update(slots[0], event)
            return self.slots[slots[0]]
        state = each_tensor(_joined, *(self.slots[slot] for slot in slots), whole=(Tensor, Cache))
        state = self.stream.step(event, state)[1]
        for i, slot in enumerate(slots):
            self.slots[slot] = rows(state, torch.tensor([i], device=event.item.device))
        return state

    def read(self, joined: TowerState) -> Tensor:
        return self.stream.peek(joined)

    def after(self, history: HistoryBatch) -> TowerState:
        """The state behind a history without pads."""
        state = self.stream.start(history.n_rows, room=self.room)
        for i in range(history.item.shape[1]):
            state = self.stream.step(part(history, i, i + 1), state)[1]
        return state

    def fill(self, history: HistoryBatch, n_slots: int) -> None:
        """Slots of users with as many events as the history has; of a long one, caches repeat its first tokens."""
        n_events = history.item.shape[1]
        begun = part(history, 0, min(BEGUN, n_events))
        first = each_tensor(
            lambda each: lengthened(each, n_events) if isinstance(each, Cache) else each, self.after(begun),
            whole=(Tensor, Cache),
        )  # fmt: skip
        first = first._replace(n_events=first.n_events * 0 + n_events)
        self.slots = [each_tensor(torch.clone, first) for _ in range(n_slots)]

    def bytes_a_user(self) -> float:
        return n_bytes(self.slots[0]) / len(self.slots[0].n_events)


class Recomputed:
    """Users by their last events, which the tower reads anew; a batch of them lies side by side.

    Args:
        tower: of histories.
    """

    def __init__(self, tower: HistoryEncoder) -> None:
        self.tower = tower.eval()
        self.slots: list[HistoryBatch] = []

    def update(self, slot: int, event: HistoryBatch) -> None:
        for kept, new in zip(self.slots[slot][:-1], event[:-1], strict=True):
            kept[:, :-1] = kept[:, 1:].clone()
            kept[:, -1:] = new

    def refresh(self, slot: int) -> Tensor:
        return self.read(self.slots[slot])

    def together(self, slots: list[int], event: HistoryBatch) -> HistoryBatch:
        for i, slot in enumerate(slots):
            self.update(slot, event.rows(slice(i, i + 1)))
        return HistoryBatch._make(map(torch.cat, zip(*(self.slots[slot] for slot in slots), strict=True)))

    @torch.no_grad()
    def read(self, joined: HistoryBatch) -> Tensor:
        return self.tower(joined)  # type: ignore[no-any-return]

    def replay(self, slot: int, history: HistoryBatch) -> None:
        """Read them from where all events are kept."""
        self.slots[slot] = HistoryBatch._make(each.clone() for each in history)

    def fill(self, history: HistoryBatch, n_slots: int) -> None:
        """Slots of users with these events."""
        self.slots = [HistoryBatch._make(each.clone() for each in history) for _ in range(n_slots)]

    def bytes_a_user(self) -> float:
        return n_bytes(self.slots[0]) / self.slots[0].n_rows


def part(history: HistoryBatch, first: int, stop: int) -> HistoryBatch:
    """Each user's events from one number to before another, which all of them have."""
    lengths = torch.full_like(history.lengths, stop - first)
    return HistoryBatch._make([*(each[:, first:stop] for each in history[:-1]), lengths])


def lengthened(cache: Cache, n_seen: int) -> Cache:
    """The cache as if so many tokens had been seen: its own ones, over and over."""
    n_filled = min(n_seen, cache.k.shape[1])
    again = torch.arange(n_filled, device=cache.k.device) % int(cache.lengths().min())
    cache.k[:, :n_filled], cache.v[:, :n_filled] = cache.k[:, again], cache.v[:, again]
    return cache._replace(n_seen=cache.n_seen * 0 + n_seen)


def held(after: Any, before: Any) -> Any:
    """A state as it is, but with the counts of events of another one, so that a history grows no longer."""
    return each_tensor(lambda new, old: new if new.is_floating_point() else old.clone(), after, before)


def _joined(*parts: Any) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    room = max(part.k.shape[1] for part in parts)
    return Cache(*(torch.cat(each) for each in zip(*(fit(part, room) for part in parts), strict=True)))
