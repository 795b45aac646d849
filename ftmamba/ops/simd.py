"""Vectors of float32 inside numba: the few operations our CPU kernels need, written once.

numba vectorises loops only where it can prove that buffers do not overlap, which it cannot for the states of a scan.
Here vectors are types of their own: arithmetic on them is vector arithmetic by construction, on any CPU that LLVM
knows. A `row` holds 16 channels, a `block` 4 states of 16 channels each, in the order (state, channel); LLVM spreads a
block over four AVX-512 registers, or eight of AVX2. Memory is a byte address (int64) and an index in floats.

numba keeps compiled code on disk as long as the file of the function stays the same, and does not look at the files of
what it calls. So only whole kernels are kept, under a name that changes with any of the sources (`compile_entry`).
"""

# mypy: ignore-errors
# numba's extension interface is untyped.

from __future__ import annotations

import functools
import hashlib
import operator
import os
import platform
from pathlib import Path

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils, config
from numba.core.caching import FunctionCache
from numba.core.datamodel.models import PrimitiveModel
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, register_model

from ftmamba.ops.cache import fallback

CHANNELS = 16
STATES = 4
JIT = {"error_model": "numpy"}

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_LONG = ir.IntType(64)
_CONTRACT = ("contract",)  # lets LLVM fuse a * b + c, and nothing else


def compile_entry(function, fields):
    """The address of the C function ``void (int64_t *arguments)`` for a kernel, from disk where it was compiled before.

    The kernel finds its arguments as attributes of a record, and behind them the two counters that
    `ftmamba.threads.Kernel` appends, which `fetch_add` counts up.
    """
    # The digest in a name makes the function's type, and so the place where its code is kept, one of these sources.
    names = [*fields, "n_entered", f"n_taken_{_sources()}"]
    record = types.Record.make_c_struct([(name, types.int64) for name in names])
    kept = cache_folder(function) is not None
    return cfunc(types.void(types.CPointer(record)), cache=kept, **JIT)(function).address


def cache_folder(function):
    """Where a kernel's code is kept on disk; None where nothing can be written, so that every process compiles it."""
    try:
        return FunctionCache(function).cache_path
    except RuntimeError:  # numba can write neither beside the source nor in the user's home
        config.CACHE_DIR = fallback()
        return FunctionCache(function).cache_path if config.CACHE_DIR else None


