"""Attention: outputs and gradients of every backend against float64 with the masks written out by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from truth import assert_as_exact_as_torch, error, outputs_and_gradients

from ftmamba.backends import BackendError
from ftmamba.mixers.hstu.reference import silu_attention
from ftmamba.ops.attention import BACKENDS, attention

pytest.importorskip("numba")

import ftmamba.ops.attention.numba as numba_backend

HERE = ["numba", "reference", "sdpa", "sdpa_math"]
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"causal": True},
    "window": {"window": 5},
    "window 0": {"window": 0},
    "causal window": {"causal": True, "window": 70},
    "lengths": {"lengths": True},
    "all": {"lengths": True, "causal": True, "window": 9},
    "global first": {"window": 3, "global_token": 0},
    "global last": {"window": 3, "lengths": True, "causal": True, "global_token": -1},
}
ours = functools.partial(attention, backend="numba")


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Whatever torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(batch: int, n_queries: int, n_tokens: int, n_heads: int, d_head: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, n, n_heads, d_head) for n in (n_queries, n_tokens, n_tokens)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def masks(name: str, batch: int, n_tokens: int) -> dict[str, Any]:
    """The masks of a name; rows have all lengths from none on to all tokens."""
    lengths = torch.linspace(0, n_tokens, batch).round().long().flip(0)
    return MASKS[name] | ({"lengths": lengths} if "lengths" in MASKS[name] else {})


def by_loops(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window: int | None = None,
    lengths: Any = None,
    global_token: int | None = None,
) -> Tensor:
    """One query after the other, with a list of the keys that it sees."""
    (batch, n_queries, n_heads, d_head), n_tokens = q.shape, k.shape[1]
    out = torch.zeros_like(q)
    for row in range(batch):
        length = n_tokens if lengths is None else int(lengths[row])
        for t in range(n_queries):
            at = t + max(length - n_queries, 0)
            keys = [j for j in range(length) if (not causal or j <= at) and (window is None or abs(j - at) <= window)]
            if global_token is not None and length:
                keys = sorted({*keys, global_token % length})
            if at < length:
                for head in range(n_heads):
                    weights = torch.softmax(k[row, keys, head] @ q[row, t, head] / math.sqrt(d_head), dim=0)
                    out[row, t, head] = weights @ v[row, keys, head]
    return out


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("n_queries", [1, 4, 11])
def test_masks_are_what_the_contract_says(backend: str, mask: str, n_queries: int) -> None:
    tensors, given = inputs(3, n_queries, 11, 2, 8), masks(mask, 3, 11)
    with torch.no_grad():
        truth = by_loops(*tensors, **given)
        found = attention(*(tensor.float() for tensor in tensors), **given, backend=backend)
    assert error(found, truth) < 1e-6


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("batch", "n_queries", "n_tokens", "n_heads", "d_head"),
    [(2, 131, 131, 2, 8), (3, 1, 77, 2, 32), (3, 70, 200, 1, 16), (1, 64, 64, 3, 1), (3, 97, 97, 1, 20)],
)
def test_outputs_and_gradients(batch: int, n_queries: int, n_tokens: int, n_heads: int, d_head: int, mask: str) -> None:
    given = masks(mask, batch, n_tokens)
    assert_as_exact_as_torch(
        functools.partial(ours, **given),
        functools.partial(attention, **given, backend="reference"),
        inputs(batch, n_queries, n_tokens, n_heads, d_head),
        ("out", "dq", "dk", "dv"),
        n_tokens,
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("n_queries", "n_tokens", "d_head"), [(1, 1, 8), (1, 90, 8), (67, 67, 1), (67, 130, 20), (131, 131, 64)]
)
def test_silu_in_place_of_the_softmax(n_queries: int, n_tokens: int, d_head: int, causal: bool) -> None:
    """Causal queries are all tokens'."""
    assert_as_exact_as_torch(
        functools.partial(numba_backend.silu_attention, causal=causal),
        functools.partial(silu_attention, causal=causal),
        inputs(2, n_tokens if causal else n_queries, n_tokens, 2, d_head),
        ("out", "dq", "dk", "dv"),
        n_tokens,
    )


