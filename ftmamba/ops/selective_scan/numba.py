"""The scan on the CPU: fused kernels, parallel over rows, channels and, where these are few, segments of the tokens.

Computes in float32; bfloat16 and float16 inputs are converted on the way in and y on the way out. The kernels expect
``A <= 0``. Where rows and channels do not fill the threads, the tokens are cut into segments: a first pass runs each
from a zero state, a short loop carries the states across (the decay over a segment is ``exp(A * sum(delta))``), and the
full pass starts every segment from its true state. The backward pass does the same from the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.ops.cpu import as_float, kernel, scratch, strided
from ftmamba.ops.operators import differentiate, operator
from ftmamba.ops.selective_scan import GRADIENTS, SCHEMA, Readout, ScanInputs
from ftmamba.ops.selective_scan import numba_kernels as kernels
from ftmamba.ops.simd import CHANNELS
from ftmamba.threads import Kernel, get_threads

_forward = kernel(kernels.forward, kernels.FORWARD)
_adjoint = kernel(kernels.adjoint, kernels.ADJOINT)
_backward = kernel(kernels.backward, kernels.BACKWARD)


def selective_scan(inputs: ScanInputs, *, readout: Readout = "all") -> tuple[Tensor, Tensor]:
    """See `ftmamba.ops.selective_scan.selective_scan`.

    Raises:
        BackendError: an input is float64; these kernels compute in float32.
    """
    y, final_state, _ = _scan(*as_float(*inputs), readout == "all", False)
    return y.to(inputs.x.dtype), final_state


class _Launch:
    """One call's shapes, its division into work items, and the inputs as the kernels take them."""

    def __init__(self, x, dt, A, B, C, D, z, dt_bias, reads: bool) -> None:
        self.batch, self.n_tokens, self.d_inner = x.shape
        self.d_state = A.shape[1]
        self.width = kernels.padded_width(self.d_inner)
        self.n_chunks = kernels.chunk_count(self.n_tokens)
        self.n_threads = get_threads()
        self.n_groups, self.n_segments, segment_chunks = divide(
            self.batch, self.width // CHANNELS, self.n_chunks, self.n_threads
        )
        self.n_items = self.batch * self.n_groups * self.n_segments
        self.like, self.A = x, A.contiguous()
        self.arguments = {
            "n_tokens": self.n_tokens,
            "d_inner": self.d_inner,
            "d_state": self.d_state,
            "n_groups": self.n_groups,
            "n_segments": self.n_segments,
            "segment_tokens": segment_chunks * kernels.CHUNK,
            "n_items": self.n_items,
            "reads": int(reads),
            **strided(x=x, dt=dt, B=B, C=C, z=z),
            "A": self.A,
            "D": D.contiguous(),
            "dt_bias": dt_bias.contiguous(),
        }

    def empty(self, *shape: int) -> Tensor:
        return self.like.new_empty(shape)

    def empty_states(self) -> Tensor:
        return self.empty(self.batch, self.n_segments, self.d_state, self.width)

    def run(self, run: Kernel, n_floats: int, **arguments) -> None:
        n_threads = min(self.n_threads, arguments.get("n_slots", self.n_items))
        run(n_threads=n_threads, **self.arguments | arguments | scratch(self.like, n_threads, n_floats))

    def pack(self, state: Tensor | None) -> Tensor | None:
        """(batch, d_inner, d_state) as the kernels hold it: (batch, d_state, width)."""
        if state is None:
            return None
        return F.pad(state.transpose(1, 2), (0, self.width - self.d_inner)).contiguous()

    def carry(
        self, boundary: Tensor | None, ends: Tensor, elapsed: Tensor, order: Iterable[int]
    ) -> tuple[Tensor, Tensor]:
        """Carry states across segments: what enters each (batch, segment, d_state, width), and what leaves the last.

        Args:
            boundary: (batch, d_state, width), enters the first segment in ``order``; zero when None.
            ends: what each segment makes of zero, (batch, segment, d_state, width).
            elapsed: each segment's sum of steps, (batch, segment, width).
            order: segments from the one that is entered first.
        """
        rates = F.pad(self.A.T, (0, self.width - self.d_inner))
        entering = torch.empty_like(ends)
        state = torch.zeros_like(ends[:, 0]) if boundary is None else boundary
        for segment in order:
            entering[:, segment] = state
            state = torch.exp(rates * elapsed[:, segment, None, :]) * state + ends[:, segment]
        return entering, state


