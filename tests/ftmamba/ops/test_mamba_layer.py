"""The fused layer: output and gradients against the float64 reference, and against the ops one by one."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from truth import assert_as_exact_as_torch, error, outputs_and_gradients

from ftmamba import MambaSpec
from ftmamba.backends import BackendError
from ftmamba.mixers.mamba.layer import MambaMixer
from ftmamba.ops.mamba_layer import LayerInputs, mamba_layer
from ftmamba.threads import get_threads, set_threads

pytest.importorskip("numba")

import ftmamba.ops.mamba_layer.numba as numba_backend

INPUTS = ("x", "in_proj", "conv_weight", "conv_bias", "x_proj", "dt_proj", "dt_bias", "A", "D", "out_proj")
reference = functools.partial(mamba_layer, backend="reference")
ours = functools.partial(mamba_layer, backend="numba")


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(
    batch: int, n_tokens: int, d_model: int, d_inner: int, d_state: int, dt_rank: int, d_conv: int, seed: int = 0
) -> list[Tensor]:
    """Float64 arguments of `mamba_layer` in order; weights keep the size of what they multiply."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        normal(batch, n_tokens, d_model),
        normal(2 * d_inner, d_model) / d_model**0.5,
        normal(d_inner, d_conv) / d_conv**0.5,
        normal(d_inner),
        normal(dt_rank + 2 * d_state, d_inner) / d_inner**0.5,
        normal(d_inner, dt_rank) / dt_rank**0.5,
        normal(d_inner) - 2,
        -4 * normal(d_inner, d_state).abs(),
        normal(d_inner),
        normal(d_model, d_inner) / d_inner**0.5,
    ]


def check(tensors: list[Tensor], lengths: Tensor | None = None) -> None:
    n_terms = tensors[0].shape[1] + tensors[1].shape[0]
    for readout in ("all", "last"):
        op, truth = (functools.partial(each, readout=readout, lengths=lengths) for each in (ours, reference))
        assert_as_exact_as_torch(op, truth, tensors, ("out", *INPUTS), n_terms)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 16, 16, 1, 1, 4),
        (2, 2, 64, 128, 16, 4, 4),
        (2, 7, 16, 32, 3, 2, 4),
        (3, 31, 80, 48, 17, 5, 3),
        (9, 32, 32, 64, 8, 3, 2),
        (2, 33, 64, 64, 16, 4, 1),
        (1, 100, 48, 96, 5, 17, 16),
        (2, 257, 64, 128, 16, 4, 33),
    ],
)
def test_output_and_gradients(shape: tuple[int, ...]) -> None:
    check(inputs(*shape))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_rows_of_different_lengths(n_threads: int) -> None:
    before = get_threads()
    set_threads(n_threads)
    try:
        check(inputs(7, 100, 32, 48, 5, 3, 4), torch.tensor([1, 100, 33, 2, 64, 97, 31]))
        check(inputs(2, 20, 32, 48, 5, 3, 4), torch.tensor([7, 1]))
    finally:
        set_threads(before)


@settings(max_examples=15)
@given(
    batch=st.integers(1, 5),
    n_tokens=st.integers(1, 70),
    model_rows=st.integers(1, 5),
    inner_rows=st.integers(1, 6),
    d_state=st.integers(1, 20),
    dt_rank=st.integers(1, 20),
    d_conv=st.integers(1, 6),
)
def test_any_shape(
    batch: int, n_tokens: int, model_rows: int, inner_rows: int, d_state: int, dt_rank: int, d_conv: int
) -> None:
    check(inputs(batch, n_tokens, 16 * model_rows, 16 * inner_rows, d_state, dt_rank, d_conv))


