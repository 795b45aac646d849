"""A runner of many workers: points go to slots of a place, and what comes back is written here, by nobody else.

The unit is one point with all its mixers, on one slot, so that a ratio compares no two machines. A worker that was
lost gets its cells again, twice; the first outcome of a cell and round counts.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.plan.cell import PARAMS, Cell
from bench.run.attempt import failed
from bench.run.environment import MachineError, thread_variables
from bench.run.places import Place, Slot
from bench.run.provenance import utc_now
from bench.run.runner import Listener, Point, Runner

RESUBMISSIONS = 2  # of a cell whose worker was lost
WAIT_S = 1.0  # for something to end, between looks at the clock
OF_A_MIXER = (
    "mixer",
    PARAMS,
    "backend",
    "baseline",
    "policy",
    "paired_with",
    "as_long_as",
)  # what the cells of one point differ in


def units_of(points: Sequence[Point]) -> list[list[Point]]:
    """Points of one round that differ in nothing but the mixer, together, in the order of their first ones."""
    units: dict[tuple[int, str], list[Point]] = {}
    for round_, cell in points:
        units.setdefault((round_, point_of(cell)), []).append((round_, cell))
    return [*units.values()]


def point_of(cell: Cell) -> str:
    """The cell without its mixer, as text."""
    return json.dumps({name: value for name, value in cell.items() if name not in OF_A_MIXER}, sort_keys=True)


class Fleet(Runner):
    """Runs points of one plan on the slots of a place; see ``Runner``.

    Args:
        place: open.
        machines: facts of each by its name.
        slots: of the place.
    """

    def __init__(
        self, *args: Any, place: Place, machines: dict[str, Any], slots: Sequence[Slot], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._place, self._machines, self._slots = place, machines, list(slots)
        known = self._writer.meta.get("machines")
        self._writer.update_meta(machines={**(known if isinstance(known, dict) else {}), **machines})
        self._rest: dict[Slot, list[Point]] = {slot: [] for slot in slots}  # of the unit that a slot has begun
        self._running: dict[int, tuple[Slot, list[Point]]] = {}
        self._lost: Counter[Point] = Counter()
        self._kinds: dict[str, str] = {}  # of machine, of each point that was begun: rounds are not pooled over kinds

    def run(self, points: Sequence[Point], on_record: Listener, deadline: float | None = None) -> bool:
        """As ``Runner.run``.

        Raises:
            MachineError: no worker is left.
        """
        self._units, self._on_record, self._deadline = units_of(points), on_record, deadline
        self._n_begun, is_due = 0, True
        while True:
            late = deadline is not None and time.monotonic() > deadline
            is_due = not late or self._n_begun < self._conduct.at_least
            for slot in self._slots if is_due else []:
                if all(slot is not busy for busy, _ in self._running.values()):
                    self._begin(slot)
            if not self._running:
                break
            for call, reply in self._place.wait(WAIT_S):
                self._take(*self._running.pop(call), reply)
        left = bool(self._units) or any(self._rest.values())
        if left and not self._slots:
            raise MachineError("no worker is left; all finished records are safe: continue with --resume")
        return not left

    def _begin(self, slot: Slot) -> None:
        """Give a slot the next cells of its unit, or of the next unit, until some of them have to be run."""
        while True:
            if not self._rest[slot]:
                kind = self._machines[slot.machine]["kind"]
                fitting = next((unit for unit in self._units if self._fits(unit, kind)), None)
                if fitting is None:
                    return
                self._units.remove(fitting)
                self._kinds[point_of(fitting[0][1])] = kind
                self._rest[slot] = fitting
            n = self._plan.cells_per_process
            batch, self._rest[slot] = self._rest[slot][:n], self._rest[slot][n:]
            self._n_begun += len(batch)
            if batch := [point for point in batch if not self._refused(point, self._on_record)]:
                break
        request = {**self._request(batch, self._deadline), "cpus": slot.cpus, "variables": thread_variables()}
        self._running[self._place.submit(slot.berth, "run", request, len(slot.cpus))] = slot, batch

    def _fits(self, unit: list[Point], kind: str) -> bool:
        own = self._kinds.get(point_of(unit[0][1]), kind)
        return own == kind or all(self._machines[slot.machine]["kind"] != own for slot in self._slots)

    def _take(self, slot: Slot, batch: list[Point], reply: dict[str, Any] | str) -> None:
        """Write what came back; what did not is run again."""
        if not isinstance(reply, str) and any(
            answer["env"].get("machine", slot.machine) not in self._machines for answer in reply["answers"]
        ):
            reply = "its job was moved to a machine that nobody has looked at"
        if isinstance(reply, str):
            self._lost[batch[0]] += 1
            if self._lost[batch[0]] > RESUBMISSIONS:
                answer = {**failed("error", f"worker lost {RESUBMISSIONS + 1} times: {reply}"), "started_at": utc_now()}
                self._on_record(self._keep(batch.pop(0), answer), 0.0)
        else:
            for name, content in reply["files"].items():
                self._write(name, base64.b64decode(content))
            for answer in reply["answers"]:
                self._on_record(self._keep(batch.pop(0), answer), answer["seconds"])
        self._rest[slot] = batch + self._rest[slot]
        if isinstance(reply, str) and self._place.renewed(slot.berth) is None:
            self._slots.remove(slot)
            if rest := self._rest.pop(slot):
                self._units.insert(0, rest)
            self._lost.clear()  # what a machine that went took with it is not the cell's doing

    def _write(self, name: str, content: bytes) -> None:
        """A file beside the records, whole or not at all."""
        path: Path = self._writer.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content)
        os.replace(new, path)
