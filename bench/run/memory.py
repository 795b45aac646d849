"""Memory of the machine, as the parent sees it: what is free, and whether the kernel had to kill for want of it."""

from __future__ import annotations

import re
from pathlib import Path

import psutil  # type: ignore[import-untyped]

CGROUP = Path("/sys/fs/cgroup")


def free_bytes(cgroup: Path = CGROUP) -> int:
    """Bytes that a new process can use: what the machine has left, or the control group, whichever is less."""
    free = [int(psutil.virtual_memory().available)]
    for limit, usage, stat, reclaimable in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        limit_bytes, used_bytes = _number(cgroup / limit), _number(cgroup / usage)
        if limit_bytes is not None and used_bytes is not None:
            cache_bytes = _counter(cgroup / stat, reclaimable) or 0  # file cache, given up on demand
            free.append(max(0, limit_bytes - used_bytes + cache_bytes))
    return min(free)


def oom_kills(cgroup: Path = CGROUP, vmstat: Path = Path("/proc/vmstat")) -> int:
    """How often the kernel has killed a process for want of memory, as far as its counters can be read."""
    counters = ((vmstat, "oom_kill"), (cgroup / "memory.events", "oom_kill"))
    return sum(_counter(path, name) or 0 for path, name in counters)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _counter(path: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