@pytest.mark.parametrize("read", [None, -1])
def test_the_mixer_takes_the_fused_kernel_where_it_pays(read: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    fused, one_by_one = (MambaMixer(MambaSpec(backend=name), 32) for name in ("numba", "reference"))
    one_by_one.load_state_dict(fused.state_dict())
    calls = []
    kernel = numba_backend.mamba_layer
    monkeypatch.setattr(numba_backend, "mamba_layer", lambda *a, **k: calls.append(k["readout"]) or kernel(*a, **k))
    x = torch.randn(get_threads(), 40, 32)
    torch.testing.assert_close(fused(x, read), one_by_one(x, read), rtol=1e-5, atol=1e-5)
    assert calls == ["all" if read is None else "last"]
    fused(x[:1], read)  # one row for all threads
    assert len(calls) == 2
    MambaMixer(MambaSpec(backend="numba"), 512)(torch.randn(get_threads(), 40, 512), read)
    assert len(calls) == 2


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = get_threads()
    yield set_threads
    set_threads(before)


@pytest.mark.parametrize("n_threads", [1, 2, 4])
@pytest.mark.parametrize(
    ("batch", "n_tokens"), [(1, 1), (1, 31), (1, 32), (1, 33), (1, 257), (2, 65), (3, 64), (3, 97), (5, 40)]
)
def test_threads_share_rows_and_repeat_themselves(
    batch: int, n_tokens: int, n_threads: int, threads: Callable[[int], None]
) -> None:
    """Chunks of one row on several threads, more threads than chunks, rows that do not fill the last lanes."""
    threads(n_threads)
    tensors = inputs(batch, n_tokens, 32, 48, 5, 3, 4)
    check(tensors)
    for readout in ("all", "last"):
        op = functools.partial(ours, readout=readout)
        first = outputs_and_gradients(op, tensors, torch.float32)
        for _ in range(5):
            for value, before in zip(outputs_and_gradients(op, tensors, torch.float32), first, strict=True):
                assert torch.equal(value, before)


def test_the_mixer_is_the_same_layer() -> None:
    torch.manual_seed(0)
    mixer = MambaMixer(MambaSpec(backend="reference"), 32)
    x = torch.randn(3, 40, 32)
    layer = (
        mixer.in_proj.weight,
        mixer.conv1d.weight.squeeze(1),
        mixer.conv1d.bias,
        mixer.x_proj.weight,
        mixer.dt_proj.weight,
        mixer.dt_proj.bias,
        -torch.exp(mixer.A_log),
        mixer.D,
        mixer.out_proj.weight,
    )
    torch.testing.assert_close(ours(x, *layer), mixer(x), rtol=1e-5, atol=1e-5)


def test_slices_and_sums() -> None:
    """x as a slice and transposed, and a gradient of stride zero."""
    x, *weights = (tensor.float() for tensor in inputs(3, 40, 32, 64, 5, 2, 4))
    expected = ours(x, *weights)
    wide = torch.cat([x, -x], dim=-1)
    for variant in (wide[..., :32], x.transpose(0, 1).contiguous().transpose(0, 1), x.mT.contiguous().mT):
        torch.testing.assert_close(ours(variant, *weights), expected, rtol=0, atol=0)
    leaves = [tensor.requires_grad_() for tensor in (x, *weights)]
    truth = [tensor.detach().double().requires_grad_() for tensor in leaves]
    grads = torch.autograd.grad(ours(*leaves).sum(), leaves)
    for value, true_value in zip(grads, torch.autograd.grad(reference(*truth).sum(), truth), strict=True):
        assert error(value, true_value) < 5e-6


def test_half_precision_inputs_compute_in_float32() -> None:
    rounded = [tensor.to(torch.bfloat16) for tensor in inputs(2, 9, 16, 32, 4, 2, 4)]
    out = ours(*rounded)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, ours(*(t.float() for t in rounded)).to(torch.bfloat16), rtol=0, atol=0)


def test_only_x_and_sparse_states_are_kept() -> None:
    batch, n_tokens, d_inner, d_state = 2, 320, 64, 16
    tensors = [tensor.float() for tensor in inputs(batch, n_tokens, 32, d_inner, d_state, 2, 4)]
    _, kept = numba_backend._layer(*tensors, None, False, True)
    assert kept.numel() == batch * n_tokens * d_inner * d_state // 32
    _, nothing = numba_backend._layer(*tensors, None, False, False)
    assert nothing.numel() == 0


def test_what_it_cannot_run_is_refused() -> None:
    with pytest.raises(BackendError, match="float64"):
        ours(*inputs(1, 3, 16, 16, 2, 1, 4))
    with pytest.raises(BackendError, match="multiples of 16"):
        ours(*(tensor.float() for tensor in inputs(1, 3, 12, 24, 2, 1, 4)))
    with pytest.raises(BackendError, match="d_conv"):
        ours(*(tensor.float() for tensor in inputs(1, 3, 16, 16, 2, 1, 40)))
    x, in_proj, *rest = (tensor.float() for tensor in inputs(1, 3, 16, 16, 2, 1, 4))
    with pytest.raises(ValueError, match="in_proj has shape"):
        ours(x, in_proj[:-1], *rest)


def test_operator_registration() -> None:
    tensors = [tensor.float().requires_grad_() for tensor in inputs(2, 9, 16, 32, 3, 2, 4)]
    torch.library.opcheck(numba_backend._layer, (*tensors, torch.tensor([9, 4]), True, True))
    with torch.no_grad():
        out, kept = numba_backend._layer(*tensors, None, False, True)
        torch.library.opcheck(numba_backend._layer_backward, (out, kept, *tensors, None, False))


def test_compiles_without_a_graph_break() -> None:
    tensors: list[Any] = inputs(2, 9, 16, 32, 3, 2, 4)

    def layer(*tensors: Tensor) -> Tensor:
        return numba_backend.mamba_layer(LayerInputs(*tensors))

    eager = outputs_and_gradients(layer, tensors, torch.float32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for value, expected in zip(outputs_and_gradients(compiled, tensors, torch.float32), eager, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="nothing is done elsewhere")
def test_gradients_that_fade_end_at_zero_and_torch_keeps_its_tiny_numbers() -> None:
    """Below 1.2e-38 Intel's cores are slow, and a fading gradient would stay there for all tokens that are left."""
    tensors = inputs(batch=2, n_tokens=1000, d_model=16, d_inner=32, d_state=8, dt_rank=4, d_conv=4)
    tensors[INPUTS.index("A")] -= 5
    tiny = torch.finfo(torch.float32).tiny

    def gradient_of_x(op: Any, dtype: torch.dtype) -> Tensor:
        x, *weights = (tensor.to(dtype) for tensor in tensors)
        x.requires_grad_()
        return torch.autograd.grad(op(x, *weights, readout="last").sum(), x)[0]

    true = gradient_of_x(reference, torch.float64).abs()
    assert ((true > 0) & (true < tiny)).sum() > 100
    found = gradient_of_x(ours, torch.float32).abs()
    assert not ((found > 0) & (found < tiny)).any()
    assert (torch.full((2**20,), 1e-40) * 1.0 != 0).all()  # on all threads