@functools.cache
def _sources() -> str:
    """A digest of all files that kernels are made of."""
    folder = Path(__file__).parent
    files = sorted([*folder.glob("*.py"), *folder.glob("*/numba_kernels.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class FloatVector(types.Type):
    """The numba type of a vector of ``lanes`` float32."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


row = FloatVector(CHANNELS)
block = FloatVector(STATES * CHANNELS)


@register_model(FloatVector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_FLOAT, fe_type.lanes))


def _register_operator(function, instruction: str) -> None:
    @infer_global(function)
    class _Typing(ConcreteTemplate):
        cases = [signature(vector, vector, vector) for vector in (row, block)]  # noqa: RUF012 (numba's interface)

    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=_CONTRACT)

    for vector in (row, block):
        lower_builtin(function, vector, vector)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register_operator(_function, _instruction)


def _floats(lanes: int, value: float) -> ir.Constant:
    return ir.Constant(ir.VectorType(_FLOAT, lanes), [float(np.float32(value))] * lanes)


def _ints(lanes: int, value: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INT, lanes), [value] * lanes)


def _pick(builder, vector, lanes):
    """The vector made of these lanes of another one."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes)))


def _element(builder, address, index, type_=_FLOAT):
    return builder.gep(builder.inttoptr(address, type_.as_pointer()), [index])


def _load(builder, address, index, lanes):
    vector = ir.VectorType(_FLOAT, lanes)
    value = builder.load(builder.bitcast(_element(builder, address, index), vector.as_pointer()))
    value.align = 4
    return value


def _make_load(vector):
    @intrinsic
    def load(typingctx, address, index):
        def codegen(context, builder, sig, args):
            return _load(builder, *args, vector.lanes)

        return vector(types.int64, types.int64), codegen

    return load


def _make_store(vector):
    @intrinsic
    def store(typingctx, address, index, value):
        def codegen(context, builder, sig, args):
            address, index, value = args
            builder.store(value, builder.bitcast(_element(builder, address, index), value.type.as_pointer())).align = 4
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, vector), codegen

    return store


load_row, store_row = _make_load(row), _make_store(row)
load_block, store_block = _make_load(block), _make_store(block)


@intrinsic
def load_float(typingctx, address, index):
    """The float at ``address + 4 * index``."""

    def codegen(context, builder, sig, args):
        return builder.load(_element(builder, *args))

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def store_float(typingctx, address, index, value):
    """One float to ``address + 4 * index``."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _element(builder, *args[:2]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), codegen


def _make_prefetch(to_write):
    @intrinsic
    def prefetch(typingctx, address, index):
        def codegen(context, builder, sig, args):
            pointer = builder.bitcast(_element(builder, *args), ir.IntType(8).as_pointer())
            hint = ir.FunctionType(ir.VoidType(), [pointer.type, _INT, _INT, _INT])
            name = "llvm.prefetch.p0" if str(pointer.type) == "ptr" else "llvm.prefetch.p0i8"
            fetch = cgutils.get_or_insert_function(builder.module, hint, name)
            builder.call(fetch, [pointer, _INT(to_write), _INT(3), _INT(1)])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return prefetch


# Ask for the cache line at ``address + 4 * index`` ahead of its use; any address will do.
prefetch_read, prefetch_write = _make_prefetch(0), _make_prefetch(1)


@intrinsic
def full_row(typingctx, value):
    """A row of one value."""

    def codegen(context, builder, sig, args):
        first = builder.insert_element(ir.Constant(ir.VectorType(_FLOAT, CHANNELS), ir.Undefined), args[0], _INT(0))
        return _pick(builder, first, [0] * CHANNELS)

    return row(types.float32), codegen


@intrinsic
def load_states(typingctx, address, index):
    """A block from 4 floats, one for each state, the same in all channels."""

    def codegen(context, builder, sig, args):
        return _pick(builder, _load(builder, *args, STATES), [i // CHANNELS for i in range(block.lanes)])

    return block(types.int64, types.int64), codegen


@intrinsic
def over_states(typingctx, channels):
    """A block from a row, the same in all states."""

    def codegen(context, builder, sig, args):
        return _pick(builder, args[0], [i % CHANNELS for i in range(block.lanes)])

    return block(row), codegen


@intrinsic
def add_product(typingctx, channels, a, b):
    """``channels`` plus the sum over states of ``a * b``."""

    def codegen(context, builder, sig, args):
        total, a, b = args
        product = builder.fmul(a, b, flags=_CONTRACT)
        for state in range(STATES):
            part = _pick(builder, product, range(state * CHANNELS, (state + 1) * CHANNELS))
            total = builder.fadd(total, part, flags=_CONTRACT)
        return total

    return row(row, block, block), codegen


@intrinsic
def sum_channels(typingctx, channels):
    """The sum of a row, added pairwise."""

    def codegen(context, builder, sig, args):
        (vector,) = args
        half = CHANNELS // 2
        while half:
            vector = builder.fadd(_pick(builder, vector, range(half)), _pick(builder, vector, range(half, 2 * half)))
            half //= 2
        return builder.extract_element(vector, _INT(0))

    return types.float32(row), codegen


@intrinsic
def insert(typingctx, vector, value, lane):
    """The row with one channel replaced."""

    def codegen(context, builder, sig, args):
        return builder.insert_element(*args)

    return row(row, types.float32, types.int64), codegen


@intrinsic
def extract(typingctx, vector, lane):
    """One channel of the row."""

    def codegen(context, builder, sig, args):
        return builder.extract_element(*args)

    return types.float32(row, types.int64), codegen


@intrinsic
def positive_part(typingctx, x):
    """max(x, 0), and not a number where x is not."""

    def codegen(context, builder, sig, args):
        (x,) = args
        zero = _floats(CHANNELS, 0.0)
        return builder.select(builder.fcmp_ordered("<", x, zero), zero, x)

    return row(row), codegen


@intrinsic
def where_negative(typingctx, x, negative, otherwise):
    """Channel by channel ``negative`` where ``x < 0``, else ``otherwise``."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], _floats(CHANNELS, 0.0)), args[1], args[2])

    return row(row, row, row), codegen


@intrinsic
def fetch_add(typingctx, address, index):
    """Add one to the int64 at ``address + 8 * index`` atomically; the value before."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _element(builder, *args, _LONG), _LONG(1), "monotonic")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def load_acquire(typingctx, address, index):
    """The int64 at ``address + 8 * index``, and with it all that was written before its `store_release`."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_element(builder, *args, _LONG), "acquire", 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def store_release(typingctx, address, index, value):
    """Let other threads see the int64 at ``address + 8 * index``, and all that this one wrote before."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _element(builder, *args[:2], _LONG), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _pause(typingctx):
    def codegen(context, builder, sig, args):
        if platform.machine() in ("x86_64", "AMD64"):
            hint = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, hint, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _give_way(typingctx):
    def codegen(context, builder, sig, args):
        if os.name == "posix":
            call = ir.FunctionType(_INT, [])
            builder.call(cgutils.get_or_insert_function(builder.module, call, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


_TINY_TO_ZERO = 1 << 15 | 1 << 6  # the bits FTZ (results) and DAZ (operands) of x86's control register MXCSR


def _control_register(builder, name, room):
    """Call the instruction that reads or writes the control register from or to memory."""
    byte = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [byte]), name)
    builder.call(function, [builder.bitcast(room, byte)])


@intrinsic
def flush_tiny(typingctx):
    """From now on this thread takes numbers below 1.2e-38 as zero; the mode before, for `restore_mode`.

    States and gradients that fade over thousands of tokens end there and stay there by rounding. On an Intel Xeon
    (Emerald Rapids) that made a training step at L = 1,000 four times slower. Only x86's register is known here.
    """

    def codegen(context, builder, sig, args):
        if platform.machine() not in ("x86_64", "AMD64"):
            return _LONG(0)
        room = cgutils.alloca_once(builder, _INT)
        _control_register(builder, "llvm.x86.sse.stmxcsr", room)
        before = builder.load(room)
        builder.store(builder.or_(before, _INT(_TINY_TO_ZERO)), room)
        _control_register(builder, "llvm.x86.sse.ldmxcsr", room)
        return builder.zext(before, _LONG)

    return types.int64(), codegen


@intrinsic
def restore_mode(typingctx, before):
    """Put back what `flush_tiny` found: the thread belongs to torch."""

    def codegen(context, builder, sig, args):
        if platform.machine() in ("x86_64", "AMD64"):
            room = cgutils.alloca_once(builder, _INT)
            builder.store(builder.trunc(args[0], _INT), room)
            _control_register(builder, "llvm.x86.sse.ldmxcsr", room)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


# 2**f on [-1/2, 1/2], 1 exactly at 0. The error of a decay adds up over the tokens that it remembers, fewer where it is
# strong, so what is kept least is the error relative to 1 - 2**f: as if rates were off by 4.9e-7. That of 2**f itself
# is 1.7e-7, with rounding 2.3e-7. One degree more would halve it and costs a twelfth of the scan's time.
_EXP2 = (1.0, 0.693147096, 0.240223569, 0.0555066852, 0.00966598222, 0.00132656789)
# log(1 + u) / u on [0, 1] by a minimax polynomial with q(0) = 1 exactly: relative error 2.6e-8, with rounding 1.5e-7.
_LOG1P = (1.0, -0.499997032, 0.333224384, -0.24866486, 0.19193006, -0.138439563, 0.0803387109, -0.0308011564)
_LOG1P += (0.00555665578,)
_ROUND = 1.5 * 2.0**23  # adding it leaves the nearest integer in the low bits of the sum
_LOG2E = 1.4426950408889634
_LOG2E_LOW = _LOG2E - float(np.float32(_LOG2E))


def _polynomial(builder, coefficients, x):
    lanes = x.type.count
    value = _floats(lanes, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = builder.fadd(builder.fmul(value, x, flags=_CONTRACT), _floats(lanes, coefficient), flags=_CONTRACT)
    return value


def _at_least(builder, x, lowest):
    floor = _floats(x.type.count, lowest)
    return builder.select(builder.fcmp_ordered("<", x, floor), floor, x)


def _scaled_exp2(builder, rounded, fraction):
    """2**fraction times 2 to the integer that stands in the low bits of ``rounded``."""
    ints = ir.VectorType(_INT, fraction.type.count)
    mantissa = builder.bitcast(_polynomial(builder, _EXP2, fraction), ints)
    exponent = builder.shl(builder.bitcast(rounded, ints), _ints(ints.count, 23))
    return builder.bitcast(builder.add(mantissa, exponent), fraction.type)


@intrinsic
def exp2(typingctx, x):
    """2**x of a block for x <= 127; below -126 it stays at 2**-126, so that no exponent wraps round."""

    def codegen(context, builder, sig, args):
        x = _at_least(builder, args[0], -126.0)
        shift = _floats(x.type.count, _ROUND)
        rounded = builder.fadd(x, shift)
        return _scaled_exp2(builder, rounded, builder.fsub(x, builder.fsub(rounded, shift)))

    return block(block), codegen


@intrinsic
def exp_negative_abs(typingctx, x):
    """exp(-abs(x)) of a row, with log2(e) in two parts: correct to 2e-7 down to the smallest normal number."""

    def codegen(context, builder, sig, args):
        (x,) = args
        x = builder.select(builder.fcmp_ordered("<", x, _floats(CHANNELS, 0.0)), x, builder.fneg(x))
        x = _at_least(builder, x, -87.0)
        rounded = builder.fadd(builder.fmul(x, _floats(CHANNELS, _LOG2E)), _floats(CHANNELS, _ROUND))
        whole = builder.fsub(rounded, _floats(CHANNELS, _ROUND))
        fma_type = ir.FunctionType(x.type, [x.type] * 3)
        fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.v{CHANNELS}f32")
        fraction = builder.call(fma, [x, _floats(CHANNELS, _LOG2E), builder.fneg(whole)])
        fraction = builder.call(fma, [x, _floats(CHANNELS, _LOG2E_LOW), fraction])
        return _scaled_exp2(builder, rounded, fraction)

    return row(row), codegen


@intrinsic
def log_one_plus(typingctx, u):
    """log(1 + u) of a row for u in [0, 1], with full relative accuracy towards zero."""

    def codegen(context, builder, sig, args):
        (u,) = args
        return builder.fmul(u, _polynomial(builder, _LOG1P, u))

    return row(row), codegen


@njit(**JIT)
def wait_for(address, index, value):
    """Wait until another thread has stored ``value`` or more at ``address + 8 * index`` by `store_release`.

    The threads may outnumber the processors, so that the other one runs only when this one gives way.
    """
    n_looks = 0
    while load_acquire(address, index) < value:
        n_looks += 1
        if n_looks % 256:
            _pause()
        else:
            _give_way()


@njit(**JIT)
def load_part(address, index, count):
    """As `load_row`, but zeros from channel ``count`` on, whose memory is not touched."""
    if count >= CHANNELS:
        return load_row(address, index)
    channels = full_row(np.float32(0.0))
    for lane in range(count):
        channels = insert(channels, load_float(address, index + lane), lane)
    return channels


@njit(**JIT)
def store_part(address, index, channels, count):
    """As `store_row`, but only the first ``count`` channels."""
    if count >= CHANNELS:
        store_row(address, index, channels)
    else:
        for lane in range(count):
            store_float(address, index + lane, extract(channels, lane))


@njit(**JIT)
def fill(address, index, count):
    """Zeros from ``index`` on; ``count`` is a multiple of 16."""
    for i in range(index, index + count, CHANNELS):
        store_row(address, i, full_row(np.float32(0.0)))


@njit(**JIT)
def sigmoid(x):
    """1 / (1 + exp(-x)) of a row, exact in both tails."""
    u = exp_negative_abs(x)
    one = full_row(np.float32(1.0))
    return where_negative(x, u, one) / (one + u)


@njit(**JIT)
def softplus_and_slope(x):
    """log(1 + exp(x)) of a row and its derivative sigmoid(x), exact in both tails."""
    u = exp_negative_abs(x)
    one = full_row(np.float32(1.0))
    return positive_part(x) + log_one_plus(u), where_negative(x, u, one) / (one + u)
