"""The child: one cell in, one reply out. Run by the runner as ``python -m bench.run.worker DESCRIPTOR``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from bench.plan.cell import Cell
from bench.records.text import printable
from bench.run.affinity import pin
from bench.run.child import guard_child, send_reply

REASON_LENGTH = 500
OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")


def main() -> None:
    request = json.load(sys.stdin)
    guard_child(memory_limit_bytes=request["memory_limit_bytes"])
    try:
        send_reply(answer(request))
    except Exception as error:
        send_reply(failure(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries take their time to unload, and what they do then is of no interest


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Measure the request's cell."""
    pin(request["threads"])  # before torch starts threads
    from bench.run.measure import measure

    found = measure(
        Cell(**request["cell"]),
        request["budget_s"],
        request["threads"],
        verified=request["verified"],
        heap=request["heap"],
        paired_with=Cell(**request["paired_with"]) if request["paired_with"] else None,
    )
    return {
        "status": "ok",
        "reason": "",
        "samples": found.samples,
        "values": found.reading.values,
        "notes": found.reading.notes,
        "env": found.env,
        "measured_s": found.measured_s,
    }


def failure(error: Exception) -> dict[str, Any]:
    """What to tell of an exception: out of memory, in whichever words a library says it, or an error."""
    text = printable(str(error))
    name = type(error).__name__
    full = name == "OutOfMemoryError" or isinstance(error, MemoryError) or tells_of_full_memory(text)
    reason = f"{name}: {text}" if text else name
    return {"status": "oom" if full else "error", "reason": reason[:REASON_LENGTH]}


def tells_of_full_memory(text: str) -> bool:
    """Whether a message is about memory that could not be had."""
    return any(words in text.lower() for words in OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
