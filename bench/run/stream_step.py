"""One cell of ``stream_step``: users of a live system, of whom one batch at a time, drawn at random, has an event."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.plan.cell import PARAMS, Cell
from bench.plan.policy import Policy, tower_of
from bench.run import stopping
from bench.run.measure import check_finite, reply_of
from bench.run.probes import Reading, clocks, memory, wall
from bench.run.tasks.stream_step import N_ITEMS, seen, state_bytes
from bench.run.users import Kept, Recomputed, begun, part
from bench.run.verify import ALLOWANCE, LONGEST, REFERENCE, WrongResultError, relative_error
from ftmamba import mixers
from ftmamba.history import HistoryBatch, HistoryEncoder
from ftmamba.spec import EventSpec
from ftmamba.state import each_tensor, tensors
from ftmamba.stream import Stream
from ftmamba.threads import set_threads

GAP_S = 3600  # between events
FEWEST, MOST = 3, 300  # readings of update and of refresh alone, as many as the budget has time for
LONGEST_REPLAY_S = 20.0
KERNEL = {True: "a step and a peek are one kernel each", False: "steps and peeks go op by op"}


def measure(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Time a request, which is the update and the refresh of ``batch_size`` users, and its parts.

    Returns:
        The reply. ``wall_s`` are seconds of requests; ``update_s`` and ``refresh_s`` medians of either alone; bytes of
        a user's state as measured and by arithmetic; ``replay_s``, what it takes to make the state of a batch anew.
        The note ``kernel`` says how states were stepped.

    Raises:
        WrongResultError: what the policy gives is not what the reference's forward pass gives, or not finite.
    """
    set_threads(request["threads"])
    notes = {} if request["verified"] else {"verify": verify(cell)}
    tower, history = tower_for(cell), draw(cell, cell.n_tokens - 1)
    users = fill(cell, tower, history)
    if cell.heap == "kept":
        memory.keep_heap()
    requests = Requests(cell, users, history)
    clock, sampler = requests.clock, clocks.sampler_for(cell.device)
    requests.prepare()
    check_finite(requests.refresh())
    gc.collect()
    gc.disable()
    sampler.start()
    started = time.perf_counter()
    seconds, ended_by = stopping.collect(
        clock, requests.answer, request["settings"]["budget_s"], first_s=clock.read(requests.answer, 1)[0]
    )
    n = min(MOST, max(FEWEST, int(request["settings"]["budget_s"] / statistics.median(seconds))))
    parts = {
        "update_s": statistics.median(clock.read(requests.update, n)),
        "refresh_s": statistics.median(clock.read(requests.refresh, n)),
        "state_bytes": users[0].bytes_a_user(),
        "state_bytes_by_arithmetic": state_bytes(cell),
    }
    reading = sampler.stop() + Reading(parts, {**notes, **requests.kernel(), "wall_s": ended_by})
    reading += replay(cell, users[0], history)
    return reply_of({"wall_s": seconds}, reading, time.perf_counter() - started)


class Requests:
    """Requests of users drawn at random; the draw, and what keeps histories from growing, is outside of the time.

    Args:
        cell: with the share of users who are cold.
        users: those of a batch always come together.
        history: of a batch, the new event last.

    Attributes:
        clock: reads the time of a request, or of a part of it.
    """

    def __init__(self, cell: Cell, users: Sequence[Kept | Recomputed], history: HistoryBatch) -> None:
        self._users, self._batch = users, users[0]
        self.cold_share = cell.cold_share if isinstance(users[0], Kept) else 0.0  # events alone are not lost
        self._random, self._clock = np.random.default_rng(cell.seed), wall.clock_for(cell.device)
        n_events = history.item.shape[1]
        self._event = part(history, n_events - 1, n_events)
        self._before = part(history, 0, n_events - 1)
        self._all = torch.arange(history.n_rows, device=history.item.device)
        self._counts = [each.clone() for each in _counts(users[0])]
        self._cold = False
        self.clock = self

    def read(self, step: Callable[[], object], n: int) -> list[float]:
        found = []
        for _ in range(n):
            self.prepare()
            found += self._clock.read(step, 1)
        return found

    def prepare(self) -> None:
        for now, before in zip(_counts(self._batch), self._counts, strict=True):
            now.copy_(before)
        self._batch = self._users[int(self._random.integers(len(self._users)))]
        self._cold = self._random.random() < self.cold_share

    def answer(self) -> Tensor:
        if self._cold:
            self._batch.replay(self._before, self._all)
        self.update()
        return self.refresh()

    def update(self) -> None:
        self._batch.update(self._event)

    def refresh(self) -> Tensor:
        return self._batch.read()

    def kernel(self) -> dict[str, str]:
        """A note on what took the last update, where a state was stepped."""
        return {"kernel": KERNEL[self._batch.state.by_kernel]} if isinstance(self._batch, Kept) else {}


