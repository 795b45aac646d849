"""The gated delta rule on the CPU: one kernel each way from the convolution's output, in cache.

Computes in float32. For the backward pass it keeps its inputs and the states at each chunk's start: of d_model channels
as many numbers a token as d_head over the chunk.
"""

from __future__ import annotations

from torch import Tensor

from ftmamba.mixers.gated_deltanet import numba_kernels as kernels
from ftmamba.ops.cpu import as_float, chunks_of, kernel, padded, scratch, strided, zero_pads
from ftmamba.ops.operators import differentiate, operator
from ftmamba.threads import get_threads

SCHEMA = "Tensor mixed, Tensor decay, Tensor beta, Tensor? lengths, int chunk"

_forward = kernel(kernels.forward, kernels.FORWARD)
_backward = kernel(kernels.backward, kernels.BACKWARD)


def from_mixed(mixed: Tensor, decay: Tensor, beta: Tensor, lengths: Tensor | None, chunk: int) -> Tensor:
    """The rule of ``ftmamba.mixers.gated_deltanet.reference``, of queries and keys that it brings to length 1 itself.

    Args:
        mixed: queries, keys and values side by side, (batch, n_tokens, 3 * d_model).
        decay: logarithm of what is kept, (batch, n_tokens, n_heads).
        beta: share of the correction that is made, as decay.
        lengths: (batch,); None means full rows. Pads give zeros.
        chunk: tokens that are solved for together.

    Returns:
        (batch, n_tokens, n_heads, d_head), for queries shortened by ``d_head**-0.5``.
    """
    out, _ = _rule(*as_float(mixed, decay, beta), lengths, chunk, False)
    return out.unflatten(-1, (decay.shape[2], -1)).to(mixed.dtype)


def _sizes(mixed: Tensor, decay: Tensor, chunk: int) -> tuple[int, int, int]:
    """Channels of a head, rounded up, tokens of a chunk, chunks."""
    chunk = min(padded(chunk), padded(mixed.shape[1]))
    return padded(mixed.shape[2] // 3 // decay.shape[2]), chunk, -(-mixed.shape[1] // chunk)


def _arguments(mixed, decay, beta, lengths, chunk, *, backward):
    (width, chunk, _), n_heads = _sizes(mixed, decay, chunk), decay.shape[2]
    n_threads = min(get_threads(), len(mixed) * n_heads)
    return n_threads, {
        **chunks_of(mixed, len(mixed) * n_heads, chunk, width * width, lengths),
        "n_heads": n_heads,
        "d_head": mixed.shape[2] // 3 // n_heads,
        **strided(mixed=mixed),
        "decay": decay.contiguous(),
        "beta": beta.contiguous(),
        **scratch(mixed, n_threads, kernels.floats_of(chunk, width, backward)),
    }


def _fake(mixed, decay, beta, lengths, chunk, keep):
    width, _, n_chunks = _sizes(mixed, decay, chunk)
    batch, n_tokens, channels = mixed.shape
    kept = mixed.new_empty((batch * decay.shape[2], n_chunks, width * width) if keep else (0,))
    return mixed.new_empty(batch, n_tokens, channels // 3), kept


@operator(f"gated_delta_rule_numba({SCHEMA}, bool keep) -> (Tensor, Tensor)", _fake)
def _rule(mixed, decay, beta, lengths, chunk, keep):
    """The output, and with ``keep`` the states that the backward pass starts from, else an empty tensor."""
    out, checkpoints = _fake(mixed, decay, beta, lengths, chunk, keep)
    zero_pads(lengths, out, checkpoints)
    if keep:
        checkpoints[:, 0].zero_()  # the states that a row starts with are not looked at
    n_threads, arguments = _arguments(mixed, decay, beta, lengths, chunk, backward=False)
    _forward(n_threads=n_threads, **arguments, checkpoints=checkpoints if keep else None, out=out)
    return out, checkpoints


def _fake_backward(dout, checkpoints, mixed, decay, beta, lengths, chunk):
    return tuple(each.new_empty(each.shape) for each in (mixed, decay, beta))


@operator(
    f"gated_delta_rule_numba_backward(Tensor dout, Tensor checkpoints, {SCHEMA}) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)
def _rule_backward(dout, checkpoints, mixed, decay, beta, lengths, chunk):
    """Gradients of mixed, decay and beta."""
    n_threads, arguments = _arguments(mixed, decay, beta, lengths, chunk, backward=True)
    grads = _fake_backward(dout, checkpoints, mixed, decay, beta, lengths, chunk)
    zero_pads(lengths, *grads)
    arguments |= dict(zip(("dmixed", "ddecay", "dbeta"), grads, strict=True)) | strided(dout=dout)
    _backward(n_threads=n_threads, **arguments, checkpoints=checkpoints)
    return grads


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.chunk, _ = inputs  # lengths among them
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])


def _backward_rule(ctx, dout: Tensor, _: None) -> tuple:
    return *_rule_backward(dout, *ctx.saved_tensors, ctx.chunk), None, None, None


differentiate(_rule, _setup_context, _backward_rule, _rule_backward)