def divide(batch: int, n_rows: int, n_chunks: int, n_threads: int) -> tuple[int, int, int]:
    """Groups of 16-channel rows, segments of tokens, and chunks a segment, so that every thread has work.

    Groups cost a partial sum of dB and dC each, so there are no more than give each thread two items. Segments cost a
    pass of their own (about as long as the forward pass), so they must at least triple the threads at work.
    """
    n_groups = min(n_rows, math.ceil(2 * n_threads / max(batch, 1)))
    n_segments = min(n_threads // (max(batch, 1) * n_groups), n_chunks // 4)
    if n_segments < 3:
        return n_groups, 1, n_chunks
    segment_chunks = math.ceil(n_chunks / n_segments)
    return n_groups, math.ceil(n_chunks / segment_chunks), segment_chunks


def _as_state(packed: Tensor, d_inner: int) -> Tensor:
    """(batch, d_state, width) seen as (batch, d_inner, d_state)."""
    return packed.transpose(1, 2)[:, :d_inner]


def _readout(state: Tensor, x: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The last token's output before the gate, (batch, 1, d_inner)."""
    return torch.matmul(state, C.transpose(1, 2)).transpose(1, 2) + D * x[:, -1:]


def _fake(x, dt, A, B, C, D, z, dt_bias, initial_state, read_all, keep):
    batch, n_tokens, d_inner = x.shape
    width, d_state = kernels.padded_width(d_inner), A.shape[1]
    kept = (batch, kernels.chunk_count(n_tokens), d_state, width) if keep else (0,)
    final_state = _as_state(x.new_empty(batch, d_state, width), d_inner)
    return x.new_empty(batch, n_tokens if read_all else 1, d_inner), final_state, x.new_empty(kept)


@operator(
    f"selective_scan_numba({SCHEMA}, Tensor? initial_state, bool read_all, bool keep) -> (Tensor, Tensor, Tensor)",
    _fake,
)
def _scan(x, dt, A, B, C, D, z, dt_bias, initial_state, read_all, keep):
    """y, the final state, and with ``keep`` the states that the backward pass starts from, else an empty tensor."""
    launch = _Launch(x, dt, A, B, C, D, z, dt_bias, read_all)
    n_floats = kernels.forward_scratch(launch.width, launch.d_state)
    checkpoints = launch.empty(launch.batch, launch.n_chunks, launch.d_state, launch.width) if keep else launch.empty(0)
    y = launch.empty(*x.shape) if read_all else None
    start, end = launch.pack(initial_state), launch.empty_states()
    final = end[:, -1]
    if launch.n_segments > 1:
        elapsed = launch.empty(launch.batch, launch.n_segments, launch.width)
        local = {"start": None, "end": end, "elapsed": elapsed, "y": None, "checkpoints": None}
        launch.run(_forward, n_floats, **local | {"reads": 0})
        start, final = launch.carry(start, end, elapsed, range(launch.n_segments))
    if launch.n_segments == 1 or read_all or keep:
        kept = checkpoints if keep else None
        launch.run(_forward, n_floats, start=start, end=end, elapsed=None, y=y, checkpoints=kept)
    final_state = _as_state(final.contiguous(), launch.d_inner)
    if y is None:
        y = _readout(final_state, x, C, D) * F.silu(z)
    return y, final_state, checkpoints


def _fake_backward(dy, dfinal, checkpoints, final_state, x, dt, A, B, C, D, z, dt_bias, read_all):
    like = [tensor.new_empty(tensor.shape) for tensor in (x, dt, A, B, C, D, z, dt_bias)]
    batch, d_inner = x.shape[0], x.shape[2]
    return *like, _as_state(x.new_empty(batch, A.shape[1], kernels.padded_width(d_inner)), d_inner)


@operator(
    "selective_scan_numba_backward(Tensor dy, Tensor? dfinal, Tensor checkpoints, Tensor? final_state, "
    f"{SCHEMA}, bool read_all) -> {GRADIENTS}",
    _fake_backward,
)
def _scan_backward(dy, dfinal, checkpoints, final_state, x, dt, A, B, C, D, z, dt_bias, read_all):
    """Gradients of x, dt, A, B, C, D, z, dt_bias and of the initial state."""
    launch = _Launch(x, dt, A, B, C, D, z, dt_bias, read_all)
    width, d_state = launch.width, launch.d_state
    n_slots = min(launch.n_items, 4 * launch.n_threads)
    dx, ddt, dz = launch.empty(*x.shape), launch.empty(*dt.shape), launch.empty(*z.shape)
    dB, dC = launch.empty(launch.n_groups, *B.shape), launch.empty(launch.n_groups, *C.shape)
    dA = launch.empty(n_slots, width // CHANNELS, kernels.padded_depth(d_state), CHANNELS)
    dD, ddt_bias = launch.empty(n_slots, width), launch.empty(n_slots, width)
    if not read_all:
        gate = torch.sigmoid(z)
        out = dy * z * gate
        dread = out.transpose(1, 2) * C
        dfinal = dread if dfinal is None else dfinal + dread

    rows = strided(dy=dy)
    end_grad, start_grad = launch.pack(dfinal), launch.empty_states()
    first = start_grad[:, 0]
    if launch.n_segments > 1:
        elapsed = launch.empty(launch.batch, launch.n_segments, width)
        local = {"end_grad": None, "start_grad": start_grad, "elapsed": elapsed}
        launch.run(_adjoint, kernels.forward_scratch(width, d_state), **rows | local)
        end_grad, first = launch.carry(end_grad, start_grad, elapsed, range(launch.n_segments - 1, -1, -1))
    tokens = {"dx": dx, "ddt": ddt, "dB": dB, "dC": dC, "dz": dz, "gated": None}
    weights = {"dA": dA, "dD": dD, "ddt_bias": ddt_bias, "n_slots": n_slots}
    states = {"checkpoints": checkpoints, "end_grad": end_grad, "start_grad": start_grad}
    launch.run(_backward, kernels.backward_scratch(width, d_state), **rows | tokens | weights | states)

    dA_sum = dA.sum(0).transpose(1, 2).reshape(width, -1)[: launch.d_inner, :d_state].contiguous()
    dD_sum, ddt_bias_sum = dD.sum(0)[: launch.d_inner], ddt_bias.sum(0)[: launch.d_inner]
    dB_sum, dC_sum = (parts[0] if launch.n_groups == 1 else parts.sum(0) for parts in (dB, dC))
    if not read_all:
        dz = dy * _readout(final_state, x, C, D) * gate * (1 + z * (1 - gate))
        dC_sum = torch.matmul(out, final_state)
        dD_sum = (out * x[:, -1:]).sum((0, 1))
        dx[:, -1:] += D * out
    return dx, ddt, dA_sum, dB_sum, dC_sum, dD_sum, dz, ddt_bias_sum, _as_state(first.contiguous(), launch.d_inner)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, initial_state, ctx.read_all, _ = inputs
    _, final_state, checkpoints = output
    ctx.has_initial_state = initial_state is not None
    ctx.save_for_backward(checkpoints, None if ctx.read_all else final_state, *tensors)
    ctx.mark_non_differentiable(checkpoints)
    ctx.set_materialize_grads(False)


def _backward_rule(ctx, dy: Tensor | None, dfinal: Tensor | None, _: None) -> tuple:
    x, z = ctx.saved_tensors[2], ctx.saved_tensors[8]
    dy = x.new_zeros(z.shape) if dy is None else dy
    *grads, dinitial = _scan_backward(dy, dfinal, *ctx.saved_tensors, ctx.read_all)
    return *grads, dinitial if ctx.has_initial_state else None, None, None


differentiate(_scan, _setup_context, _backward_rule, _scan_backward)
