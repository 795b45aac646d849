"""Kernels on torch's threads: the count, the pool that is used when torch has none, and bad arguments."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ftmamba import threads

pytest.importorskip("numba")

from ftmamba.ops.causal_conv import causal_conv


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = threads.get_threads()
    yield
    threads.set_threads(before)


def convolve() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((9, 80, 40), (40, 4), (40,))]
    y = causal_conv(*inputs, backend="numba")
    return [y, *torch.autograd.grad(y.square().sum(), inputs)]


def test_one_setting_for_torch_and_kernels() -> None:
    threads.set_threads(3)
    assert threads.get_threads() == torch.get_num_threads() == 3
    with pytest.raises(ValueError, match="positive"):
        threads.set_threads(0)


@pytest.mark.parametrize("pool", ["torch", "none"])
@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_any_number_of_threads_gives_the_same(monkeypatch: pytest.MonkeyPatch, n_threads: int, pool: str) -> None:
    threads.set_threads(1)
    expected = convolve()
    threads.set_threads(n_threads)
    if pool == "none":
        monkeypatch.setattr(threads, "_torch_pool", lambda: None)
    for value, true_value in zip(convolve(), expected, strict=True):
        torch.testing.assert_close(value, true_value, rtol=1e-5, atol=1e-5)


def test_torch_pool_is_found_where_torch_uses_openmp() -> None:
    if "OpenMP" not in torch.__config__.parallel_info().split("ATen parallel backend")[-1]:
        pytest.skip("this torch does not run on OpenMP")
    assert threads._torch_pool() is not None


def test_a_kernel_names_the_arguments_it_lacks() -> None:
    kernel = threads.Kernel(lambda: 0, ["x", "n_tokens"])
    with pytest.raises(TypeError, match="n_tokens"):
        kernel(n_threads=1, x=0)
