"""JSON files of pytest-benchmark, read as runs of one round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.plan.axes import AXES
from bench.records.record import Record
from bench.records.store import Run, RunError, load_run


def load_results(path: Path) -> Run:
    """A results folder, or a JSON file of pytest-benchmark.

    Raises:
        RunError: neither of the two.
    """
    return load_pytest_benchmark(path) if path.suffix == ".json" else load_run(path)


def load_pytest_benchmark(path: Path) -> Run:
    """One record a benchmark; its samples are the seconds of the rounds within its one process.

    Raises:
        RunError: not such a file.
    """
    try:
        found = json.loads(path.read_bytes())
        benchmarks = found["benchmarks"]
        records = [_record(path.stem, benchmark) for benchmark in benchmarks]
        meta = {
            "command": "pytest-benchmark",
            "machine": dict(_machine(found)),
            "started_at": str(found.get("datetime", "")),
        }
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{path} is not a JSON file of pytest-benchmark") from None
    return Run(name=path.stem, meta=meta, records=records, folder=path.parent)


def _record(run: str, benchmark: dict[str, Any]) -> Record:
    told = {**(benchmark.get("params") or {}), **(benchmark.get("extra_info") or {})}
    cell = {axis.field: told[axis.field] for axis in AXES if axis.field in told}
    name = str(benchmark["fullname"])
    samples = benchmark["stats"].get("data") or [benchmark["stats"]["median"]]  # saved without data by some
    return Record.from_dict(
        {
            "run": run,
            "cell_id": name,
            "round": 0,
            "cell": {"task": str(benchmark["name"]).partition("[")[0], **cell, "name": name},
            "status": "ok",
            "samples": {"wall_s": samples},
            "values": {key: value for key, value in told.items() if key not in cell and isinstance(value, int | float)},
        }
    )


def _machine(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    machine = found.get("machine_info") or {}
    yield "os", f"{machine.get('system', '')} {machine.get('release', '')}".strip()
    yield "python", machine.get("python_version")
    cpu = machine.get("cpu") or {}
    yield "cpu", {"model": cpu.get("brand_raw"), "logical_cores": cpu.get("count")}
    yield "versions", {"pytest-benchmark": found.get("version")}
    commit = found.get("commit_info") or {}
    yield "commit", f"{commit.get('id', '')}{' with changes' if commit.get('dirty') else ''}"
