"""Mamba-2 on the CPU: one kernel each way from the convolution's output to the gated norm, in cache.

Computes in float32. For the backward pass it keeps its inputs, y, and the states at each chunk's start: of d_inner
channels as many numbers a token as d_state over the chunk.
"""

from __future__ import annotations

from torch import Tensor

from ftmamba.mixers.mamba2 import numba_kernels as kernels
from ftmamba.mixers.mamba2.chunked import ssd as ssd  # what a token that is read alone takes
from ftmamba.ops.chunks import chunk_floats
from ftmamba.ops.cpu import as_float, chunks_of, kernel, padded, scratch, strided, zero_pads
from ftmamba.ops.operators import differentiate, operator
from ftmamba.threads import get_threads

SCHEMA = "Tensor mixed, Tensor dt, Tensor decay, Tensor z, Tensor D, Tensor norm, Tensor? lengths, int chunk"

_forward = kernel(kernels.forward, kernels.FORWARD)
_backward = kernel(kernels.backward, kernels.BACKWARD)


def gated_ssd(
    mixed: Tensor, dt: Tensor, decay: Tensor, z: Tensor, D: Tensor, norm: Tensor, lengths: Tensor | None, chunk: int
) -> Tensor:
    """The recurrence with its skip and the gated norm behind it, ``norm RMS((ssd(dt u, decay, B, C) + D u) SiLU(z))``.

    Args:
        mixed: u, B and C side by side, (batch, n_tokens, d_inner + 2 * d_state).
        dt: step sizes, (batch, n_tokens, n_heads).
        decay: logarithm of what is kept of a state, as dt.
        z: (batch, n_tokens, d_inner).
        D: (n_heads,).
        norm: (d_inner,).
        lengths: (batch,); None means full rows. Pads give zeros.
        chunk: tokens that are weighed pair by pair.

    Returns:
        (batch, n_tokens, d_inner).
    """
    out, _, _ = _mix(*as_float(mixed, dt, decay, z, D, norm), lengths, chunk, False)
    return out.to(mixed.dtype)


def _sizes(z: Tensor, D: Tensor, mixed: Tensor, chunk: int) -> tuple[int, int, int, int]:
    """Channels of a head and states, both rounded up, tokens of a chunk, chunks."""
    d_inner, n_tokens = z.shape[2], z.shape[1]
    chunk = min(padded(chunk), padded(n_tokens))
    return padded(d_inner // len(D)), padded((mixed.shape[2] - d_inner) // 2), chunk, -(-n_tokens // chunk)


def _arguments(mixed, dt, decay, z, D, norm, lengths, chunk, *, backward):
    d_head, depth, chunk, n_chunks = _sizes(z, D, mixed, chunk)
    n_heads, d_inner, n_threads = len(D), z.shape[2], min(get_threads(), len(z) * n_chunks)
    return n_threads, {
        **chunks_of(z, len(z), chunk, depth * n_heads * d_head, lengths),
        "n_heads": n_heads,
        "d_head": d_inner // n_heads,
        "d_state": (mixed.shape[2] - d_inner) // 2,
        **strided(mixed=mixed, z=z),
        "dt": dt.contiguous(),
        "decay": decay.contiguous(),
        "D": D.contiguous(),
        "norm": norm.contiguous(),
        **scratch(z, n_threads, chunk_floats(chunk, n_heads, d_head, depth, backward)),
    }


def _fake(mixed, dt, decay, z, D, norm, lengths, chunk, keep):
    d_head, depth, _, n_chunks = _sizes(z, D, mixed, chunk)
    kept = z.new_empty((len(z), n_chunks, depth, len(D) * d_head) if keep else (0,))
    return z.new_empty(z.shape), z.new_empty(z.shape if keep else (0,)), kept


@operator(f"mamba2_numba({SCHEMA}, bool keep) -> (Tensor, Tensor, Tensor)", _fake)
def _mix(mixed, dt, decay, z, D, norm, lengths, chunk, keep):
    """The output, and with ``keep`` y and the states that the backward pass starts from, else empty tensors."""
    out, y, checkpoints = _fake(mixed, dt, decay, z, D, norm, lengths, chunk, keep)
    zero_pads(lengths, out, y, checkpoints)
    if keep:
        checkpoints[:, 0].zero_()  # the states that a row starts with are not looked at
    n_threads, arguments = _arguments(mixed, dt, decay, z, D, norm, lengths, chunk, backward=False)
    kept = {"y": y, "checkpoints": checkpoints} if keep else {"y": None, "checkpoints": None}
    _forward(n_threads=n_threads, **arguments, **kept, out=out)
    return out, y, checkpoints


def _fake_backward(dout, y, checkpoints, mixed, dt, decay, z, D, norm, lengths, chunk):
    return tuple(each.new_empty(each.shape) for each in (mixed, dt, decay, z, D, norm))


@operator(
    f"mamba2_numba_backward(Tensor dout, Tensor y, Tensor checkpoints, {SCHEMA}) -> ({', '.join(['Tensor'] * 6)})",
    _fake_backward,
)
def _mix_backward(dout, y, checkpoints, mixed, dt, decay, z, D, norm, lengths, chunk):
    """Gradients of mixed, dt, decay, z, D and norm."""
    n_threads, arguments = _arguments(mixed, dt, decay, z, D, norm, lengths, chunk, backward=True)
    dmixed, ddt, ddecay, dz, *_ = _fake_backward(dout, y, checkpoints, mixed, dt, decay, z, D, norm, lengths, chunk)
    zero_pads(lengths, dmixed, ddt, ddecay, dz)
    grads = {"dmixed": dmixed, "ddt": ddt, "ddecay": ddecay, "dz": dz}
    partial = z.new_zeros(arguments["n_items"], 2, z.shape[2])
    kept = {"y": y, "checkpoints": checkpoints, "partial": partial}
    _backward(n_threads=n_threads, **arguments, **strided(dout=dout), **grads, **kept)
    dnorm, dD = partial.sum(0)
    return *grads.values(), dD.view(len(D), -1).sum(1), dnorm.clone()


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.chunk, _ = inputs  # lengths among them
    _, y, checkpoints = output
    ctx.save_for_backward(y, checkpoints, *tensors)
    ctx.mark_non_differentiable(y, checkpoints)


def _backward_rule(ctx, dout: Tensor, *_: None) -> tuple:
    return *_mix_backward(dout, *ctx.saved_tensors, ctx.chunk), None, None, None


differentiate(_mix, _setup_context, _backward_rule, _mix_backward)
