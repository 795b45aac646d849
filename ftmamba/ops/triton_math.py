# mypy: ignore-errors
# ruff: noqa: RUF005 (Triton has no unpacking)
"""What the Triton kernels share: scalar functions, masks, loads of tokens.

Layout. Triton derives a vector's layout from the loads it meets. The kernels add to channel offsets an argument
``origin`` that is always 0 and that the compiler may not know (``do_not_specialize``): it hides that addresses are
aligned, so that no load is widened. Every load and store of one token then maps channel i to thread i, with no exchange
through shared memory, while warps still touch consecutive addresses.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from ftmamba.ops.cache import place_triton

place_triton()

# Triton's interpreter, which runs kernels on CPU tensors, knows no PTX.
NATIVE = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") != "1")
LOG2E = tl.constexpr(1.4426950408889634)
LOG2E_LOW = tl.constexpr(1.9259629911266175e-08)  # log2(e) minus its float32 rounding
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def wide(i):
    """A loop's index in 64 bits: rows of long inputs lie further apart than 32 bits reach."""
    return tl.full((), 0, tl.int64) + i


@triton.jit
def token_mask(inside, d, d_inner):
    """Channels that exist, if the token does. (Triton's interpreter cannot ``&`` a vector and a scalar of booleans.)"""
    return d < inside.to(tl.int32) * d_inner


@triton.jit
def load_tokens(base, stride_t, d, ok, UNROLL: tl.constexpr):
    """Channels of UNROLL tokens as float32, loaded together so that their latencies overlap."""
    values = ()
    for i in tl.static_range(UNROLL):
        values = values + (tl.load(base + i * stride_t + d, mask=ok, other=0.0).to(tl.float32),)
    return values


@triton.jit
def exp2_polynomial(v):
    """2**v for v <= 127 on the multiply-add pipe; relative error below 3e-7 (Cody and Waite's reduction)."""
    v = tl.maximum(v, -126.0)
    shifted = v + 12582912.0  # 1.5 * 2**23: the sum's low bits hold round(v)
    f = v - (shifted - 12582912.0)
    p = tl.fma(f, 1.32647e-3, 9.67152e-3)
    p = tl.fma(p, f, 5.550734e-2)
    p = tl.fma(p, f, 2.4022242e-1)
    p = tl.fma(p, f, 6.9314698e-1)
    p = tl.fma(p, f, 1.0)
    bits = p.to(tl.int32, bitcast=True) + (shifted.to(tl.int32, bitcast=True) << 23)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def reciprocal(v):
    """1 / v for v >= 1, infinity included; one instruction, where a division takes six."""
    if NATIVE:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [v], tl.float32, is_pure=True, pack=1)
    return 1.0 / v


@triton.jit
def sigmoid(v):
    return reciprocal(1.0 + tl.exp2(v * -LOG2E))


@triton.jit
def silu_slope(v, gate):
    """The derivative of silu at v, where ``gate`` is sigmoid(v)."""
    return gate * (1.0 + v * (1.0 - gate))


@triton.jit
def softplus(v):
    """softplus(v), to float32 accuracy also where it is tiny, and exp(-|v|).

    log1p(e) is 2 atanh(e / (2 + e)); the argument is at most 1/3, so that a short series does.
    """
    m = -tl.abs(v)
    t = m * LOG2E
    # The rounding error of the product matters when |v| is large: softplus(v) is then e itself.
    low = tl.fma(m, LOG2E, -t) + m * LOG2E_LOW
    low = tl.where(m > -200.0, low * LN2, 0.0)  # an infinite v has no rounding error
    e = tl.exp2(t)
    e = tl.fma(e, low, e)
    s = e * reciprocal(2.0 + e)
    q = s * s
    p = tl.fma(q, 0.14005997, 0.14000902)
    p = tl.fma(p, q, 0.20010764)
    p = tl.fma(p, q, 0.33333208)
    p = tl.fma(p, q, 1.0)
    return tl.fma(s + s, p, tl.maximum(v, 0.0)), e


@triton.jit
def softplus_slope(v, e):
    """The derivative of softplus at v: sigmoid(v), from the exponential that `softplus` returned."""
    return tl.where(v >= 0.0, 1.0, e) * reciprocal(1.0 + e)
