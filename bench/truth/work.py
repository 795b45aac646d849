"""Workloads whose cost is known: a loop of so many turns, and blocks of so many bytes."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch


def loop(turns: int) -> None:
    """Spend processor time in proportion to ``turns``, some nanoseconds each; neither sleeps nor allocates."""
    collections.deque(itertools.repeat(None, turns), maxlen=0)


def multiply(times: int) -> None:
    """Multiply two matrices so many times over, on all of torch's threads, some tenths of a millisecond each."""
    a = torch.ones(256, 256)
    for _ in range(times):
        torch.mm(a, a)


def hold(stages: Sequence[Sequence[int]]) -> torch.Tensor:
    """Hold blocks of so many bytes at once, stage after stage: the peak is the largest sum of a stage."""
    blocks: list[torch.Tensor] = []
    for sizes in stages:
        blocks.clear()
        blocks.extend(torch.ones(n_bytes, dtype=torch.uint8) for n_bytes in sizes)
    return torch.zeros(1)


def step_of(work: dict[str, Any]) -> Callable[[], object]:
    """One iteration of the work that ``turns``, ``products`` or ``stages`` of blocks describe."""
    if "turns" in work:
        return partial(loop, work["turns"])
    if "products" in work:
        return partial(multiply, work["products"])
    return partial(hold, work["stages"])
