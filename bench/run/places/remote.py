"""What runs on a worker: a look at it, a probe of its machine, cells. Requests and replies are plain data."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.run import environment
from bench.run.attempt import Answer, execute
from bench.run.environment import THREAD_VARIABLES
from bench.run.provenance import code_id, machine_name

Request = dict[str, Any]


def call(what: str, request: Request) -> dict[str, Any]:
    """Do what is asked for, with the driver's own settings of threads instead of those that an engine makes."""
    for name in THREAD_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(request["variables"])
    return FUNCTIONS[what](request)


def look(request: Request) -> dict[str, Any]:
    """Which machine this is, the processors that this process may use, and the version of the project."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {"machine": machine_name(), "cpus": sorted(cpus), "code": code_id()}


def probe(request: Request) -> dict[str, Any]:
    """Facts about this machine, or in ``failed`` why there are none."""
    try:
        return environment.probe(**request["probe"])
    except environment.MachineError as error:
        return {"failed": str(error)}


def run(request: Request) -> dict[str, Any]:
    """Cells in one process: an answer for each that it came to, and the files that they left, as base64."""
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory(prefix="ftmamba-") as name:
        folder = Path(name)
        execute({**request, "folder": name}, answers.append)
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
        return {
            "answers": answers,
            "files": {str(each.relative_to(folder)): base64.b64encode(each.read_bytes()).decode() for each in files},
        }


FUNCTIONS: dict[str, Callable[[Request], dict[str, Any]]] = {"look": look, "probe": probe, "run": run}
