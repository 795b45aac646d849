"""Control groups of Linux, both versions: what this process may use of the machine, and where it ran into that."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> list[Path]:
    """Folders of the groups whose limits hold for this process: its own and all around it, of version 1 and 2.

    In a container ``membership`` may name groups of the host that are not to be seen; the container's own is then the
    root of what is.
    """
    found = {root / controller: None, root: None}
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = root / controller if controller in controllers.split(",") else root
        if top != root or not controllers:
            own = Path(path.lstrip("/"))
            found |= {top / each: None for each in (own, *own.parents)}
    return [folder for folder in found if folder.is_dir()]


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """Processors' worth of time that this process may take; None where no group sets a quota."""
    quotas = [_quota(folder) for folder in groups("cpu", root, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    limit, period = number(group / "cpu.cfs_quota_us"), number(group / "cpu.cfs_period_us")
    with contextlib.suppress(OSError, ValueError):  # version 1, or "max"
        limit, period = map(int, (group / "cpu.max").read_text().split())
    return limit / period if limit and period and limit > 0 else None


def throttled(root: Path = ROOT, membership: Path = MEMBERSHIP) -> list[tuple[int, int]]:
    """For each group: periods of its quota so far, and those in which it was used up and processes had to wait."""
    stats = [folder / "cpu.stat" for folder in groups("cpu", root, membership)]
    return [(counter(stat, "nr_periods") or 0, counter(stat, "nr_throttled") or 0) for stat in stats]


def number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def counter(path: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
