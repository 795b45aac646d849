"""Attention on the CPU: a kernel each way that holds a tile of weights at a time; memory grows as the tokens do.

Computes in float32; bfloat16 and float16 inputs are converted on the way in and the output on the way out. For the
backward pass it keeps two numbers a query and head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ftmamba.ops.attention import numba_kernels as kernels
from ftmamba.ops.cpu import as_float, kernel, scratch, strided
from ftmamba.ops.operators import differentiate, operator
from ftmamba.threads import get_threads

SCHEMA = "Tensor q, Tensor k, Tensor v, Tensor? lengths, bool causal, int? window, int? global_token, bool silu"

_forward = kernel(kernels.forward, kernels.FORWARD)
_backward = kernel(kernels.backward, kernels.BACKWARD)


def pays(shape: torch.Size, n_tokens: int, masked: bool) -> bool:
    """Whether this is expected to be faster than torch's kernel for queries of a shape.

    Measured on two cores of a Zen 4 against torch 2.13: for a single query SDPA is faster, and below so many weights
    the start of an operator of ours takes longer than all its work (at the bound it is 1.0 to 1.5 times as fast). With
    a mask, SDPA first writes it out. An exported program keeps to what needs no operator of ours and fits any batch.
    """
    if torch.compiler.is_exporting():
        return False
    batch, n_queries, n_heads, _ = shape
    return masked or (n_queries > 1 and batch * n_heads * n_queries * n_tokens >= 2**15)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Tensor | None = None,
    global_token: int | None = None,
) -> Tensor:
    """See `ftmamba.ops.attention.attention`.

    Raises:
        BackendError: an input is float64.
    """
    out, _ = _attention(*as_float(q, k, v), lengths, causal, window, global_token, False, False)
    return out.to(q.dtype)


def silu_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """See `ftmamba.mixers.hstu.reference`.

    Raises:
        BackendError: an input is float64.
    """
    out, _ = _attention(*as_float(q, k, v), None, causal, None, None, True, False)
    return out.to(q.dtype)


def _arguments(q, k, v, lengths, causal, window, global_token, silu) -> dict[str, Tensor | int | None]:
    (batch, n_queries, n_heads, d_head), n_tokens = q.shape, k.shape[1]
    return {
        "n_rows": batch,
        "n_heads": n_heads,
        "n_queries": n_queries,
        "n_tokens": n_tokens,
        "d_head": d_head,
        "lengths": None if lengths is None else lengths.to(torch.int64).contiguous(),
        "causal": int(causal),
        "window": max(n_queries, n_tokens) if window is None else window,
        "global_token": kernels.NOWHERE if global_token is None else global_token,
        "silu": int(silu),
        **strided(q=q, k=k, v=v),
    }


def _fake(q, k, v, lengths, causal, window, global_token, silu, keep):
    batch, n_queries, n_heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((2, batch, n_heads, n_queries) if keep and not silu else (0,))


@operator(f"attention_numba({SCHEMA}, bool keep) -> (Tensor, Tensor)", _fake)
def _attention(q, k, v, lengths, causal, window, global_token, silu, keep):
    """The output, and with ``keep`` each query's largest logit and one over its sum of weights, else nothing."""
    batch, n_queries, n_heads, d_head = q.shape
    out, kept = _fake(q, k, v, lengths, causal, window, global_token, silu, keep)
    if lengths is not None:
        kept.zero_()  # of queries that are no valid tokens nothing is written
    n_threads = min(get_threads(), batch * n_heads * -(-n_queries // kernels.LANES))
    tops, sums = kept if len(kept) else (None, None)
    arguments = _arguments(q, k, v, lengths, causal, window, global_token, silu) | scratch(
        q, n_threads, kernels.forward_floats(d_head)
    )
    _forward(n_threads=n_threads, out=out, tops=tops, sums=sums, **arguments)
    return out, kept


def _fake_backward(dout, out, kept, q, k, v, lengths, causal, window, global_token, silu):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@operator(
    f"attention_numba_backward(Tensor dout, Tensor out, Tensor kept, {SCHEMA}) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)
def _attention_backward(dout, out, kept, q, k, v, lengths, causal, window, global_token, silu):
    """Gradients of q, k and v."""
    batch, n_queries, n_heads, d_head = q.shape
    # Heads and rows share out the work; where they are few, so do parts of the queries.
    n_splits = max(1, min(get_threads() // max(batch * n_heads, 1), -(-n_queries // kernels.LANES)))
    n_threads = min(get_threads(), batch * n_heads * n_splits)
    dq, dk, dv = q.new_empty(q.shape), k.new_empty(n_splits, *k.shape), v.new_empty(n_splits, *v.shape)
    arguments = _arguments(q, k, v, lengths, causal, window, global_token, silu) | strided(dout=dout)
    arguments |= scratch(q, n_threads, kernels.backward_floats(d_head, k.shape[1]))
    tops, sums = kept if len(kept) else (None, None)
    arguments |= {"out": out, "tops": tops, "sums": sums, "n_splits": n_splits, "dq": dq, "dk": dk, "dv": dv}
    _backward(n_threads=n_threads, **arguments)
    return dq, *(total[0] if n_splits == 1 else total.sum(0) for total in (dk, dv))


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, lengths, *ctx.how, _ = inputs
    out, kept = output
    ctx.save_for_backward(out, kept, q, k, v, lengths)
    ctx.mark_non_differentiable(kept)


def _backward_rule(ctx, dout: Tensor, _: None) -> tuple:
    return *_attention_backward(dout, *ctx.saved_tensors, *ctx.how), *[None] * 6


differentiate(_attention, _setup_context, _backward_rule, _attention_backward)
