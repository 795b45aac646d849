"""The vector functions that the CPU kernels are made of, against float64."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from ftmamba.ops import simd  # noqa: E402 (needs numba)

Array = np.ndarray[Any, np.dtype[Any]]


def apply(function: Any, values: Array) -> Array:
    """A function of a row, over any multiple of 16 values."""

    @numba.njit(error_model="numpy")
    def over_rows(source: int, target: int, count: int) -> None:
        for i in range(0, count, simd.CHANNELS):
            simd.store_row(target, i, function(simd.load_row(source, i)))

    result = np.full_like(values, np.nan)
    over_rows(values.ctypes.data, result.ctypes.data, values.size)
    return result


def relative_error(value: Array, truth: Array) -> float:
    return float(np.max(np.abs(value - truth) / np.abs(truth)))


def spread(low: float, high: float) -> Array:
    return np.linspace(low, high, 160_000).astype(np.float32)


def test_exp2() -> None:
    @numba.njit(error_model="numpy")
    def over_blocks(source: int, target: int, count: int) -> None:
        for i in range(0, count, simd.STATES * simd.CHANNELS):
            simd.store_block(target, i, simd.exp2(simd.load_block(source, i)))

    x = np.concatenate([spread(-126, 0), -np.geomspace(1e-30, 1, 64_000).astype(np.float32), spread(0, 126)])
    y = np.full_like(x, np.nan)
    over_blocks(x.ctypes.data, y.ctypes.data, x.size)
    assert relative_error(y, np.exp2(x.astype(np.float64))) < 2.4e-7  # two units in the last place

    edges = np.array([0.0, -0.0, -126.0, -127.0, -1e4, -1e30, -np.inf, np.nan] * 8, dtype=np.float32)
    y = np.zeros_like(edges)
    over_blocks(edges.ctypes.data, y.ctypes.data, edges.size)
    least = 2.0**-126
    np.testing.assert_array_equal(y[:8], [1, 1, least, least, least, least, least, np.nan])


@pytest.mark.parametrize(
    ("function", "truth", "low", "high"),
    [
        (simd.exp_negative_abs, lambda x: np.exp(-np.abs(x)), -87, 87),
        (simd.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -87, 87),
        (simd.log_one_plus, np.log1p, 1e-30, 1),
    ],
)
def test_functions_of_a_row(function: Any, truth: Callable[[Array], Array], low: float, high: float) -> None:
    x = spread(low, high)
    assert relative_error(apply(function, x), truth(x.astype(np.float64))) < 4e-7


def test_softplus_and_its_slope() -> None:
    @numba.njit(error_model="numpy")
    def softplus(x: Any) -> Any:
        return simd.softplus_and_slope(x)[0]

    @numba.njit(error_model="numpy")
    def slope(x: Any) -> Any:
        return simd.softplus_and_slope(x)[1]

    x = spread(-87, 1000)
    wide = x.astype(np.float64)
    assert relative_error(apply(softplus, x), np.logaddexp(0, wide)) < 4e-7
    assert relative_error(apply(slope, x), 1 / (1 + np.exp(-wide))) < 4e-7

    edges = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, -np.nan, 0, -0.0] * 2, dtype=np.float32)
    value, derivative = apply(softplus, edges)[:8], apply(slope, edges)[:8]
    assert value[0] == np.float32(1e30)
    assert value[2] == np.inf
    assert 0 <= value[1] < 1e-37
    assert 0 <= value[3] < 1e-37
    assert np.isnan(value[4:6]).all()
    assert np.isnan(derivative[4:6]).all()
    np.testing.assert_allclose(value[6:], np.log(2), rtol=1e-6)


@pytest.mark.parametrize("count", [-3, 0, 1, 15, 16, 40])
def test_parts_of_a_row_touch_nothing_else(count: int) -> None:
    @numba.njit(error_model="numpy")
    def copy_part(source: int, target: int, count: int) -> None:
        row = simd.load_part(source, 1, count)
        simd.store_row(target, 0, row)
        simd.store_part(target, 20, row, count)

    source, target = np.arange(1, 41, dtype=np.float32), np.full(40, -1, dtype=np.float32)
    copy_part(source.ctypes.data, target.ctypes.data, count)
    taken = min(max(count, 0), simd.CHANNELS)
    expected = np.r_[source[1 : 1 + taken], np.zeros(simd.CHANNELS - taken)]
    np.testing.assert_array_equal(target[:16], expected)
    np.testing.assert_array_equal(target[20 : 20 + taken], expected[:taken])
    np.testing.assert_array_equal(target[16:20], -1)
    np.testing.assert_array_equal(target[20 + taken :], -1)


def test_sums() -> None:
    @numba.njit(error_model="numpy")
    def sums(source: int, target: int) -> None:
        block = simd.load_block(source, 0)
        states = simd.load_states(source, 64)
        channels = simd.add_product(simd.load_row(source, 68), block, states)
        simd.store_row(target, 0, channels)
        simd.store_float(target, 16, simd.sum_channels(channels))

    source = np.random.default_rng(0).normal(size=84).astype(np.float32)
    target = np.zeros(17, dtype=np.float32)
    sums(source.ctypes.data, target.ctypes.data)
    expected = source[68:] + source[64:68] @ source[:64].reshape(4, 16)
    np.testing.assert_allclose(target[:16], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(target[16], expected.sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="nothing is done elsewhere")
def test_tiny_numbers_are_zero_between_the_two_calls_alone() -> None:
    @numba.njit(error_model="numpy")
    def products(source: int, target: int) -> None:
        mode = simd.flush_tiny()
        simd.store_row(target, 0, simd.load_row(source, 0) * simd.load_row(source, 16))
        simd.restore_mode(mode)
        simd.store_row(target, 16, simd.load_row(source, 0) * simd.load_row(source, 16))

    first = np.array([1e-30, -1e-30, 1e-40, 1e-30] * 4, dtype=np.float32)  # 1e-40 is itself below the normal numbers
    second = np.array([1e-10, 1e-10, 1.0, 1.0] * 4, dtype=np.float32)
    source, target = np.r_[first, second], np.full(32, np.nan, dtype=np.float32)
    products(source.ctypes.data, target.ctypes.data)
    np.testing.assert_array_equal(target[:16], [0, 0, 0, np.float32(1e-30)] * 4)
    assert (target[16:] != 0).all()
