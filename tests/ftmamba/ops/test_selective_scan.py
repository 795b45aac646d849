"""The selective scan: the reference against the published formula, the CPU kernels against the reference."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from truth import (
    SCAN_INPUTS,
    assert_as_exact_as_torch,
    error,
    outputs_and_gradients,
    scan_inputs,
)

from ftmamba import threads
from ftmamba.backends import BackendError
from ftmamba.ops.selective_scan import ScanInputs, selective_scan

reference = functools.partial(selective_scan, backend="reference")
OUTPUTS = ("y", "final_state")


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(name="numba")
def numba_backend() -> Any:
    pytest.importorskip("numba")
    import ftmamba.ops.selective_scan.numba as backend

    return backend


def check(inputs: list[Tensor], readout: str) -> None:
    names = (*OUTPUTS, *SCAN_INPUTS[: len(inputs)])
    op = functools.partial(selective_scan, backend="numba", readout=readout)
    truth = functools.partial(reference, readout=readout)
    assert_as_exact_as_torch(op, truth, inputs, names, n_terms=inputs[0].shape[1])


def published_formula(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """mamba_ssm's ``selective_scan_ref``, by its formula: channel first, all decays and inputs at once."""
    delta = F.softplus(delta + bias[:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state = torch.zeros_like(decay[:, :, 0])
    rows = []
    for t in range(u.shape[-1]):
        state = decay[:, :, t] * state + drive[:, :, t]
        rows.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
    return (torch.stack(rows, dim=2) + u * D[:, None]) * F.silu(z)


def test_reference_is_the_published_formula() -> None:
    x, dt, A, B, C, D, z, bias = scan_inputs(2, 9, 5, 3, with_state=False)
    channel_first = [tensor.transpose(1, 2) for tensor in (x, dt, B, C, z)]
    u, delta, B_first, C_first, gate = channel_first
    expected = published_formula(u, delta, A, B_first, C_first, D, gate, bias)
    y, _ = reference(x, dt, A, B, C, D, z, bias)
    torch.testing.assert_close(y.transpose(1, 2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("readout", ["all", "last"])
def test_reference_gradients(readout: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(2, 4, 3, 2, readout=readout)]
    assert torch.autograd.gradcheck(functools.partial(reference, readout=readout), inputs)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_last_readout_is_the_last_token(backend: str) -> None:
    x, dt, A, B, C, D, z, bias, state = (t.float() for t in scan_inputs(2, 40, 20, 5))
    y, final = selective_scan(x, dt, A, B, C, D, z, bias, state, backend=backend)
    last, same = selective_scan(x, dt, A, B, C[:, -1:], D, z[:, -1:], bias, state, readout="last", backend=backend)
    torch.testing.assert_close(last, y[:, -1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(same, final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_state_carries_across_calls(backend: str) -> None:
    x, dt, A, B, C, D, z, bias, state = (t.float() for t in scan_inputs(2, 77, 20, 5))
    scan = functools.partial(selective_scan, backend=backend)
    y, final = scan(x, dt, A, B, C, D, z, bias, state)
    cut = 45
    first, middle = scan(x[:, :cut], dt[:, :cut], A, B[:, :cut], C[:, :cut], D, z[:, :cut], bias, state)
    second, end = scan(x[:, cut:], dt[:, cut:], A, B[:, cut:], C[:, cut:], D, z[:, cut:], bias, middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), y, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(end, final, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize(
    ("n_tokens", "d_inner", "d_state"),
    [
        (1, 1, 1),
        (2, 16, 16),
        (7, 33, 5),
        (31, 128, 16),
        (32, 15, 4),
        (33, 64, 17),
        (100, 48, 3),
        (257, 20, 16),
        (1001, 16, 8),
    ],
)
def test_outputs_and_gradients(n_tokens: int, d_inner: int, d_state: int, readout: str) -> None:
    check(scan_inputs(2, n_tokens, d_inner, d_state, readout=readout), readout)


@pytest.mark.usefixtures("numba")
@settings(max_examples=25)
@given(
    batch=st.integers(1, 5),
    n_tokens=st.integers(1, 70),
    d_inner=st.integers(1, 70),
    d_state=st.integers(1, 20),
    readout=st.sampled_from(["all", "last"]),
    with_state=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    batch: int, n_tokens: int, d_inner: int, d_state: int, readout: str, with_state: bool, seed: int
) -> None:
    inputs = scan_inputs(batch, n_tokens, d_inner, d_state, readout=readout, with_state=with_state, seed=seed)
    check(inputs, readout)


@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize("segment_chunks", [1, 3])
def test_segments_of_tokens(numba: Any, monkeypatch: pytest.MonkeyPatch, segment_chunks: int, readout: str) -> None:
    def divide(batch: int, n_rows: int, n_chunks: int, n_threads: int) -> tuple[int, int, int]:
        return min(n_rows, 2), -(-n_chunks // segment_chunks), segment_chunks

    monkeypatch.setattr(numba, "divide", divide)
    for n_tokens in (5, 32, 257):
        check(scan_inputs(2, n_tokens, 40, 6, readout=readout), readout)


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("readout", ["all", "last"])
def test_one_row_on_many_threads(readout: str, numba: Any) -> None:
    n_threads, inputs = threads.get_threads(), scan_inputs(1, 600, 32, 4, readout=readout)
    try:
        threads.set_threads(8)
        assert numba.divide(1, 2, 19, threads.get_threads())[1] > 1, "this shape should be cut into segments"
        check(inputs, readout)
    finally:
        threads.set_threads(n_threads)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_division_covers_the_work(numba: Any, batch: int, n_threads: int) -> None:
    for n_rows in (1, 8, 100):
        for n_chunks in (1, 2, 13, 400):
            n_groups, n_segments, segment_chunks = numba.divide(batch, n_rows, n_chunks, 16 * n_threads)
            assert 1 <= n_groups <= n_rows
            assert (n_segments - 1) * segment_chunks < n_chunks <= n_segments * segment_chunks


@pytest.mark.usefixtures("numba")
def test_slices_and_transposes() -> None:
    x, dt, A, B, C, D, z, bias, state = (t.float() for t in scan_inputs(3, 37, 20, 5))
    xz = torch.cat([x, z], dim=-1)
    projected = torch.cat([dt, B, C], dim=-1)
    slices = projected.split([20, 5, 5], dim=-1)
    transposed_A, transposed_state = A.t().contiguous().t(), state.transpose(0, 2).contiguous().transpose(0, 2)
    scan = functools.partial(selective_scan, backend="numba")
    variants = [
        (xz[..., :20], slices[0], transposed_A, slices[1], slices[2], D, xz[..., 20:], bias, transposed_state),
        (x.transpose(1, 2).contiguous().transpose(1, 2), dt, A, B, C, torch.stack([D, D], 1)[:, 0], z, bias, state),
        (x, dt.transpose(0, 1).contiguous().transpose(0, 1), A, B, C, D, z, bias, state),
    ]
    expected = outputs_and_gradients(scan, [x, dt, A, B, C, D, z, bias, state], torch.float32)
    for variant in variants:
        for value, true_value in zip(keeping_strides(scan, variant), expected, strict=True):
            torch.testing.assert_close(value, true_value, rtol=0, atol=0)


def keeping_strides(op: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """As `outputs_and_gradients` in float32, with the memory layout of the inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    outputs = op(*leaves)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64).float() for o in outputs]
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, weights)]


@pytest.mark.usefixtures("numba")
def test_gradient_of_a_sum() -> None:
    """A sum hands back one number spread over all places with strides of zero."""
    inputs = [tensor.float().requires_grad_() for tensor in scan_inputs(2, 5, 18, 3)]
    truth = [tensor.double().detach().requires_grad_() for tensor in inputs]
    grads = torch.autograd.grad(selective_scan(*inputs, backend="numba")[0].sum(), inputs)
    expected = torch.autograd.grad(reference(*truth)[0].sum(), truth)
    for value, true_value in zip(grads, expected, strict=True):
        assert error(value, true_value) < 1e-6


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("index", [0, 1])
def test_gradient_of_one_output(index: int) -> None:
    inputs = [tensor.float().requires_grad_() for tensor in scan_inputs(2, 40, 18, 3)]
    truth = [tensor.double().detach().requires_grad_() for tensor in inputs]
    grads = torch.autograd.grad(selective_scan(*inputs, backend="numba")[index].sum(), inputs, allow_unused=True)
    expected = torch.autograd.grad(reference(*truth)[index].sum(), truth, allow_unused=True)
    for value, true_value in zip(grads, expected, strict=True):
        if true_value is None:
            assert value is None or not value.any()
        else:
            assert error(value, true_value) < 2e-6


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_compute_in_float32(dtype: torch.dtype) -> None:
    rounded = [tensor.to(dtype) for tensor in scan_inputs(2, 33, 20, 5)]
    scan = functools.partial(selective_scan, backend="numba")
    y, state, *grads = keeping_strides(scan, tuple(rounded))
    wide_y, wide_state = scan(*(tensor.float() for tensor in rounded))
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    torch.testing.assert_close(y, wide_y.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(state, wide_state, rtol=0, atol=0)
    assert all(grad.dtype == dtype and torch.isfinite(grad).all() for grad in grads)


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("step", [-1e30, -1e4, -80.0, -17.0, 0.0, 17.0, 21.0, 300.0, 1e4])
def test_extreme_steps(step: float) -> None:
    inputs = scan_inputs(1, 6, 17, 4)
    inputs[1] = torch.full_like(inputs[1], step)
    scan = functools.partial(selective_scan, backend="numba")
    truth = outputs_and_gradients(reference, inputs, torch.float64)
    ours = outputs_and_gradients(scan, inputs, torch.float32)
    for name, value, true_value in zip((*OUTPUTS, *SCAN_INPUTS), ours, truth, strict=True):
        assert torch.isfinite(value).all(), name
        # Decays below 2**-126 stay there, which is what the absolute term is for.
        # Rounding dt + dt_bias to float32 moves a small step, exp(dt), by this much, and softplus' gradient with it.
        allowed = 1e-5 if abs(step) < 100 else 1e-4
        difference = (value.double() - true_value).abs().max()
        assert difference <= allowed * true_value.abs().max() + 1e-25, f"{name}: {difference}"


@pytest.mark.usefixtures("numba")
def test_no_step_keeps_the_state_exactly() -> None:
    inputs = [tensor.float() for tensor in scan_inputs(1, 50, 16, 4)]
    inputs[1] = torch.full_like(inputs[1], -1e9)
    _, final = selective_scan(*inputs, backend="numba")
    torch.testing.assert_close(final, inputs[8], rtol=0, atol=1e-30)


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize("name", ["x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_not_a_number_is_never_swallowed(name: str, sign: float) -> None:
    inputs = [tensor.float() for tensor in scan_inputs(1, 20, 16, 4)]
    inputs[SCAN_INPUTS.index(name)].view(-1)[0] = torch.copysign(torch.tensor(float("nan")), torch.tensor(sign))
    y, final = selective_scan(*inputs, backend="numba")
    assert y.isnan().any() or final.isnan().any()


@pytest.mark.parametrize("keep", [False, True])
def test_states_are_kept_only_for_gradients(numba: Any, keep: bool) -> None:
    batch, n_tokens, d_inner, d_state = 2, 320, 32, 16
    inputs = [tensor.float() for tensor in scan_inputs(batch, n_tokens, d_inner, d_state, with_state=False)]
    *_, kept = numba._scan(*inputs, None, True, keep)
    assert kept.numel() == (batch * n_tokens * d_inner * d_state // 32 if keep else 0)


def test_nothing_is_kept_without_gradients(numba: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    scan = numba._scan

    def watched(*args: Any) -> tuple[Tensor, ...]:
        kept.append(scan(*args))
        return kept[-1]

    monkeypatch.setattr(numba, "_scan", watched)
    inputs = [tensor.float() for tensor in scan_inputs(1, 4, 3, 2)]
    selective_scan(*inputs, backend="numba")
    inputs[2].requires_grad_()
    with torch.no_grad():
        selective_scan(*inputs, backend="numba")
    selective_scan(*inputs, backend="numba")
    assert [checkpoints.numel() > 0 for *_, checkpoints in kept] == [False, False, True]


@pytest.mark.usefixtures("numba")
def test_float64_is_refused() -> None:
    with pytest.raises(BackendError, match="reference"):
        selective_scan(*scan_inputs(1, 3, 2, 2), backend="numba")


@pytest.mark.parametrize("read_all", [True, False])
def test_operator_registration(numba: Any, read_all: bool) -> None:
    readout = "all" if read_all else "last"
    inputs = [tensor.float().requires_grad_() for tensor in scan_inputs(2, 9, 18, 3, readout=readout)]
    torch.library.opcheck(numba._scan, (*inputs, read_all, True))
    torch.library.opcheck(numba._scan, (*inputs[:8], None, read_all, False), test_utils="test_faketensor")
    with torch.no_grad():
        y, final, kept = numba._scan(*inputs, read_all, True)
        arguments = (y, final, kept, None if read_all else final, *inputs[:8], read_all)
        torch.library.opcheck(numba._scan_backward, arguments)


@pytest.mark.parametrize("readout", ["all", "last"])
def test_compiles_without_a_graph_break(numba: Any, readout: str) -> None:

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return numba.selective_scan(ScanInputs(*tensors), readout=readout)

    inputs = scan_inputs(2, 9, 18, 3, readout=readout)
    eager = outputs_and_gradients(scan, inputs, torch.float32)
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    for value, expected in zip(outputs_and_gradients(compiled, inputs, torch.float32), eager, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