@pytest.mark.parametrize("d_head", [1, 7, 8, 9, 16, 24, 40, 64, 100, 128])
def test_every_width_of_a_head(d_head: int) -> None:
    tensors = inputs(1, 67, 67, 1, d_head)
    reference = functools.partial(attention, backend="reference", causal=True)
    assert_as_exact_as_torch(functools.partial(ours, causal=True), reference, tensors, ("out", "dq", "dk", "dv"), 67)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("mask", ["lengths", "all", "global last"])
@pytest.mark.parametrize("n_queries", [1, 90])
def test_what_stands_behind_a_row_is_not_looked_at(backend: str, mask: str, n_queries: int) -> None:
    tensors, given = inputs(4, n_queries, 90, 2, 8), masks(mask, 4, 90)
    op = functools.partial(attention, **given, backend=backend)
    clean = outputs_and_gradients(op, tensors, torch.float32)
    for tensor in tensors:
        for row, length in enumerate(given["lengths"].tolist()):
            tensor[row, length:] = torch.nan
    poisoned = outputs_and_gradients(op, tensors, torch.float32)
    for tensor, expected in zip(poisoned, clean, strict=True):
        assert torch.equal(tensor, expected)
        for row, length in enumerate(given["lengths"].tolist()):
            assert (tensor[row, length:] == 0).all()


@pytest.mark.parametrize("mask", ["none", "causal window"])
def test_extreme_logits(mask: str) -> None:
    """Weights of 0 and 1 to the last bit, rising and falling along the row, so that every tile finds a larger one."""
    q, k, v = inputs(1, 150, 150, 2, 8)
    k = k.sign() * torch.linspace(1, 1000, 150, dtype=torch.float64)[None, :, None, None]
    k[:, :, 1] = k[:, :, 1].flip(1)
    given = masks(mask, 1, 150)
    truth = attention(100 * q.float().double(), k.float().double(), v, **given, backend="reference")
    found = ours(100 * q.float(), k.float(), v.float(), **given)
    assert error(found, truth) < 1e-5


def test_large_values_behind_a_mask_leave_no_trace() -> None:
    q, k, v = (tensor.float() for tensor in inputs(1, 100, 100, 1, 8))
    k[:, 50:], v[:, 50:] = 1e4, 1e38
    exact = attention(q[:, :50], k[:, :50], v[:, :50], backend="reference", causal=True)
    torch.testing.assert_close(ours(q, k, v, causal=True)[:, :50], exact, rtol=1e-5, atol=1e-5)


def test_strides_of_slices_and_transposed_tensors() -> None:
    generator = torch.Generator().manual_seed(0)
    both = torch.randn(2, 37, 2, 3, 8, generator=generator)
    k, v = both.unbind(2)
    heads_first = torch.randn(2, 3, 37, 8, generator=generator)
    channels_apart = torch.randn(2, 37, 8, 3, generator=generator)
    for q in (heads_first.transpose(1, 2), channels_apart.transpose(2, 3), k[:, ::1], both[:, :, 1].flip(1)):
        found, expected = (
            outputs_and_gradients(lambda *x, name=name: attention(*x, backend=name), [q, k, v], dtype)
            for name, dtype in (("numba", torch.float32), ("reference", torch.float64))
        )
        for value, true_value in zip(found, expected, strict=True):
            assert error(value, true_value) < 1e-5
    upstream = torch.randn(2, 8, 3, 37, generator=generator).permute(0, 3, 2, 1)
    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    by_stride = torch.autograd.grad(ours(*leaves), leaves, upstream)
    by_copy = torch.autograd.grad(ours(*leaves), leaves, upstream.contiguous())
    assert all(map(torch.equal, by_stride, by_copy))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    halves = [tensor.to(dtype) for tensor in inputs(2, 33, 33, 2, 8)]
    truth = outputs_and_gradients(functools.partial(attention, backend="reference"), halves, torch.float64)
    found = outputs_and_gradients(ours, halves, dtype)
    for value, exact in zip(found, truth, strict=True):
        assert value.dtype == dtype
        assert error(value, exact) < 2 * torch.finfo(dtype).eps


