"""Vectors of float32 inside numba: the few operations our CPU kernels need, written once.

numba vectorises loops only where it can prove that buffers do not overlap, which it cannot for the states of a scan.
Here vectors are types of their own: arithmetic on them is vector arithmetic by construction, on any CPU that LLVM
knows. A `row` holds 16 channels, a `block` 4 states of 16 channels each, in the order (state, channel); LLVM spreads a
block over four AVX-512 registers, or eight of AVX2. Memory is a byte address (int64) and an index in floats. What a
function becomes in LLVM's language is written down in Python and decorated with `emits`.

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
from numba import carray, cfunc, njit, types
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

FLOAT, BYTE, INT, LONG = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
CONTRACT = ("contract",)  # lets LLVM fuse a * b + c, and nothing else
X86 = platform.machine() in ("x86_64", "AMD64")


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
    files = sorted([*folder.glob("*.py"), *folder.parent.glob("*/*/numba_kernels.py")])
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
        super().__init__(dmm, fe_type, ir.VectorType(FLOAT, fe_type.lanes))


def emits(returned, *taken):
    """A function for kernels, of the numba types that it returns and takes, from ``emit(builder, *values)``.

    ``emit`` appends LLVM's instructions at the builder's place and returns the value that they end in.
    """

    def make(emit):
        @functools.wraps(emit)  # from it numba reads the arguments' names
        def typed(typingctx, *_):
            def lower(context, builder, sig, values):
                value = emit(builder, *values)
                return context.get_dummy_value() if returned is types.void else value

            return returned(*taken), lower

        return intrinsic(typed)

    return make


def _register_operator(function, instruction: str) -> None:
    @infer_global(function)
    class _Typing(ConcreteTemplate):
        cases = [signature(vector, vector, vector) for vector in (row, block)]  # noqa: RUF012 (numba's interface)

    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=CONTRACT)

    for vector in (row, block):
        lower_builtin(function, vector, vector)(lower)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


# What follows down to the first `emits` appends instructions itself, as part of what `emits` decorates.


def constant(kind, lanes, value):
    """The same number in all lanes, or one number a lane."""
    return ir.Constant(ir.VectorType(kind, lanes), value if isinstance(value, list) else [value] * lanes)


def floats(lanes, value):
    """A number, rounded to float32, in all lanes."""
    return constant(FLOAT, lanes, float(np.float32(value)))


def pick(builder, vector, lanes):
    """The vector made of these lanes of another one."""
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), constant(INT, len(lanes), [*lanes]))


def splat(builder, value, lanes):
    """One value in all lanes."""
    first = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    return pick(builder, builder.insert_element(first, value, INT(0)), [0] * lanes)


def multiply_add(builder, a, b, c):
    """``a * b + c``, in one instruction where there is one."""
    return builder.fadd(builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT)


def smaller(builder, a, b, then, otherwise):
    """``then`` where ``a < b``, else, also where one is no number, ``otherwise``."""
    return builder.select(builder.fcmp_ordered("<", a, b), then, otherwise)


def fold(builder, vector, combine):
    """All channels of a row as one, pairwise."""
    for half in (8, 4, 2, 1):  # of 16 channels
        vector = combine(pick(builder, vector, range(half)), pick(builder, vector, range(half, 2 * half)))
    return builder.extract_element(vector, INT(0))


def call(builder, name, returned, *arguments):
    """Call a function of LLVM's or of the system."""
    kind = ir.FunctionType(returned, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def element(builder, address, index, kind=FLOAT):
    """The pointer to ``address[index]``."""
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [index])


def place(builder, address, index, lanes):
    """The pointer to a vector of floats that begins at ``address[index]``."""
    return builder.bitcast(element(builder, address, index), ir.VectorType(FLOAT, lanes).as_pointer())


def load(builder, address, index, lanes):
    """The vector of floats at ``address[index]``."""
    value = builder.load(place(builder, address, index, lanes))
    value.align = 4
    return value


def store(builder, address, index, value):
    """A vector of floats to ``address[index]``."""
    builder.store(value, place(builder, address, index, value.type.count)).align = 4


def _make_load(vector):
    return emits(vector, types.int64, types.int64)(
        lambda builder, address, index: load(builder, address, index, vector.lanes)
    )


load_row, load_block = _make_load(row), _make_load(block)
store_row, store_block = (emits(types.void, types.int64, types.int64, vector)(store) for vector in (row, block))


