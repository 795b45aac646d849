"""One cell of ``stream_load``: a server with users' states in a cache, asked by an open and by a closed loop."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.data.events import Events
from bench.plan.cell import Cell
from bench.plan.policy import Policy
from bench.run.load import Clock, Floats, Served, WallClock, closed_loop, highest_rate, open_loop, poisson, recorded
from bench.run.measure import reply_of
from bench.run.probes import Reading, memory
from bench.run.stream_step import KERNEL, draw, tower_for
from bench.run.tasks.stream_step import N_ITEMS, seen
from bench.run.users import Kept, Recomputed, Users, begun, part
from ftmamba.history import HistoryBatch, HistoryEncoder
from ftmamba.state import rows
from ftmamba.stream import Stream
from ftmamba.threads import set_threads

TOP = 10
PARTS = ("update", "refresh", "top_k")
KEPT = 5000  # readings of a run, evenly taken
MOST = 1_000_000  # requests of a run
CLOSED = 300
ALLOWED = 0.1  # of the bound, that an empty server may take in its 99th percentile

Ints = npt.NDArray[np.int64]


class Server:
    """Answers requests: the users who were asked for last have their states in memory, others' are made anew.

    At first it holds the first users.

    Args:
        cell: mixer, policy and sizes.
        tower: of histories.
        history: the events that each user begins with, of one user.

    Attributes:
        hits, misses: requests of users whose state was there, and was not.
    """

    def __init__(self, cell: Cell, tower: HistoryEncoder, history: HistoryBatch) -> None:
        n_users = min(cell.resident_users, cell.users)
        same = torch.zeros(n_users, dtype=torch.int64, device=history.item.device)
        self._users: Users = Recomputed(tower, history.rows(same))
        if Policy.of(cell.policy).keeps:
            stream, room = Stream(tower), 2 * cell.n_tokens  # a cache that grows is one of all users
            self._users = Kept(stream, rows(begun(stream, history, room), same), room)
        self._history = history
        self._row_of = OrderedDict((user, user) for user in range(n_users))
        random = np.random.default_rng(cell.seed)
        catalogue = random.standard_normal((cell.catalogue, tower.spec.output_width))
        self._catalogue = torch.from_numpy(catalogue).to(next(tower.parameters()))
        self._item = torch.from_numpy(random.integers(N_ITEMS, size=4096)).to(history.item.device)
        self._time, self.hits, self.misses = int(history.time[0, -1]), 0, 0
        self.best = self._catalogue[:0]

    def answer(self, users: Sequence[int]) -> tuple[float, float, float]:
        """One more event of each of some users, and their ten best items; seconds of update, refresh and search."""
        spent = np.zeros(3)
        for group in distinct(users, len(self._row_of)):
            marks = [time.perf_counter()]
            who = torch.tensor([self._row(user) for user in group], device=self._item.device)
            self._users.update(self._event(len(group)), who)
            self._mark(marks)
            vectors = self._users.read(who)
            self._mark(marks)
            self.best = (vectors @ self._catalogue.T).topk(TOP).indices
            self._mark(marks)
            spent += np.diff(marks)
        return float(spent[0]), float(spent[1]), float(spent[2])

    def _mark(self, marks: list[float]) -> None:
        if self._catalogue.is_cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    def kernel(self) -> dict[str, str]:
        """A note on what took the last events, where states were stepped."""
        return {"kernel": KERNEL[self._users.state.by_kernel]} if isinstance(self._users, Kept) else {}

    def _row(self, user: int) -> int:
        if user in self._row_of:
            self.hits += 1
            self._row_of.move_to_end(user)
            return self._row_of[user]
        self.misses += 1
        row = self._row_of.popitem(last=False)[1]
        self._users.replay(self._history, torch.tensor([row], device=self._item.device))
        self._row_of[user] = row
        return row

    def _event(self, n_users: int) -> HistoryBatch:
        self._time += 1
        item = self._item[(torch.arange(n_users) + self._time) % len(self._item), None]
        first = part(self._history, 0, 1)
        same = HistoryBatch._make(each.expand(n_users, *each.shape[1:]) for each in first)
        return same._replace(item=item, time=torch.full_like(same.time, self._time))


def distinct(users: Sequence[int], most: int) -> Iterator[list[int]]:
    """The users in their order, in groups of up to so many in which nobody is twice: one's events follow each other."""
    group: dict[int, None] = {}
    for user in users:
        if user in group or len(group) == most:
            yield [*group]
            group = {}
        group[user] = None
    yield [*group]


