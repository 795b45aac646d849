"""Caches that are cold: sets of inputs and weights, together larger than the last-level cache, take turns.

Cutlass' profiler rotates through copies of its workspace in this way. Triton's ``do_bench`` and nvbench overwrite a
buffer of the cache's size between readings, which leaves dirty lines for the next reading to write back; sets in turn
need no work in between, and readings follow one another as they do with warm caches, on a GPU as well. What an
iteration makes on its way, its activations, is as warm as for a server that has just answered for another model.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.run.graph import GraphedStep

LARGER = 3  # times the cache: it is rarely replaced in the order of use alone
MOST_SETS = 1000
UNKNOWN_BYTES = 64 * 2**20  # a cache that the system does not tell of
SYSTEM = Path("/sys/devices/system/cpu/cpu0/cache")
Step = Callable[[], Tensor]


def last_level_bytes(device: str, system: Path = SYSTEM) -> int:
    """Size of the last cache before memory; a guess of 64 MiB where the system does not tell."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    found = [_bytes(path.read_text()) for path in system.glob("index*/size")]
    told = os.sysconf_names.get("SC_LEVEL3_CACHE_SIZE") if hasattr(os, "sysconf_names") else None
    return max(found, default=0) or (os.sysconf(told) if told is not None else 0) or UNKNOWN_BYTES


def in_turn(first: Step, another: Callable[[], Step], device: str) -> tuple[Step, str]:
    """A step whose every iteration takes the next set of inputs and weights, and one line on how many there are.

    Args:
        first: the step of one set; its tensors and modules are what its closure holds.
        another: makes the step of another set of the same size.
        device: whose cache has to be too small.
    """
    held = {id(each): each.numel() * each.element_size() for each in _tensors(first)}
    cache, size = last_level_bytes(device), max(1, sum(held.values()))
    n_sets = min(MOST_SETS, 2 + LARGER * cache // size)
    steps = itertools.cycle([first, *(another() for _ in range(n_sets - 1))])
    told = f"{n_sets} sets of {size / 2**20:.3g} MiB in turn, a cache of {cache / 2**20:.4g} MiB"
    return lambda: next(steps)(), told + (", which holds them all" if n_sets * size <= cache else "")


def _tensors(value: object) -> Iterator[Tensor]:
    """All that a step holds: in its closure, in modules, in collections."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)
    else:
        inner = inspect.unwrap(value) if callable(value) else value  # torch.no_grad wraps what it decorates
        for each in getattr(inner, "__closure__", None) or ():
            yield from _tensors(each.cell_contents)
        if isinstance(value, GraphedStep):
            yield from _tensors(value.step)


def _bytes(text: str) -> int:
    """``32768K``"""
    digits = text.strip().rstrip("KMG")
    return int(digits) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text.strip()[-1:], 1) if digits.isdigit() else 0
