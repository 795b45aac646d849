"""Requests that come when they are scheduled, whether or not the one before is answered: an open loop.

Every time counts from the scheduled arrival, so that what a stall keeps waiting is in the figures (no coordinated
omission, as a loop has it that sends the next request when the last is answered).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Answer = Callable[[int, int], Sequence[float]]  # requests from one number to before another; seconds of the parts
SPIN_S = 0.002  # before a scheduled moment, in which a sleep may end too late
BEHIND = 0.02  # of the time in which requests came: what the last ones wait where a server has fallen behind
TRIALS = 7


class Clock(Protocol):
    """Seconds since any moment."""

    def now(self) -> float: ...

    def wait(self, until: float) -> None:
        """Return at that moment, at once where it is past."""


class WallClock:
    """The machine's."""

    now = staticmethod(time.perf_counter)

    def wait(self, until: float) -> None:
        while (left := until - time.perf_counter()) > 0:
            if left > SPIN_S:
                time.sleep(left - SPIN_S)


@dataclass(frozen=True)
class Served:
    """What became of requests.

    Attributes:
        queue: seconds from the scheduled arrival to when a request, or its batch, was begun, (n,).
        parts: seconds of the parts of its batch's answer, (n_parts, n).
        total: seconds from the scheduled arrival to the answer, (n,).
        late: how late an idle server took a request up, (n,); NaN for one that had to wait for others.
        batch: requests in its batch, (n,).
        span_s: from the first arrival to the last one.
        rate_per_s: answered a second, from the first arrival to the last answer.
    """

    queue: Floats
    parts: Floats
    total: Floats
    late: Floats
    batch: Floats
    span_s: float
    rate_per_s: float

    @property
    def reached(self) -> bool:
        """Whether the server kept up: a wait that grows to the end is no latency but a rate that is too high."""
        return bool(np.median(self.queue[-len(self.queue) // 20 :]) <= BEHIND * self.span_s)


def poisson(rate_per_s: float, n: int, random: np.random.Generator) -> Floats:
    """Arrivals that know nothing of each other, in seconds."""
    return np.cumsum(random.exponential(1 / rate_per_s, n))


def recorded(times: npt.NDArray[Any], rate_per_s: float) -> Floats:
    """Arrivals with the gaps that were recorded, all longer or shorter so that they come at this mean rate."""
    gaps = np.diff(np.sort(times).astype(np.float64), prepend=times.min())
    return np.asarray(np.cumsum(gaps) * (len(gaps) / max(gaps.sum(), 1e-9) / rate_per_s))


def open_loop(
    arrivals: Floats, answer: Answer, clock: Clock, n_parts: int, *, max_batch: int = 1, max_wait_s: float = 0.0,
    most_queue_s: float = np.inf,
) -> Served:  # fmt: skip
    """Answer requests in the order of their arrival.

    Args:
        arrivals: scheduled, in seconds, not falling, (n,).
        answer: answers a batch.
        clock: tells and waits.
        n_parts: parts of an answer.
        max_batch: requests that are answered together, at most.
        max_wait_s: how long the first of a batch waits for others, at most.
        most_queue_s: requests end with one that has been in the queue for longer.
    """
    n = len(arrivals)
    queue, total, late, batch = (np.zeros(n) for _ in range(4))
    parts = np.zeros((n_parts, n))
    start, first, ended = clock.now() - arrivals[0], 0, -np.inf
    while first < n:
        full = arrivals[min(first + max_batch, n) - 1]
        due = start + max(arrivals[first], min(full, arrivals[first] + max_wait_s))
        clock.wait(due)
        begun = clock.now()
        stop = first + 1
        while stop < min(first + max_batch, n) and start + arrivals[stop] <= begun:
            stop += 1
        spent = answer(first, stop)
        here = slice(first, stop)
        late[here] = begun - due if due > ended else np.nan
        ended = clock.now()
        queue[here], total[here] = begun - start - arrivals[here], ended - start - arrivals[here]
        parts[:, here] = np.asarray(spent)[:, None]
        batch[here], first = stop - first, stop
        if begun - start - arrivals[first - 1] > most_queue_s:
            n = first
    span_s = float(arrivals[n - 1] - arrivals[0])
    rate_per_s = n / max(ended - start - arrivals[0], 1e-9)
    return Served(queue[:n], parts[:, :n], total[:n], late[:n], batch[:n], span_s, rate_per_s)


def closed_loop(n: int, answer: Answer, clock: Clock, n_parts: int) -> Served:
    """One request after the other, each sent when the one before is answered."""
    parts, marks = np.zeros((n_parts, n)), np.zeros(n + 1)
    marks[0] = clock.now()
    for i in range(n):
        parts[:, i] = answer(i, i + 1)
        marks[i + 1] = clock.now()
    span_s = float(marks[-1] - marks[0])
    return Served(np.zeros(n), parts, np.diff(marks), np.zeros(n), np.ones(n), span_s, n / max(span_s, 1e-9))


def highest_rate(holds: Callable[[float], bool], guess_per_s: float) -> tuple[float, float]:
    """The highest rate that holds a bound and the lowest that does not, found from half of a guess on.

    Args:
        holds: tries a rate.
        guess_per_s: such as what a closed loop reaches.

    Returns:
        Both, in requests a second: 0 where none holds, infinite where all do.
    """
    low, high = 0.0, np.inf
    rate = guess_per_s / 2
    for _ in range(TRIALS):
        if holds(rate):
            low = rate
        else:
            high = rate
        rate = low * 2 if high == np.inf else high / 4 if low == 0 else (low * high) ** 0.5
    return low, float(high)
