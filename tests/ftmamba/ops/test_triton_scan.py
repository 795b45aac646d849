"""The Triton scan, interpreted where there is no GPU: outputs and all gradients against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from types import SimpleNamespace

import pytest
import torch
import torch.utils.deterministic
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from ftmamba.ops.selective_scan import ScanInputs, launch, reference
from ftmamba.ops.selective_scan import triton as scan
from ftmamba.ops.triton_math import NATIVE

DEVICE = "cuda" if NATIVE.value else "cpu"

NAMES = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def cut(patch: pytest.MonkeyPatch, n_tokens: int, chunk: int, tile: launch.Tile) -> None:
    """Make both passes use this tile and chunk."""
    plan = launch.Launch(tile, ceil(n_tokens / chunk), min(chunk, n_tokens), ())
    patch.setattr(scan, "forward_launch", lambda *_: plan)
    patch.setattr(scan, "backward_launch", lambda *_: plan)


def inputs(
    batch: int, n_tokens: int, d_inner: int, d_state: int, *, last: bool, initial: bool, seed: int = 0
) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    n_read = 1 if last else n_tokens
    tensors = {
        "x": normal(batch, n_tokens, d_inner),
        "dt": normal(batch, n_tokens, d_inner) - 2,
        "A": -torch.rand(d_inner, d_state, generator=draw, dtype=torch.float64) * 8 - 0.1,
        "B": normal(batch, n_tokens, d_state),
        "C": normal(batch, n_read, d_state),
        "D": normal(d_inner),
        "z": normal(batch, n_read, d_inner),
        "dt_bias": normal(d_inner),
    }
    if initial:
        tensors["initial_state"] = normal(batch, d_inner, d_state)
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


def outputs_and_gradients(function, tensors: dict[str, Tensor], *, last: bool) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    y, state = function(ScanInputs(**leaves), readout="last" if last else "all")
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=draw, dtype=torch.float64).to(DEVICE) for t in (y, state)]
    ((y.double() * weights[0]).sum() + (state.double() * weights[1]).sum()).backward()
    return {"y": y.detach(), "final_state": state.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def assert_as_good_as_torch(tensors: dict[str, Tensor], dtype: torch.dtype, *, last: bool) -> None:
    """Every output and gradient within twice the error that plain torch makes at this dtype, and eight roundings."""
    rounded = {
        name: t if name in ("A", "D", "dt_bias", "initial_state") else t.to(dtype) for name, t in tensors.items()
    }
    rounded = {name: t.to(torch.float32) if t.dtype == torch.float64 else t for name, t in rounded.items()}
    truth = outputs_and_gradients(
        reference.selective_scan, {name: t.double() for name, t in rounded.items()}, last=last
    )
    plain = outputs_and_gradients(reference.selective_scan, rounded, last=last)
    ours = outputs_and_gradients(scan.selective_scan, rounded, last=last)
    for name, true in truth.items():
        assert ours[name].dtype == plain[name].dtype, name
        assert ours[name].shape == true.shape, name
        error, allowed = ((side[name].double() - true).abs().max() for side in (ours, plain))
        rounding = 8 * torch.finfo(ours[name].dtype).eps * true.abs().max()
        assert error <= 2 * allowed + rounding, f"{name}: error {error:.2e}, torch's own {allowed:.2e}"


ONE_WARP = launch.Tile(32, 1, 2, 255)
CASES = {
    # batch, n_tokens, d_inner, d_state, last, initial, chunk, tile
    "one token": (2, 1, 5, 4, False, False, 32, ONE_WARP),
    "one token, last": (1, 1, 5, 4, True, True, 32, ONE_WARP),
    "one state": (1, 5, 33, 1, False, True, 32, ONE_WARP),
    "odd count of states": (1, 5, 8, 3, False, True, 32, ONE_WARP),
    "sixteen states, two warps": (1, 5, 40, 16, False, True, 32, launch.Tile(64, 2, 2, 255)),
    "states over two warps": (1, 5, 20, 32, False, True, 32, launch.Tile(32, 2, 2, 255)),
    "states over two warps, last": (1, 5, 20, 32, True, False, 32, launch.Tile(32, 2, 2, 255)),
    "eight states, four tokens at once": (1, 33, 8, 8, False, False, 64, launch.Tile(32, 1, 4, 255)),
    "two chunks": (1, 33, 8, 2, False, True, 32, ONE_WARP),
    "three chunks": (1, 67, 5, 2, False, False, 32, ONE_WARP),
    "three chunks, last": (1, 67, 8, 2, True, True, 32, ONE_WARP),
    "two segments, last": (1, 37, 8, 2, True, False, 64, ONE_WARP),
    "exponentials by polynomial": (1, 5, 8, 4, False, True, 32, launch.Tile(32, 1, 2, 255, polynomial=2)),
}


@pytest.mark.parametrize("case", CASES)
def test_float32_against_the_float64_reference(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, n_tokens, d_inner, d_state, last, initial, chunk, tile = CASES[case]
    cut(monkeypatch, n_tokens, chunk, tile)
    tensors = inputs(batch, n_tokens, d_inner, d_state, last=last, initial=initial)
    assert_as_good_as_torch(tensors, torch.float32, last=last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_against_the_float64_reference(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 7, 32, ONE_WARP)
    assert_as_good_as_torch(inputs(1, 7, 9, 4, last=False, initial=True), dtype, last=False)


def test_launches_that_the_model_chooses() -> None:
    assert_as_good_as_torch(inputs(1, 9, 8, 4, last=False, initial=False), torch.float32, last=False)


@pytest.mark.parametrize("last", [False, True])
def test_gradients_a_few_chunks_at_a_time(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices end inside of rows, and the last is shorter than the others."""
    cut(monkeypatch, 67, 32, ONE_WARP)
    monkeypatch.setattr(scan, "cells_at_once", lambda *_: 4)
    assert_as_good_as_torch(inputs(2, 67, 40, 3, last=last, initial=True), torch.float32, last=last)


