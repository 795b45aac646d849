"""Exponentials on the GPU by its special function units, in registers, with nothing around them."""

# mypy: ignore-errors
# Kernels are compiled by Triton, whose decorators mypy cannot follow.

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

from ftmamba.ops.cache import place_triton

place_triton()

ROUNDS = 1024
WIDTH = 1024
PROGRAMS = 4096  # many for each multiprocessor


@triton.jit
def exponentials(out, n_rounds, WIDTH: tl.constexpr):
    """Each program takes exponentials of numbers in [-1, 0] over and over."""
    at = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    x = tl.arange(0, WIDTH).to(tl.float32) / WIDTH
    for _ in range(n_rounds):
        x = tl.exp2(-x)
    tl.store(out + at, x)


def work(device: str = "cuda", n_programs: int = PROGRAMS, n_rounds: int = ROUNDS) -> tuple[Callable[[], None], int]:
    """What to time, and how many exponentials it takes."""
    out = torch.empty(n_programs * WIDTH, device=device)
    return lambda: exponentials[(n_programs,)](out, n_rounds, WIDTH=WIDTH), n_programs * n_rounds * WIDTH
