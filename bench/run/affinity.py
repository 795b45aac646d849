"""Keeps a cell's threads on processors of their own, as many as it has threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def pin(threads: int, cpus: Collection[int] = ()) -> None:
    """Let this process run on ``threads`` processors only, of ``cpus`` where some are named.

    Nothing changes where there are no more, or no such call.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    usable = os.sched_getaffinity(0)
    named = usable & set(cpus) or usable
    chosen = choose(threads, named, core_of) if 0 < threads < len(named) else named
    if set(chosen) != usable:
        os.sched_setaffinity(0, chosen)


def choose(threads: int, usable: Collection[int], core_of: Callable[[int], str]) -> list[int]:
    """The first ``threads`` processors, one a core as long as there are cores, then their siblings."""
    taken: dict[str, int] = {}
    ranked = []
    for processor in sorted(usable):
        core = core_of(processor)
        ranked.append((taken.setdefault(core, 0), processor))
        taken[core] += 1
    return [processor for _, processor in sorted(ranked)[:threads]]


def core_of(processor: int) -> str:
    """A name that processors of one core share; the processor's own where the system does not tell."""
    try:
        return Path(TOPOLOGY.format(processor)).read_text().strip()
    except OSError:
        return str(processor)
