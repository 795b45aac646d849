"""Time of the ops on the CPU: ``pytest --benchmark-only tests/perf/test_ops.py``. Grouped by op, pass and shape.

The scan at 128 channels and 16 states (d_model 64, expand 2), as the block passes it: B, C and z are slices.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.run.probes import memory
from ftmamba.ops.attention import attention
from ftmamba.ops.causal_conv import causal_conv
from ftmamba.ops.selective_scan import selective_scan

pytest.importorskip("numba")

SHAPES = [(32, 100), (32, 1000), (1, 10_000)]
D_MODEL, D_INNER, D_STATE = 64, 128, 16
# Multiplications and fused multiply-adds for one state of one channel and token, in either case one instruction of the
# same unit: forward 1 for the exponent, 5 for the power of two, 2 for the state and its input, 1 for the output.
# Backward the same again with 1 more for dC, then 7 for the gradients.
FORWARD_MULTIPLY_ADDS = 9
BACKWARD_MULTIPLY_ADDS = 17

Step = Callable[[], object]


def scan_inputs(batch: int, n_tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    xz = torch.randn(batch, n_tokens, 2 * D_INNER, generator=generator)
    projected = torch.randn(batch, n_tokens, 4 + 2 * D_STATE, generator=generator)
    _, B, C = projected.split([4, D_STATE, D_STATE], dim=-1)
    dt = 0.5 * torch.randn(batch, n_tokens, D_INNER, generator=generator)
    A = -torch.arange(1.0, D_STATE + 1).repeat(D_INNER, 1)
    u = xz[..., :D_INNER].contiguous()
    return [u, dt, A, B, C, torch.ones(D_INNER), xz[..., D_INNER:], torch.full((D_INNER,), -4.0)]


def conv_inputs(batch: int, n_tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    xz = torch.randn(batch, n_tokens, 2 * D_INNER, generator=generator)
    return [xz[..., :D_INNER], torch.randn(D_INNER, 4, generator=generator), torch.zeros(D_INNER)]


def forward_of(op: Callable[..., object], inputs: list[Tensor]) -> Step:
    def step() -> None:
        with torch.no_grad():
            op(*inputs)

    return step


def train_of(op: Callable[..., Tensor], inputs: list[Tensor]) -> Step:
    leaves = [tensor.requires_grad_() for tensor in inputs]
    weights = torch.randn_like(op(*leaves))

    def step() -> None:
        torch.autograd.grad(op(*leaves), leaves, weights)

    return step


def run(benchmark: BenchmarkFixture, step: Step, *, group: str, seconds: float = 1.0, **info: object) -> None:
    started = time.perf_counter()
    step()
    once = time.perf_counter() - started
    _, reading = memory.peak_of(step, "cpu")
    benchmark.group = group
    benchmark.extra_info.update(info, peak_memory_bytes=reading.values["peak_memory_bytes"])
    benchmark.pedantic(step, rounds=max(3, min(100, int(seconds / once))), iterations=1, warmup_rounds=1)


@pytest.mark.parametrize(("batch", "n_tokens"), SHAPES)
@pytest.mark.parametrize("task", ["forward", "train"])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_selective_scan(benchmark: BenchmarkFixture, backend: str, task: str, batch: int, n_tokens: int) -> None:
    if backend == "reference" and n_tokens > 100:
        pytest.skip("a loop over tokens in Python")

    def op(*inputs: Tensor) -> Tensor:
        return selective_scan(*inputs, backend=backend)[0]

    inputs = scan_inputs(batch, n_tokens)
    step = forward_of(op, inputs) if task == "forward" else train_of(op, inputs)
    updates = batch * n_tokens * D_INNER * D_STATE
    info = {"batch_size": batch, "n_tokens": n_tokens, "backend": backend, "state_updates": updates}
    run(benchmark, step, group=f"selective_scan {task}, B={batch}, L={n_tokens}", **info)


@pytest.mark.parametrize(("batch", "n_tokens"), SHAPES)
@pytest.mark.parametrize("task", ["forward", "train"])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_causal_conv(benchmark: BenchmarkFixture, backend: str, task: str, batch: int, n_tokens: int) -> None:
    def op(*inputs: Tensor) -> Tensor:
        return causal_conv(*inputs, backend=backend)

    inputs = conv_inputs(batch, n_tokens)
    step = forward_of(op, inputs) if task == "forward" else train_of(op, inputs)
    info = {"batch_size": batch, "n_tokens": n_tokens, "backend": backend}
    run(benchmark, step, group=f"causal_conv {task}, B={batch}, L={n_tokens}", **info)


MASKS: dict[str, dict[str, object]] = {"all": {}, "causal": {"causal": True}, "band": {"window": 64}}


@pytest.mark.parametrize(("batch", "n_tokens"), [(32, 100), (1, 1000), (1, 3000)])
@pytest.mark.parametrize("n_heads", [8, 2])
@pytest.mark.parametrize("task", ["forward", "train"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", ["numba", "sdpa"])
def test_attention(
    benchmark: BenchmarkFixture, backend: str, mask: str, task: str, n_heads: int, batch: int, n_tokens: int
) -> None:
    """At width 64, as the layer passes it: keys and values are slices. SDPA writes a band out."""

    def op(*inputs: Tensor) -> Tensor:
        return attention(*inputs, **MASKS[mask], backend=backend)  # type: ignore[arg-type]

    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch, n_tokens, n_heads, D_MODEL // n_heads, generator=generator)
    k, v = torch.randn(batch, n_tokens, 2, n_heads, D_MODEL // n_heads, generator=generator).unbind(2)
    step = forward_of(op, [q, k, v]) if task == "forward" else train_of(op, [q, k, v])
    info = {"batch_size": batch, "n_tokens": n_tokens, "n_heads": n_heads, "mask": mask, "backend": backend}
    group = f"attention {task}, {mask}, B={batch}, L={n_tokens}, {n_heads} heads"
    run(benchmark, step, group=group, **info)


@pytest.mark.parametrize(("batch", "n_tokens"), SHAPES)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_scan_against_roof(benchmark: BenchmarkFixture, direction: str, batch: int, n_tokens: int) -> None:
    """How much of the machine's rate of multiply-adds the scan reaches; both are timed in turn."""
    from roof import multiply_adds

    import ftmamba.ops.selective_scan.numba as backend

    inputs = scan_inputs(batch, n_tokens)
    with torch.no_grad():
        y, _, checkpoints = backend._scan(*inputs, None, True, True)
        dy = torch.randn_like(y)

        def forward() -> None:
            backend._scan(*inputs, None, True, False)

        def backward() -> None:
            backend._scan_backward(dy, None, checkpoints, None, *inputs, True)

        scan, each = {
            "forward": (forward, FORWARD_MULTIPLY_ADDS),
            "backward": (backward, BACKWARD_MULTIPLY_ADDS),
        }[direction]
        count = batch * n_tokens * D_INNER * D_STATE * each
        pairs = [(seconds(scan), seconds(lambda: multiply_adds(count))) for _ in range(20)][1:]
        best_scan, best_roof = (min(times) for times in zip(*pairs, strict=True))
        run(
            benchmark,
            scan,
            group=f"scan against roof, {direction}, B={batch}, L={n_tokens}",
            batch_size=batch,
            n_tokens=n_tokens,
            backend="numba",
            multiply_adds=count,
            roof_multiply_adds_per_s=count / best_roof,
            fraction_of_roof=best_roof / best_scan,
            median_fraction_of_roof=statistics.median(roof / own for own, roof in pairs),
        )


def seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


FIRST_RESULT = """
import time
import torch
started = time.perf_counter()
from ftmamba.ops.selective_scan import selective_scan
x, dt, z = torch.randn(3, 1, 8, 32)
A, B, C, D, bias = -torch.rand(32, 4), torch.randn(1, 8, 4), torch.randn(1, 8, 4), torch.ones(32), torch.zeros(32)
selective_scan(x, dt, A, B, C, D, z, bias, backend="numba")
print(time.perf_counter() - started)
"""


def test_first_result(benchmark: BenchmarkFixture) -> None:
    """A fresh process with compiled code on disk, from the end of importing torch to the first result."""

    def first_result() -> float:
        ran = subprocess.run([sys.executable, "-c", FIRST_RESULT], check=True, capture_output=True, text=True)
        return float(ran.stdout)

    first_result()
    benchmark.group = "first result of a fresh process"
    times = [first_result() for _ in range(5)]
    benchmark.extra_info.update(
        backend="numba", beyond_torch_s=min(times), median_beyond_torch_s=statistics.median(times)
    )
    benchmark.pedantic(first_result, rounds=1, iterations=1)
