"""The history task: what is known at a moment, and what each user takes to in the window after it.

At a cut a model is chosen on the window before it and tested on the window after it, refitted in between on everything
before the cut. Every window ends before the next stage begins: whoever trains on windows takes those that end with the
stage's moment, ``moments(stage.before, n, window_s)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from bench.data.events import Events, Ints, cut, window
from bench.data.files import DataError

SEGMENTS = {0: "cold", 1: "1 to 19", 20: "20 to 99", 100: "100 to 499", 500: "500 and more"}  # by the first length


@dataclass(frozen=True)
class Stage:
    """One moment of the protocol. A model that is given ``known`` alone cannot look ahead.

    Attributes:
        before: the moment, in seconds.
        known: all events before it, of every user.
        users: row numbers of the users with a target, (n,).
        n_before: events of each of these before the moment; 0 is a cold user, (n,).
        pairs: users and items of the targets, each pair once, two of (n_targets,).
    """

    before: int
    known: Events
    users: Ints
    n_before: Ints
    pairs: tuple[Ints, Ints]

    @property
    def warm(self) -> Ints:
        """Positions in ``users`` of those with an event before the moment: of whom there is a history to read."""
        return np.flatnonzero(self.n_before)


def stage(events: Events, before: int) -> Stage:
    """What is known at a moment and what follows.

    Raises:
        DataError: nothing is known, or nobody with a history has a target.
    """
    known, ahead = cut(events, before), window(events, before)
    pairs = np.unique(np.stack([ahead.column("user"), ahead.column("item")]), axis=1)
    users = np.unique(pairs[0])
    found = Stage(before, known, users, known.lengths[users], (pairs[0], pairs[1]))
    if not len(found.warm):
        moment = datetime.fromtimestamp(before, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        raise DataError(f"no user has events before {moment} and a target in the {events.window_s} s after it")
    return found


def stages(events: Events, moment: int) -> tuple[Stage, Stage]:
    """Validation and test at a cut: the first one's targets end where the second one's begin.

    Raises:
        DataError: one of them has nobody to rank for.
    """
    return stage(events, moment - events.window_s), stage(events, moment)


def segment(n_before: Ints) -> list[str]:
    """The segment of users with so many events before the moment."""
    first = np.array(list(SEGMENTS))
    names = list(SEGMENTS.values())
    return [names[place] for place in np.searchsorted(first, n_before, side="right") - 1]
