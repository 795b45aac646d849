"""The trace of the profiled steps, for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.records.region import Region
from bench.run.profiler.instrument import OVERHEAD
from bench.run.profiler.kernels import ENGINE, Kernels, RegionOf, backward_region, range_region

TRACK = 1  # number of the track of regions; no thread of the operating system's has it but its first


def write_trace(kernels: Kernels, path: Path) -> None:
    """Torch's own trace, and one track on which each region of the step, forward and backward, is one slice.

    The folder gets a ``.gitignore``, since traces are large and of one machine.

    Raises:
        OSError: cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "trace.json"
        kernels.recorded.export_chrome_trace(str(raw))
        trace = json.loads(raw.read_text(encoding="utf-8", errors="replace"))
    trace["traceEvents"] += region_track(trace["traceEvents"], kernels.region_of)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=5) as file:
        file.write(json.dumps(trace, separators=(",", ":")))  # ``dump`` writes piece by piece, many times slower


def region_track(events: list[dict[str, Any]], region_of: RegionOf) -> list[dict[str, Any]]:
    """Slices of the regions, from the forward ranges and the autograd nodes of a trace."""
    slices: list[dict[str, Any]] = []
    for event in sorted((each for each in events if each.get("ph") == "X"), key=lambda each: float(each["ts"])):
        region = _region(event, region_of)
        if region is None or region == OVERHEAD:
            continue
        start, end, name = event["ts"], event["ts"] + event["dur"], str(region)
        if slices and slices[-1]["name"] == name and region.phase == "backward":
            slices[-1]["dur"] = end - slices[-1]["ts"]
        else:
            slices.append(
                {"ph": "X", "cat": "region", "name": name, "ts": start, "dur": end - start, "pid": event["pid"],
                 "tid": TRACK}
            )  # fmt: skip
    names = [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": TRACK, "args": {"name": "regions"}}
        for pid in {each["pid"] for each in slices}
    ]
    return names + slices


def _region(event: dict[str, Any], region_of: RegionOf) -> Region | None:
    name = str(event.get("name", ""))
    if event.get("cat") == "user_annotation":
        return range_region(name)
    if event.get("cat") == "cpu_op" and name.startswith(ENGINE):
        return backward_region(region_of, int(event.get("args", {}).get("Sequence number", -1)))
    return None
