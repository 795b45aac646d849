"""A command, its name first, with a machine that is known beforehand and cells that act instead of measuring."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

from bench.run import environment, session
from bench.run.fleet import Fleet
from bench.run.runner import Runner

ACTING = (sys.executable, str(Path(__file__).parent / "run" / "acting_worker.py"))
MACHINE: dict[str, Any] = {
    "os": "Test 1",
    "python": "3.11",
    "cpu": {"model": "Some CPU", "cores": 2, "logical_cores": 2, "usable_cores": 2, "capability": "AVX2"},
    "memory_bytes": 2**34,
    "gpus": [],
    "driver": None,
    "torch": {"version": "2.9", "cuda": None, "cudnn": None},
    "versions": {"torch": "2.9"},
    "threads": {"torch": 2},
}


def act() -> None:
    """Replace the probe and the worker for the rest of this process."""
    environment.probe = lambda **_: MACHINE
    session.Runner = functools.partial(Runner, worker=ACTING)  # type: ignore[misc]
    session.Fleet = functools.partial(Fleet, worker=ACTING)  # type: ignore[misc]


if __name__ == "__main__":
    act()
    command = importlib.import_module(f"bench.{sys.argv.pop(1)}")
    sys.exit(command.main())