@pytest.mark.parametrize("n_tokens", [10_000, 100_000])
def test_a_backward_pass_takes_no_more_beside_its_results_than_its_input(
    n_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted as it is allocated, never touched; for an H100: B = 32, 128 channels, 16 states, bfloat16."""
    taken: list[int] = []
    allocate = scan._float32

    def counted(like: Tensor, *shape: int) -> Tensor:
        taken.append(allocate(like, *shape).nbytes)
        return allocate(like, *shape)

    monkeypatch.setattr(scan, "_float32", counted)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    silent = {name: Silent() for name in vars(scan.kernels) if name.endswith("_kernel")}
    monkeypatch.setattr(scan, "kernels", SimpleNamespace(**{**vars(scan.kernels), **silent}))
    x, dt, z, dy = (torch.empty(32, n_tokens, 128, dtype=torch.bfloat16) for _ in range(4))
    B, C = (torch.empty(32, n_tokens, 16, dtype=torch.bfloat16) for _ in range(2))
    A, D, state = (torch.empty(*shape) for shape in ((128, 16), (128,), (32, 128, 16)))
    checkpoints = torch.empty(32, ceil(n_tokens / launch.SEGMENT), 16, 128)
    scan._scan_backward(x, dt, A, B, C, D, z, D, dy, state, state, checkpoints, False)
    assert launch.SCRATCH_BYTES / 2 < sum(taken) < max(x.nbytes, 1.5 * launch.SCRATCH_BYTES)


class Silent:
    """Stands in for a kernel whose launch does nothing."""

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        return lambda *_, **__: None


def test_last_readout_without_gradient_runs_the_last_chunk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 67, 32, ONE_WARP)
    tensors = inputs(2, 67, 8, 4, last=True, initial=True)
    truth = reference.selective_scan(ScanInputs(**tensors), readout="last")
    with torch.no_grad():
        ours = scan.selective_scan(ScanInputs(**{name: t.float() for name, t in tensors.items()}), readout="last")
    for mine, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [float("-inf"), -200.0, -30.0, 30.0, 3e4])
def test_extreme_steps_stay_finite(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of zero leaves the state as it is; a huge one forgets it. Neither may overflow."""
    cut(monkeypatch, 5, 32, ONE_WARP)
    tensors = {name: t.float() for name, t in inputs(1, 5, 8, 4, last=False, initial=True).items()}
    tensors["dt"] = torch.full_like(tensors["dt"], step)
    tensors["dt_bias"] = torch.zeros_like(tensors["dt_bias"])
    ours = outputs_and_gradients(scan.selective_scan, tensors, last=False)
    # At dt of minus infinity torch's own softplus gradient is 0, as ours.
    truth = outputs_and_gradients(reference.selective_scan, {k: t.double() for k, t in tensors.items()}, last=False)
    for name, value in ours.items():
        assert value.isfinite().all(), name
        scale = truth[name].abs().max().clamp_min(1e-30)
        assert ((value.double() - truth[name]).abs().max() / scale) < 1e-5, name


def test_slices_of_a_projection_need_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixers pass slices: dense in the last dimension, strided in the others, at any offset."""
    cut(monkeypatch, 5, 32, ONE_WARP)
    tensors = {name: t.float() for name, t in inputs(2, 5, 8, 4, last=False, initial=True).items()}
    plain = outputs_and_gradients(scan.selective_scan, tensors, last=False)
    copied: list[tuple[int, ...]] = []
    contiguous = torch.Tensor.contiguous

    def watched(tensor: Tensor) -> Tensor:
        if not tensor.is_contiguous():
            copied.append(tuple(tensor.shape))
        return contiguous(tensor)

    monkeypatch.setattr(torch.Tensor, "contiguous", watched)
    for name in ("x", "dt", "B", "C", "z"):
        wide = torch.full((2, 5, tensors[name].shape[-1] + 3), float("nan"), device=DEVICE)
        wide[..., 1:-2] = tensors[name]
        tensors[name] = wide[..., 1:-2]
    with torch.no_grad():
        y, state = scan.selective_scan(ScanInputs(**tensors))
    assert not [shape for shape in copied if shape[:2] == (2, 5)]  # A and states may be turned; they are small
    assert torch.equal(y, plain["y"])
    assert torch.equal(state, plain["final_state"])


def test_last_dimension_of_any_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 5, 32, ONE_WARP)
    tensors = {name: t.float() for name, t in inputs(1, 5, 8, 4, last=False, initial=True).items()}
    with torch.no_grad():
        y, state = scan.selective_scan(ScanInputs(**tensors))
        turned = {name: t.transpose(0, -1).contiguous().transpose(0, -1) for name, t in tensors.items()}
        y_turned, state_turned = scan.selective_scan(ScanInputs(**turned))
    assert torch.equal(y, y_turned)
    assert torch.equal(state, state_turned)


def test_operators_meet_torchs_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 3, 32, ONE_WARP)
    for last in (False, True):
        tensors = inputs(1, 3, 4, 2, last=last, initial=True)
        arguments = [t.float().requires_grad_() for t in tensors.values()]
        torch.library.opcheck(
            scan._scan,
            (*arguments, last, True),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )


def test_compiles_without_graph_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, 3, 32, ONE_WARP)
    tensors = {name: t.float().requires_grad_() for name, t in inputs(1, 3, 4, 2, last=False, initial=True).items()}
    compiled = torch.compile(scan.selective_scan, fullgraph=True, backend="aot_eager")
    y, state = compiled(ScanInputs(**tensors))
    y_eager, state_eager = scan.selective_scan(ScanInputs(**tensors))
    assert torch.equal(y, y_eager)
    (y.sum() + state.sum()).backward()
    gradients = {name: t.grad.clone() for name, t in tensors.items()}
    for t in tensors.values():
        t.grad = None
    (y_eager.sum() + state_eager.sum()).backward()
    for name, t in tensors.items():
        assert torch.equal(gradients[name], t.grad), name


def test_float64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        scan.selective_scan(ScanInputs(**inputs(1, 2, 4, 2, last=False, initial=False)))


def test_too_many_states_are_refused() -> None:
    tensors = {name: t.float() for name, t in inputs(1, 1, 1, 300, last=False, initial=False).items()}
    with pytest.raises(ValueError, match="up to 256 states"):
        scan.selective_scan(ScanInputs(**tensors))


def test_an_empty_batch_has_zero_gradients() -> None:
    tensors = {name: t.float().requires_grad_() for name, t in inputs(0, 3, 4, 2, last=False, initial=False).items()}
    y, state = scan.selective_scan(ScanInputs(**tensors))
    (y.sum() + state.sum()).backward()
    assert y.shape == (0, 3, 4)
    assert torch.equal(tensors["A"].grad, torch.zeros(4, 2, device=DEVICE))
