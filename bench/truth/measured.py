"""Planted cells go through the benchmark's measuring code and come back as records."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.plan.cell import Cell
from bench.records.record import Record
from bench.run.child import run_child

WORKER = (sys.executable, "-X", "faulthandler", "-m", "bench.truth.worker")
START_S = 300.0  # for the worker to load torch on a busy machine
SLACK = 40.0  # of a reading's budget, until the worker counts as hung
LEAST_CPU_SHARE = 0.97  # of the wall time of a loop


class TruthError(RuntimeError):
    """A truth test that could not be made; the message is one line for people."""


@dataclass(frozen=True)
class Planted:
    """A cell whose cost is known.

    Attributes:
        run: name of the run that it belongs to.
        curve: the law of its cost, in the place of a mixer.
        n_tokens: L.
        work: ``{"turns": n}`` or ``{"stages": [[n_bytes, ...], ...]}``.
        spare_bytes: memory that it is given; None for no limit.
    """

    run: str
    curve: str
    n_tokens: int
    work: dict[str, Any]
    spare_bytes: int | None = None

    @property
    def cell(self) -> Cell:
        return Cell(
            task="forward", mixer=self.curve, backend="planted", n_tokens=self.n_tokens,
            batch_size=1, n_layers=1, d_model=1,
        )  # fmt: skip


def measure(planted: Sequence[Planted], *, rounds: int, budget_s: float, seed: int = 0) -> list[Record]:
    """Rounds over all cells, each in a fresh random order, each reading in a fresh process.

    Args:
        planted: cells, of one run or of several whose readings are to be taken side by side.
        rounds: passes.
        budget_s: seconds of timed iterations a reading; 0 for peak memory alone.
        seed: of the order.

    Raises:
        TruthError: the measuring process ended without an answer.
    """
    rng = random.Random(seed)
    order = [(round_, each) for round_ in range(rounds) for each in rng.sample(planted, len(planted))]
    items = [{"work": each.work, "spare_bytes": each.spare_bytes, "budget_s": budget_s} for _, each in order]
    outcome = run_child(WORKER, {"items": items}, timeout_s=START_S + len(items) * (1 + SLACK * budget_s))
    if outcome.reply is None:
        said = " | ".join(outcome.tail.splitlines()[-3:])
        raise TruthError(f"planted workloads could not be measured (exit code {outcome.exit_code}): {said}")
    return [
        as_record(each, round_, reply) for (round_, each), reply in zip(order, outcome.reply["replies"], strict=True)
    ]


def was_disturbed(records: Sequence[Record]) -> bool:
    """Whether others took the processor away while these were timed: a loop that never waits has it all the time."""
    return bool(statistics.median(record.env["cpu_share"] for record in records) < LEAST_CPU_SHARE)


def as_record(planted: Planted, round_: int, reply: dict[str, Any]) -> Record:
    """The record of one reply of the worker, with an error of the workload itself raised."""
    if reply["status"] == "error":
        raise TruthError(f"the planted {planted.curve} at L = {planted.n_tokens} failed: {reply['reason']}")
    censored = {"censored_by": "memory"} if reply["status"] == "oom" else {}
    return Record(
        run=planted.run, cell_id=planted.cell.id, round=round_, cell=dict(planted.cell), status=reply["status"],
        reason=reply["reason"], samples=reply.get("samples", {}), values=reply.get("values", {}),
        notes={**reply.get("notes", {}), **censored}, env=reply.get("env", {}),
    )  # fmt: skip