@emits(types.float32, types.int64, types.int64)
def load_float(builder, address, index):
    """The float at ``address + 4 * index``."""
    return builder.load(element(builder, address, index))


@emits(types.void, types.int64, types.int64, types.float32)
def store_float(builder, address, index, value):
    """One float to ``address + 4 * index``."""
    builder.store(value, element(builder, address, index))


def _masked(builder, address, index, count):
    """Pointer, its name in LLVM's functions, alignment and mask of the first ``count`` channels of a row."""
    pointer = place(builder, address, index, CHANNELS)
    mask = builder.icmp_signed("<", constant(LONG, CHANNELS, [*range(CHANNELS)]), splat(builder, count, CHANNELS))
    name = f"v{CHANNELS}f32." + ("p0" if str(pointer.type) == "ptr" else f"p0v{CHANNELS}f32")
    return pointer, name, INT(4), mask


@emits(row, types.int64, types.int64, types.int64)
def load_some(builder, address, index, count):
    """As `load_part`, by the masks of the machine."""
    pointer, name, align, mask = _masked(builder, address, index, count)
    zero = floats(CHANNELS, 0.0)
    return call(builder, f"llvm.masked.load.{name}", zero.type, pointer, align, mask, zero)


@emits(types.void, types.int64, types.int64, row, types.int64)
def store_some(builder, address, index, channels, count):
    """As `store_part`, by the masks of the machine."""
    pointer, name, align, mask = _masked(builder, address, index, count)
    call(builder, f"llvm.masked.store.{name}", ir.VoidType(), channels, pointer, align, mask)


def _make_prefetch(to_write):
    @emits(types.void, types.int64, types.int64)
    def prefetch(builder, address, index):
        pointer = builder.bitcast(element(builder, address, index), BYTE.as_pointer())
        name = "llvm.prefetch.p0" if str(pointer.type) == "ptr" else "llvm.prefetch.p0i8"
        call(builder, name, ir.VoidType(), pointer, INT(to_write), INT(3), INT(1))

    return prefetch


# Ask for the cache line at ``address + 4 * index`` ahead of its use; any address will do.
prefetch_read, prefetch_write = _make_prefetch(0), _make_prefetch(1)


@emits(row, types.float32)
def full_row(builder, value):
    """A row of one value."""
    return splat(builder, value, CHANNELS)