def _counts(users: Kept | Recomputed) -> list[Tensor]:
    """How many events states are behind, and when."""
    return [each for each in tensors(users.state) if not each.is_floating_point()] if isinstance(users, Kept) else []


def tower_for(cell: Cell) -> HistoryEncoder:
    torch.manual_seed(cell.seed)
    tower = HistoryEncoder(tower_of(cell), EventSpec(N_ITEMS), max_events=cell.n_tokens - 1)
    return tower.to(cell.device, getattr(torch, cell.dtype)).eval()


def draw(cell: Cell, n_events: int) -> HistoryBatch:
    """Synthetic events, an hour apart."""
    generator = torch.Generator().manual_seed(cell.seed)
    item = torch.randint(N_ITEMS, (cell.batch_size, n_events), generator=generator)
    none = torch.empty(cell.batch_size, n_events, 0)
    times = (GAP_S * torch.arange(n_events)).expand(cell.batch_size, -1).contiguous()
    history = HistoryBatch(item, none, none.long(), times, torch.full((cell.batch_size,), n_events))
    return history.to(cell.device, getattr(torch, cell.dtype))


def fill(cell: Cell, tower: HistoryEncoder, history: HistoryBatch) -> list[Kept] | list[Recomputed]:
    """All users, by batches, each with the events before the last one; or with what is read of a history again."""
    n_batches, n_events = -(-cell.resident_users // cell.batch_size), history.item.shape[1]
    if Policy.of(cell.policy).keeps:
        stream = Stream(tower)
        state = begun(stream, part(history, 0, n_events - 1), cell.n_tokens)
        return [Kept(stream, each_tensor(torch.clone, state), cell.n_tokens) for _ in range(n_batches)]
    again = part(history, n_events - seen(cell), n_events)
    return [Recomputed(tower, HistoryBatch._make(map(torch.clone, again))) for _ in range(n_batches)]


def replay(cell: Cell, users: Kept | Recomputed, history: HistoryBatch) -> Reading:
    """Seconds to make a batch's state anew from its events, where there is one and it does not take too long."""
    if isinstance(users, Recomputed):
        return Reading(notes={"replay_s": "nothing is kept that could be lost"})
    who, clock, n_events = (
        torch.arange(history.n_rows, device=history.item.device),
        wall.clock_for(cell.device),
        history.item.shape[1],
    )
    tenth = part(history, 0, max(1, n_events // 10))
    tenth_s = clock.read(lambda: users.replay(tenth, who), 1)[0]
    if (longest_s := 100 * tenth_s) > LONGEST_REPLAY_S:  # where time grows as the square
        return Reading(
            notes={"replay_s": f"not measured: a tenth of it took {tenth_s:.1f} s, all may take {longest_s:.0f} s"}
        )
    return Reading({"replay_s": clock.read(lambda: users.replay(history, who), 1)[0]})


@torch.no_grad()
def verify(cell: Cell) -> str:
    """Compare what the policy gives after some events, half of them step by step, with the reference's in float64.

    Raises:
        WrongResultError: the error is much larger than that of plain torch in the same dtype.
    """
    if REFERENCE not in mixers.find(cell.mixer).backends:
        return f"not compared: {cell.mixer} has no reference"
    small = cell.but(n_tokens=min(cell.n_tokens, LONGEST), batch_size=min(cell.batch_size, 2))
    tower, plain = tower_for(small), tower_for(small.but(backend=REFERENCE, **{PARAMS: cell.params}))
    plain.load_state_dict(tower.state_dict())
    events = small.n_tokens - 1
    history = draw(small, events)
    read = history if Policy.of(cell.policy).keeps else part(history, events - seen(small), events)
    usual = plain(read)
    truth = [plain.double()(read._replace(numeric=read.numeric.double())).double()]
    if Policy.of(cell.policy).keeps:
        stream, half = Stream(tower), events // 2
        state = stream.start(history.n_rows, room=small.n_tokens, history=part(history, 0, half))
        for i in range(half, events):
            state = stream.step(part(history, i, i + 1), state)[1]
        found = stream.peek(state)
    else:
        found = tower(read)
    error, plain_error = (relative_error([each.double()], truth) for each in (found, usual))
    bound = ALLOWANCE * max(plain_error, torch.finfo(getattr(torch, cell.dtype)).eps)
    if not error <= bound:
        raise WrongResultError(
            f"policy {cell.policy} of {cell.mixer}/{cell.backend} is off by {error:.2g} of the largest value after "
            f"{events} events, where plain torch is off by {plain_error:.2g}"
        )
    return f"off the float64 reference by {error:.1g} after {events} events, plain torch by {plain_error:.1g}"
