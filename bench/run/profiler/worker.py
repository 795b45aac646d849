"""The child: one cell in, its profile out. Run as ``python -m bench.run.profiler.worker FOLDER TOKENS DESCRIPTOR``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from bench.plan.cell import Cell
from bench.run.child import guard_child, send_reply
from bench.run.worker import failure

MODULE = "bench.run.profiler.worker"


def command(folder: Path, content_tokens: int) -> tuple[str, ...]:
    """What the runner starts.

    Args:
        folder: for traces.
        content_tokens: of the content tower; 0 where there is one tower.
    """
    return (sys.executable, "-X", "faulthandler", "-m", MODULE, str(folder), str(content_tokens))


def main() -> None:
    request = json.load(sys.stdin)
    guard_child(memory_limit_bytes=request["memory_limit_bytes"])
    try:
        send_reply(answer(request, Path(sys.argv[1]), int(sys.argv[2])))
    except Exception as error:
        send_reply(failure(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries take their time to unload, and what they do then is of no interest


def answer(request: dict[str, Any], folder: Path, content_tokens: int) -> dict[str, Any]:
    """Profile the request's cell."""
    from bench.run.profiler.measure import profile_cell

    cell = Cell(**request["cell"])
    trace = folder / f"{cell.id}.json.gz"
    found = profile_cell(cell, request["budget_s"], request["threads"], trace, content_tokens)
    return {
        "status": "ok",
        "reason": "",
        "samples": found.samples,
        "values": found.reading.values,
        "notes": found.reading.notes,
        "env": found.env,
        "measured_s": found.measured_s,
    }


if __name__ == "__main__":
    main()
