"""Causal linear attention on the CPU: one kernel each way, in cache. Both directions stay with plain products.

Computes in float32. For the backward pass it keeps its inputs, the output, one number a token and head, and the states
at each chunk's start: of d_model channels about as many numbers a token as d_head over the chunk.
"""

from __future__ import annotations

from torch import Tensor

from ftmamba.mixers.linear_attention import CHUNK
from ftmamba.mixers.linear_attention import numba_kernels as kernels
from ftmamba.mixers.linear_attention.chunked import linear_attention as linear_attention  # of both directions
from ftmamba.ops.chunks import chunk_floats
from ftmamba.ops.cpu import as_float, chunks_of, kernel, padded, scratch, strided, zero_pads
from ftmamba.ops.operators import differentiate, operator
from ftmamba.threads import get_threads

SCHEMA = "Tensor q, Tensor k, Tensor v, Tensor? lengths"

_forward = kernel(kernels.forward, kernels.FORWARD)
_backward = kernel(kernels.backward, kernels.BACKWARD)


def causal(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None) -> Tensor:
    """See ``ftmamba.mixers.linear_attention.reference``; q and k are not features yet, pads give zeros."""
    out, _, _ = _mix(*as_float(q, k, v), lengths, False)
    return out.to(q.dtype)


def _sizes(q: Tensor) -> tuple[int, int, int, int]:
    """Features and channels of a head, beside these a one, both rounded up, tokens of a chunk, chunks."""
    chunk = min(CHUNK, padded(q.shape[1]))
    return padded(q.shape[3]), padded(q.shape[3] + 1), chunk, -(-q.shape[1] // chunk)


def _arguments(q, k, v, lengths, *, backward):
    (batch, _, n_heads, d_head), (depth, width, chunk, n_chunks) = q.shape, _sizes(q)
    n_threads = min(get_threads(), batch * n_heads * n_chunks)
    return n_threads, {
        **chunks_of(q, batch * n_heads, chunk, depth * width, lengths),
        "n_heads": n_heads,
        "d_head": d_head,
        **strided(q=q, k=k, v=v),
        **scratch(q, n_threads, chunk_floats(chunk, 1, width, depth, backward)),
    }


def _fake(q, k, v, lengths, keep):
    depth, width, _, n_chunks = _sizes(q)
    batch, _, n_heads, _ = q.shape
    sums = q.new_empty(q.shape[:3] if keep else (0,))
    return q.new_empty(q.shape), sums, q.new_empty((batch * n_heads, n_chunks, depth, width) if keep else (0,))


@operator(f"linear_attention_numba({SCHEMA}, bool keep) -> (Tensor, Tensor, Tensor)", _fake)
def _mix(q, k, v, lengths, keep):
    """The output, and with ``keep`` one over each sum of weights and the states that the backward pass starts from."""
    out, sums, checkpoints = _fake(q, k, v, lengths, keep)
    zero_pads(lengths, out, sums, checkpoints)
    if keep:
        checkpoints[:, 0].zero_()  # the states that a row starts with are not looked at
    n_threads, arguments = _arguments(q, k, v, lengths, backward=False)
    kept = {"sums": sums, "checkpoints": checkpoints} if keep else {"sums": None, "checkpoints": None}
    _forward(n_threads=n_threads, **arguments, **kept, out=out)
    return out, sums, checkpoints


def _fake_backward(dout, out, sums, checkpoints, q, k, v, lengths):
    return tuple(each.new_empty(each.shape) for each in (q, k, v))


@operator(
    f"linear_attention_numba_backward(Tensor dout, Tensor out, Tensor sums, Tensor checkpoints, {SCHEMA}) "
    "-> (Tensor, Tensor, Tensor)",
    _fake_backward,
)
def _mix_backward(dout, out, sums, checkpoints, q, k, v, lengths):
    """Gradients of q, k and v."""
    n_threads, arguments = _arguments(q, k, v, lengths, backward=True)
    grads = _fake_backward(dout, out, sums, checkpoints, q, k, v, lengths)
    zero_pads(lengths, *grads)
    arguments |= dict(zip(("dq", "dk", "dv"), grads, strict=True)) | strided(dout=dout)
    _backward(n_threads=n_threads, **arguments, out=out, sums=sums, checkpoints=checkpoints)
    return grads


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*output, *inputs[:-1])
    ctx.mark_non_differentiable(*output[1:])


def _backward_rule(ctx, dout: Tensor, *_: None) -> tuple:
    return *_mix_backward(dout, *ctx.saved_tensors), None, None


differentiate(_mix, _setup_context, _backward_rule, _mix_backward)
