"""The scan on NVIDIA GPUs, in Triton: forward and backward, parallel over rows, channels and chunks of tokens."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any

import torch
import triton
from torch import Tensor

from ftmamba.ops.gpu import check_dtypes, contiguous_rows, multiprocessors, on
from ftmamba.ops.operators import ANY_DEVICE, differentiate, operator
from ftmamba.ops.selective_scan import GRADIENTS, SCHEMA, Readout, ScanInputs
from ftmamba.ops.selective_scan import triton_kernels as kernels
from ftmamba.ops.selective_scan.launch import (
    LANES,
    MAX_STATES,
    MAX_STATES_PER_THREAD,
    SEGMENT,
    Chip,
    Launch,
    backward_launch,
    cells_at_once,
    forward_launch,
    resident,
    slots,
)


def selective_scan(inputs: ScanInputs, *, readout: Readout = "all") -> tuple[Tensor, Tensor]:
    """See `ftmamba.ops.selective_scan.selective_scan`. Inputs in float32, bfloat16 or float16; the state is float32."""
    check_dtypes("the scan", *inputs)
    if inputs.A.shape[1] > MAX_STATES:
        raise ValueError(f"the scan in triton takes up to {MAX_STATES} states a channel, not {inputs.A.shape[1]}")
    y, final, _ = _scan(*inputs, readout == "last", False)
    return y, final


def _scan_outputs(x, dt, A, B, C, D, z, dt_bias, initial_state, last, keep):
    batch, n_tokens, d_inner = x.shape
    d_state = A.shape[1]
    y = x.new_empty((batch, 1 if last else n_tokens, d_inner))
    final = _state_output(x, batch, d_inner, d_state)
    return y, final, _float32(x, batch, (n_tokens + SEGMENT - 1) // SEGMENT if keep else 0, d_state, d_inner)


@operator(
    f"selective_scan_triton({SCHEMA}, Tensor? initial_state, bool last, bool keep) -> (Tensor, Tensor, Tensor)",
    _scan_outputs,
    ANY_DEVICE,
)
def _scan(x, dt, A, B, C, D, z, dt_bias, initial_state, last, keep):
    y, final, checkpoints = outputs = _scan_outputs(x, dt, A, B, C, D, z, dt_bias, initial_state, last, keep)
    batch, n_tokens, d_inner = x.shape
    d_state = A.shape[1]
    if x.numel() == 0:
        return outputs
    launch = forward_launch(
        (batch, n_tokens, d_inner, d_state), x.element_size(), keep, Chip(multiprocessors(x.device))
    )
    x, dt, B, C, z = (contiguous_rows(t) for t in (x, dt, B, C, z))
    D, dt_bias = D.contiguous(), dt_bias.contiguous()
    n_chunks, chunk = launch.n_chunks, launch.chunk
    options = _options(launch, d_state, B, C)
    with on(x.device):
        entering = x if initial_state is None else _states_first(initial_state)
        if n_chunks > 1:
            states = _float32(x, batch, n_chunks, d_state, d_inner)
            sums = _float32(x, batch, n_chunks, d_inner)
            kernels.chunk_state_kernel[_grid(launch, d_inner, n_chunks * batch)](
                x, dt, A, B, dt_bias, states, sums,
                n_tokens, d_inner, n_chunks, 0, chunk,
                *_strides(x, dt, B), *A.stride(), 0,
                **options,
            )  # fmt: skip
            _carry(states, sums, A, None if initial_state is None else entering)
            entering = states
        # Without checkpoints to leave, a readout of the last token needs the last chunk alone.
        first_chunk = n_chunks - 1 if last and not keep else 0
        kernels.scan_kernel[_grid(launch, d_inner, (n_chunks - first_chunk) * batch)](
            x, dt, A, B, C, D, z, dt_bias, entering, y, final, checkpoints,
            n_tokens, d_inner, n_chunks, first_chunk, chunk, SEGMENT if keep else chunk, checkpoints.shape[1],
            *_strides(x, dt, B, C, z), *A.stride(), 0,
            **options,
            HAS_INITIAL=initial_state is not None, CHUNKED=n_chunks > 1, LAST=last, SAVE=keep,
        )  # fmt: skip
    return outputs


def _scan_gradients(x, dt, A, B, C, D, z, dt_bias, dy, d_final, final, checkpoints, last):
    dx, ddt, dA, dB, dC, dD, dz, dbias = (t.new_empty(t.shape) for t in (x, dt, A, B, C, D, z, dt_bias))
    return dx, ddt, dA, dB, dC, dD, dz, dbias, _state_output(x, x.shape[0], *A.shape)


@operator(
    f"selective_scan_triton_backward({SCHEMA}, Tensor dy, Tensor d_final, Tensor final, Tensor checkpoints, bool last) "
    f"-> {GRADIENTS}",
    _scan_gradients,
    ANY_DEVICE,
)
def _scan_backward(x, dt, A, B, C, D, z, dt_bias, dy, d_final, final, checkpoints, last):
    dx, ddt, dA, dB, dC, dD, dz, dbias, d_initial = grads = _scan_gradients(
        x, dt, A, B, C, D, z, dt_bias, dy, d_final, final, checkpoints, last
    )
    batch, n_tokens, d_inner = x.shape
    d_state = A.shape[1]
    if x.numel() == 0:
        return tuple(grad.zero_() for grad in grads)
    chip = Chip(multiprocessors(x.device))
    launch = backward_launch((batch, n_tokens, d_inner, d_state), x.element_size(), chip)
    x, dt, B, C, z, dy = (contiguous_rows(t) for t in (x, dt, B, C, z, dy))
    D, dt_bias, d_final = D.contiguous(), dt_bias.contiguous(), _states_first(d_final)
    n_chunks, chunk, tile = launch.n_chunks, launch.chunk, launch.tile
    options = _options(launch, d_state, B, C)
    n_blocks = triton.cdiv(d_inner, tile.block_d)
    grid = _grid(launch, d_inner, n_chunks * batch)
    # Sums over channels: of each warp by itself; of a whole block where warps share a channel's states.
    n_groups = n_blocks * (tile.block_d // LANES)
    width = options["BLOCK_N"] * (1 if last else 2)
    n_cells = batch * n_chunks
    at_once = min(cells_at_once(tile, chunk, d_inner, d_state, chip) or resident(tile, chip), n_cells)
    d_tokens = _float32(x, n_groups * min(at_once * chunk, batch * n_tokens), width)
    d_last = _float32(x, n_blocks, batch, d_state)
    d_channels = _float32(x, n_cells, d_state + 2, d_inner)
    scratch = _float32(x, n_blocks * at_once, slots(tile), d_state, tile.block_d)
    with on(x.device):
        leaving = d_final
        if n_chunks > 1:
            leaving = _float32(x, batch, n_chunks, d_state, d_inner)
            sums = _float32(x, batch, n_chunks, d_inner)
            kernels.chunk_adjoint_kernel[grid](
                dt, A, C, z, dt_bias, dy, leaving, sums,
                n_tokens, d_inner, n_chunks, 0, chunk,
                *_strides(dt, C, z, dy), *A.stride(), 0,
                **options, LAST=last,
            )  # fmt: skip
            _carry(leaving, sums, A, d_final, reverse=True)
        for first in range(0, n_cells, at_once):
            n = min(at_once, n_cells - first)
            first_row, end = (c // n_chunks * n_tokens + c % n_chunks * chunk for c in (first, first + n))
            n_rows = end - first_row
            kernels.scan_adjoint_kernel[(n_blocks * n,)](
                x, dt, A, B, C, D, z, dt_bias, dy, final, checkpoints, leaving, scratch,
                dx, ddt, dz, d_initial, d_tokens, d_last, d_channels,
                batch, n_tokens, d_inner, n_chunks, n_blocks * first, first_row, n_rows, chunk,
                SEGMENT, checkpoints.shape[1], slots(tile),
                *_strides(x, dt, B, C, z, dy), *A.stride(), 0,
                **options, CHUNKED=n_chunks > 1, LAST=last, WIDTH=width, **warp_sum(options["BLOCK_N"]),
            )  # fmt: skip
            kernels.sum_tokens_kernel[(triton.cdiv(n_rows, 32),)](
                d_tokens, dB, dC, first_row, n_rows, n_groups,
                N=d_state, BLOCK_N=options["BLOCK_N"], WIDTH=width, BLOCK=32,
            )  # fmt: skip
        if last:
            dC.copy_(d_last.sum(0)[:, None])
        kernels.sum_channels_kernel[((d_state + 2) * triton.cdiv(d_inner, 32),)](
            d_channels, dA, dD, dbias, n_cells, d_inner, N=d_state, BLOCK=32, BLOCK_D=32
        )
    return grads


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, dt, A, B, C, D, z, dt_bias, initial_state, last, _ = inputs
    _, final, checkpoints = output
    ctx.save_for_backward(x, dt, A, B, C, D, z, dt_bias, final, checkpoints)
    ctx.set_materialize_grads(False)  # else each backward pass would fill a gradient of the checkpoints with zeros
    ctx.last = last
    ctx.initial_dtype = None if initial_state is None else initial_state.dtype


def _backward(ctx: Any, dy: Tensor | None, d_final: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, final, checkpoints = ctx.saved_tensors
    z = inputs[6]
    dy = torch.zeros_like(z) if dy is None else dy
    d_final = torch.zeros_like(final) if d_final is None else d_final
    *grads, d_initial = _scan_backward(*inputs, dy, d_final, final, checkpoints, ctx.last)
    return *grads, None if ctx.initial_dtype is None else d_initial.to(ctx.initial_dtype), None, None


differentiate(_scan, _setup_context, _backward, _scan_backward)


def _carry(states: Tensor, sums: Tensor, A: Tensor, first: Tensor | None, *, reverse: bool = False) -> None:
    batch, n_chunks, d_state, d_inner = states.shape
    block = 32
    grid = (batch * triton.cdiv(d_state * d_inner, block),)
    kernels.carry_kernel[grid](
        states, sums, A, states if first is None else first, d_inner, n_chunks, *A.stride(),
        N=d_state, BLOCK=block, UNROLL=8, HAS_FIRST=first is not None, REVERSE=reverse, num_warps=1,
    )  # fmt: skip


def _grid(launch: Launch, d_inner: int, n_cells: int) -> tuple[int]:
    return (triton.cdiv(d_inner, launch.tile.block_d) * n_cells,)


def _options(launch: Launch, d_state: int, B: Tensor, C: Tensor) -> dict[str, int]:
    tile = launch.tile
    return {
        "N": d_state,
        "BLOCK_N": triton.next_power_of_2(d_state),
        "BLOCK_D": tile.block_d,
        "UNROLL": tile.unroll,
        "ALIGN": _alignment(B, C),
        "POLYNOMIAL": tile.polynomial,
        "num_warps": tile.warps,
        "maxnreg": tile.registers,
        "enable_fp_fusion": True,
    }


@lru_cache
def warp_sum(block_n: int) -> dict[str, str]:
    if block_n > MAX_STATES_PER_THREAD:
        return {"WARP_SUM": "", "CONSTRAINTS": ""}
    return {"WARP_SUM": kernels.sum_over_warp(block_n), "CONSTRAINTS": kernels.warp_sum_constraints(block_n)}


def _state_output(like: Tensor, batch: int, d_inner: int, d_state: int) -> Tensor:
    """(batch, d_inner, d_state) float32, with channels contiguous in memory: what the kernels write coalesced."""
    return _float32(like, batch, d_state, d_inner).transpose(1, 2)


def _states_first(state: Tensor) -> Tensor:
    """(batch, d_state, d_inner) contiguous; no copy for a state that a scan returned."""
    return state.transpose(1, 2).contiguous()


def _float32(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for t in tensors for stride in t.stride()[:2]]


def _alignment(*tensors: Tensor) -> int:
    """Bytes, 16 at most, that divide the address of every token's vector: how wide its loads may be."""
    addresses = (n for t in tensors for n in (t.data_ptr(), *(s * t.element_size() for s in t.stride()[:2])))
    return gcd(16, *addresses)