@emits(block, types.int64, types.int64)
def load_states(builder, address, index):
    """A block from 4 floats, one for each state, the same in all channels."""
    return pick(builder, load(builder, address, index, STATES), [i // CHANNELS for i in range(block.lanes)])


@emits(block, row)
def over_states(builder, channels):
    """A block from a row, the same in all states."""
    return pick(builder, channels, [i % CHANNELS for i in range(block.lanes)])


@emits(row, row, block, block)
def add_product(builder, channels, a, b):
    """``channels`` plus the sum over states of ``a * b``."""
    product = builder.fmul(a, b, flags=CONTRACT)
    for first in range(0, block.lanes, CHANNELS):
        channels = builder.fadd(channels, pick(builder, product, range(first, first + CHANNELS)), flags=CONTRACT)
    return channels


@emits(types.float32, row)
def sum_channels(builder, channels):
    """The sum of a row, added pairwise."""
    return fold(builder, channels, builder.fadd)


@emits(row, row, row, row)
def where_negative(builder, x, negative, otherwise):
    """Channel by channel ``negative`` where ``x < 0``, else ``otherwise``."""
    return smaller(builder, x, floats(CHANNELS, 0.0), negative, otherwise)


@emits(types.int64, types.int64, types.int64)
def fetch_add(builder, address, index):
    """Add one to the int64 at ``address + 8 * index`` atomically; the value before."""
    return builder.atomic_rmw("add", element(builder, address, index, LONG), LONG(1), "monotonic")


@emits(types.int64, types.int64, types.int64)
def load_acquire(builder, address, index):
    """The int64 at ``address + 8 * index``, and with it all that was written before its `store_release`."""
    return builder.load_atomic(element(builder, address, index, LONG), "acquire", 8)


@emits(types.void, types.int64, types.int64, types.int64)
def store_release(builder, address, index, value):
    """Let other threads see the int64 at ``address + 8 * index``, and all that this one wrote before."""
    builder.store_atomic(value, element(builder, address, index, LONG), "release", 8)


@emits(types.void)
def _pause(builder):
    if X86:
        call(builder, "llvm.x86.sse2.pause", ir.VoidType())


@emits(types.void)
def _give_way(builder):
    if os.name == "posix":
        call(builder, "sched_yield", INT)


_TINY_TO_ZERO = 1 << 15 | 1 << 6  # the bits FTZ (results) and DAZ (operands) of x86's control register MXCSR


def _control_register(builder, name, room):
    """Call the instruction that reads or writes the control register from or to memory."""
    call(builder, name, ir.VoidType(), builder.bitcast(room, BYTE.as_pointer()))


@emits(types.int64)
def flush_tiny(builder):
    """From now on this thread takes numbers below 1.2e-38 as zero; the mode before, for `restore_mode`.

    States and gradients that fade over thousands of tokens end there and stay there by rounding. On an Intel Xeon
    (Emerald Rapids) that made a training step at L = 1,000 four times slower. Only x86's register is known here.
    """
    if not X86:
        return LONG(0)
    room = cgutils.alloca_once(builder, INT)
    _control_register(builder, "llvm.x86.sse.stmxcsr", room)
    before = builder.load(room)
    builder.store(builder.or_(before, INT(_TINY_TO_ZERO)), room)
    _control_register(builder, "llvm.x86.sse.ldmxcsr", room)
    return builder.zext(before, LONG)


@emits(types.void, types.int64)
def restore_mode(builder, before):
    """Put back what `flush_tiny` found: the thread belongs to torch."""
    if X86:
        room = cgutils.alloca_once(builder, INT)
        builder.store(builder.trunc(before, INT), room)
        _control_register(builder, "llvm.x86.sse.ldmxcsr", room)


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
    value = floats(lanes, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = multiply_add(builder, value, x, floats(lanes, coefficient))
    return value


def _at_least(builder, x, lowest):
    floor = floats(x.type.count, lowest)
    return smaller(builder, x, floor, floor, x)


def _scaled_exp2(builder, rounded, fraction):
    """2**fraction times 2 to the integer that stands in the low bits of ``rounded``."""
    lanes = fraction.type.count
    mantissa, exponent = (
        builder.bitcast(each, ir.VectorType(INT, lanes)) for each in (_polynomial(builder, _EXP2, fraction), rounded)
    )
    exponent = builder.shl(exponent, constant(INT, lanes, 23))
    return builder.bitcast(builder.add(mantissa, exponent), fraction.type)


def power_of_two(builder, x):
    """2**x for x <= 127; below -126 it stays at 2**-126, so that no exponent wraps round."""
    x = _at_least(builder, x, -126.0)
    shift = floats(x.type.count, _ROUND)
    rounded = builder.fadd(x, shift)
    return _scaled_exp2(builder, rounded, builder.fsub(x, builder.fsub(rounded, shift)))


exp2, exp2_row = emits(block, block)(power_of_two), emits(row, row)(power_of_two)


@emits(row, row)
def exp_negative_abs(builder, x):
    """exp(-abs(x)) of a row, with log2(e) in two parts: correct to 2e-7 down to the smallest normal number."""
    log2e, low, shift = (floats(CHANNELS, each) for each in (_LOG2E, _LOG2E_LOW, _ROUND))
    x = _at_least(builder, smaller(builder, x, floats(CHANNELS, 0.0), x, builder.fneg(x)), -87.0)
    rounded = builder.fadd(builder.fmul(x, log2e), shift)
    fma = f"llvm.fma.v{CHANNELS}f32"
    fraction = call(builder, fma, x.type, x, log2e, builder.fneg(builder.fsub(rounded, shift)))
    return _scaled_exp2(builder, rounded, call(builder, fma, x.type, x, low, fraction))


@emits(row, row)
def log_one_plus(builder, u):
    """log(1 + u) of a row for u in [0, 1], with full relative accuracy towards zero."""
    return builder.fmul(u, _polynomial(builder, _LOG1P, u))


@njit(inline="always", **JIT)
def enter(pointer):
    """What a kernel begins with: the thread's mode for `restore_mode`, the arguments, the address of the counters."""
    record = carray(pointer, 1)
    return flush_tiny(), record[0], np.int64(record.ctypes.data) + record.itemsize - 16


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
    return load_row(address, index) if count >= CHANNELS else load_some(address, index, count)


@njit(**JIT)
def store_part(address, index, channels, count):
    """As `store_row`, but only the first ``count`` channels."""
    if count >= CHANNELS:
        store_row(address, index, channels)
    else:
        store_some(address, index, channels, count)


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
    return where_negative(x, full_row(np.float32(0.0)), x) + log_one_plus(u), where_negative(x, u, one) / (one + u)
