"""The parent of a study: every quality cell in a fresh child, every outcome in a record. It never imports torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.plan.study import QualityCell, Study
from bench.records.per_user import per_user_path
from bench.records.record import Record
from bench.records.writer import RunWriter
from bench.run.child import run_child
from bench.run.memory import free_bytes, oom_kills
from bench.run.provenance import utc_now
from bench.run.runner import Listener, verdict

CHECKPOINTS = "checkpoints"  # of trainings that were cut off; a finished one leaves none
WORKER = (sys.executable, "-X", "faulthandler", "-m", "bench.run.rank_quality")


def missing(study: Study, records: Sequence[Record]) -> list[QualityCell]:
    """Cells that have no record yet."""
    done = {record.cell_id for record in records}
    return [cell for cell in study.cells() if cell.id not in done]


class StudyRunner:
    """Runs the cells of one study.

    Args:
        study: resolved.
        machine: facts from ``bench.run.environment.probe``.
        writer: the open results folder.
        data: folder of the data set where it is not in the cache.
        worker: the command that runs a child.
    """

    def __init__(
        self,
        study: Study,
        machine: dict[str, Any],
        writer: RunWriter,
        *,
        data: Path | None = None,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self._study, self._machine, self._writer, self._data, self._worker = study, machine, writer, data, worker

    def run(self, on_record: Listener) -> None:
        """Run what the results folder does not hold yet; each record is on the disk before the next cell starts."""
        for cell in missing(self._study, self._writer.records):
            record, seconds = self._attempt(cell)
            self._writer.append(record)
            on_record(record, seconds)

    def _attempt(self, cell: QualityCell) -> tuple[Record, float]:
        free = int(self._machine["gpus"][0]["free_bytes"]) if cell.device == "cuda" else free_bytes()
        request = {
            "cell": asdict(cell),
            "data": str(self._data.resolve()) if self._data else None,
            "ks": list(self._study.ks),
            "threads": self._study.threads,
            "per_user": str(per_user_path(self._writer.folder, cell.id)),
            "checkpoint": str(self._writer.folder / CHECKPOINTS / f"{cell.id}.safetensors"),
            "memory_limit_bytes": free if cell.device == "cpu" else None,
        }
        started_at, load, kills = utc_now(), os.getloadavg()[0], oom_kills()
        outcome = run_child(self._worker, request, timeout_s=self._study.timeout_s)
        reply = verdict(outcome, self._study.timeout_s, starved=oom_kills() > kills, free_bytes=free)
        record = Record(
            run=self._writer.name,
            cell_id=cell.id,
            round=0,
            cell=asdict(cell),
            status=reply["status"],
            reason=reply["reason"],
            samples=reply.get("samples", {}),
            values=reply.get("values", {}),
            notes=reply.get("notes", {}),
            started_at=started_at,
            env={
                **reply.get("env", {}),
                "load_average": round(load, 2),
                "process_s": round(outcome.wall_s, 3),
                "overhead_s": round(outcome.wall_s - reply.get("measured_s", 0.0), 3),
                "peak_rss_bytes": outcome.peak_rss_bytes,
            },
        )
        return record, outcome.wall_s