class Load:
    """Requests for a server.

    Args:
        cell: rate, arrivals and batches.
        server: that answers.
        events: whose gaps and users are taken; None draws both.
        clock: of all times.
    """

    def __init__(self, cell: Cell, server: Server, events: Events | None, clock: Clock) -> None:
        self._cell, self._server, self._clock = cell, server, clock
        self._random = np.random.default_rng(cell.seed)
        self._events = None
        if events is not None:
            order = np.argsort(events.column("time"), kind="stable")
            self._events = events.column("time")[order], events.column("user")[order]

    def draw(self, rate_per_s: float, n: int) -> tuple[Floats, Ints]:
        """When requests come, and whose they are; recorded ones are the last of the data set."""
        if self._events is None:
            return poisson(rate_per_s, n, self._random), self._random.integers(self._cell.users, size=n)
        times, users = (each[-n:] for each in self._events)
        return recorded(times, rate_per_s), users

    def open(self, rate_per_s: float, seconds: float, *, empty: bool = False) -> Served:
        """Requests at a rate for so long; of an ``empty`` server, which answers at once."""
        arrivals, users = self.draw(rate_per_s, min(MOST, max(1, round(rate_per_s * seconds))))
        nothing = (0.0,) * len(PARTS)
        return open_loop(
            arrivals, lambda a, b: nothing if empty else self._server.answer(users[a:b].tolist()), self._clock,
            len(PARTS), max_batch=self._cell.max_batch, max_wait_s=self._cell.max_wait_ms / 1e3,
            most_queue_s=seconds,
        )  # fmt: skip

    def closed(self, n: int) -> Served:
        _, users = self.draw(1.0, n)
        return closed_loop(len(users), lambda a, b: self._server.answer(users[a:b].tolist()), self._clock, len(PARTS))

    def holds(self, rate_per_s: float, seconds: float) -> bool:
        """Whether a rate is reached and 99 % of the answers come within the bound."""
        served = self.open(rate_per_s, seconds)
        return served.reached and float(np.quantile(served.total, 0.99)) <= self._cell.bound_ms / 1e3


def measure(cell: Cell, request: dict[str, Any], events: Events | None) -> dict[str, Any]:
    """Serve in an open loop and in a closed one, then look for the highest rate.

    Returns:
        The reply. Samples are seconds, up to ``KEPT`` of each, evenly taken: of the queue, the parts and the total in
        the open loop, of the total in the closed one and of an empty server, and how late an idle server began. The
        note ``kernel`` says how states were stepped.
    """
    set_threads(request["threads"])
    if cell.heap == "kept":
        memory.keep_heap()
    budget_s, started = request["settings"]["budget_s"], time.perf_counter()
    fields = cell.but(batch_size=1)
    n_events = seen(fields)
    server = Server(cell, tower_for(fields), draw(fields, n_events))
    load = Load(cell, server, events, WallClock())
    load.closed(CLOSED)  # warms up
    closed = load.closed(CLOSED)
    rate = closed.rate_per_s / 2 if cell.rate == "auto" else cell.rate
    server.hits = server.misses = 0
    served = load.open(rate, budget_s)
    hit_rate = server.hits / (server.hits + server.misses)
    empty = load.open(rate, budget_s, empty=True)
    low, high = highest_rate(lambda each: load.holds(each, budget_s / 2), closed.rate_per_s)
    values: dict[str, float | int | None] = {
        "rate_offered_per_s": rate, "rate_per_s": served.rate_per_s, "reached": int(served.reached),
        "closed_rate_per_s": closed.rate_per_s, "hit_rate": hit_rate, "mean_batch": float(served.batch.mean()),
        "n_requests": len(served.total), "highest_rate_per_s": low,
        "too_high_rate_per_s": high if high < np.inf else None,
        "p99_allowed": int(float(np.quantile(empty.total, 0.99)) <= ALLOWED * cell.bound_ms / 1e3),
    }  # fmt: skip
    notes = server.kernel()
    if not served.reached:
        notes["reached"] = f"{rate:,.0f} requests a second cannot be reached: {served.rate_per_s:,.0f} were answered"
    if not values["p99_allowed"]:
        notes["p99_allowed"] = f"an empty server's own p99 is above {ALLOWED:.0%} of the bound: no p99 can be told here"
    samples = {"queue_s": served.queue, **dict(zip([f"{each}_s" for each in PARTS], served.parts, strict=True))}
    samples |= {"total_s": served.total, "closed_s": closed.total, "empty_s": empty.total}
    samples["late_s"] = served.late[~np.isnan(served.late)]
    kept = {name: thinned(each) for name, each in samples.items()}
    return reply_of(kept, Reading(values, notes), time.perf_counter() - started)


def thinned(seconds: Floats) -> list[float]:
    """Up to ``KEPT`` of some readings, evenly taken, to the tenth of a microsecond."""
    step = max(1, -(-len(seconds) // KEPT))
    return [round(float(each), 7) for each in seconds[::step]]
