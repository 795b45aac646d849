"""Memory of the machine, as the parent sees it: what is free, and whether the kernel had to kill for want of it."""

from __future__ import annotations

from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.run.cgroup import ROOT, counter, groups, number


def free_bytes(cgroup: Path = ROOT) -> int:
    """Bytes that a new process can use: what the machine has left, or one of its control groups, whichever is least."""
    free = [int(psutil.virtual_memory().available)]
    for group in groups("memory", cgroup):
        for limit, usage, reclaimable in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit_bytes, used_bytes = number(group / limit), number(group / usage)
            if limit_bytes is not None and used_bytes is not None:
                cache_bytes = counter(group / "memory.stat", reclaimable) or 0  # file cache, given up on demand
                free.append(max(0, limit_bytes - used_bytes + cache_bytes))
    return min(free)


def oom_kills(cgroup: Path = ROOT, vmstat: Path = Path("/proc/vmstat")) -> int:
    """How often the kernel has killed a process for want of memory, as far as its counters can be read."""
    counters = [vmstat, *(group / "memory.events" for group in groups("memory", cgroup))]
    return sum(counter(path, "oom_kill") or 0 for path in counters)