def test_float64_is_refused() -> None:
    with pytest.raises(BackendError, match="for float64 use backend 'reference'"):
        ours(*inputs(1, 3, 3, 1, 8))


@pytest.mark.parametrize("n_threads", [1, 3, 16])
def test_threads_share_rows_heads_and_queries(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than heads: parts of the queries add up to the gradients of keys and values."""
    monkeypatch.setattr(numba_backend, "get_threads", lambda: n_threads)
    tensors = inputs(1, 300, 300, 1, 8)
    reference = functools.partial(attention, backend="reference")
    assert_as_exact_as_torch(ours, reference, tensors, ("out", "dq", "dk", "dv"), 300)


@pytest.mark.parametrize("mask", ["none", "all", "global last", "silu"])
def test_operators_keep_torch_s_rules(mask: str) -> None:
    tensors = [tensor.float().requires_grad_() for tensor in inputs(2, 9, 9, 2, 8)]
    given = {} if mask == "silu" else masks(mask, 2, 9)
    arguments = (given.get("lengths"), given.get("causal", False), given.get("window"), given.get("global_token"))
    arguments = (*arguments, mask == "silu")
    for keep in (False, True):
        torch.library.opcheck(numba_backend._attention, (*tensors, *arguments, keep))
    with torch.no_grad():
        out, kept = numba_backend._attention(*tensors, *arguments, True)
        given_all = (torch.ones_like(out), out, kept, *tensors, *arguments)
        torch.library.opcheck(numba_backend._attention_backward, given_all)


def test_no_graph_break() -> None:
    tensors = [tensor.float().requires_grad_() for tensor in inputs(2, 9, 9, 2, 8)]
    lengths = torch.tensor([9, 4])

    def op(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ours(q, k, v, causal=True, window=3, lengths=lengths)

    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    for found, expected in zip(
        outputs_and_gradients(compiled, tensors, torch.float32),
        outputs_and_gradients(op, tensors, torch.float32),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"window": -1}, "from 0 on, got -1"),
        ({"lengths": torch.tensor([1])}, "expected lengths"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "whole numbers"),
    ],
)
def test_masks_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ours(*(tensor.float() for tensor in inputs(2, 3, 3, 1, 8)), **given)
    with pytest.raises(ValueError, match="4 queries, 3 keys"):
        ours(*(tensor.float() for tensor in inputs(2, 4, 3, 1, 8)), causal=True)


def test_more_queries_than_keys_see_all_of_them() -> None:
    tensors = inputs(2, 70, 3, 1, 8)
    found = ours(*(tensor.float() for tensor in tensors))
    assert error(found, attention(*tensors, backend="reference")) < 1e-6


def test_every_backend_declares_masks() -> None:
    import inspect

    for name in (name for name in BACKENDS if BACKENDS[name].refusal("cpu") is None):
        function = BACKENDS.load(name).attention
        parameters = inspect.signature(getattr(function, "func", function)).parameters
        assert "masks" in parameters or {"causal", "window", "lengths", "global_token"} <= set(parameters)


@pytest.mark.parametrize("backend", ["sdpa", "sdpa_flash"])
def test_without_a_mask_torch_s_kernel_is_given_none(backend: str) -> None:
    """A mask written out holds queries x keys, and takes as long as the attention itself."""

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            tensors = [each for each in (out if isinstance(out, tuple) else (out,)) if isinstance(each, Tensor)]
            self.numel = max([self.numel, *(each.numel() for each in tensors)])
            return out

    q = torch.randn(1, 300, 2, 8)
    with torch.inference_mode(), Largest() as largest:
        attention(q, q, q, backend=backend)
    assert largest.numel == q.numel()
