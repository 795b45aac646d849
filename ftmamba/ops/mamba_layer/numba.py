"""The layer on the CPU: one kernel each way, a chunk of tokens of one row at a time, in cache.

Computes in float32; bfloat16 and float16 inputs are converted on the way in and the output on the way out. For the
backward pass it keeps x and one copy of the states every `CHUNK` tokens. Threads share rows and chunks: a row's chunks
run at the same time, and hand the states on 16 channels after 16, so that no work is done twice. Where only the last
token is read, all chunks but the last only carry the state. What stands behind a row's length costs nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.backends import BackendError
from ftmamba.ops.mamba_layer import GRADIENTS, SCHEMA, LayerInputs
from ftmamba.ops.mamba_layer import numba_kernels as kernels
from ftmamba.ops.operators import differentiate, operator
from ftmamba.ops.selective_scan import Readout
from ftmamba.ops.selective_scan.numba_kernels import CHUNK, chunk_count
from ftmamba.ops.simd import CHANNELS, compile_entry
from ftmamba.ragged import last as last_of
from ftmamba.threads import Kernel, get_threads

_forward = Kernel(lambda: compile_entry(kernels.forward, kernels.FORWARD), kernels.FORWARD)
_backward = Kernel(lambda: compile_entry(kernels.backward, kernels.BACKWARD), kernels.BACKWARD)


def refusal(d_model: int, d_inner: int, d_conv: int, *_: int) -> str | None:
    """Why layers of these widths cannot run here, or None when they can."""
    if d_model % CHANNELS or d_inner % CHANNELS:
        return f"d_model and d_inner must be multiples of {CHANNELS}, got {d_model} and {d_inner}"
    if d_conv > CHUNK + 1:
        return f"d_conv must be at most {CHUNK + 1}, got {d_conv}"
    return None


def pays(x: Tensor) -> bool:
    """Whether this is expected to be faster than the ops one by one: the weights have to fit the cache.

    At d_model 256 the weights' gradients fill it, and threads that share a row take turns with them (batch 1: a
    training step takes 1.1 to 1.2 times as long as op by op); rows of their own do not.
    """
    batch, _, d_model = x.shape
    if torch.compiler.is_exporting():  # a program for any batch, which must not be bound to those with enough rows
        return d_model <= 256
    return d_model <= 128 or (d_model <= 256 and batch >= get_threads())


def mamba_layer(inputs: LayerInputs, *, readout: Readout = "all", lengths: Tensor | None = None) -> Tensor:
    """See `ftmamba.ops.mamba_layer.mamba_layer`.

    Raises:
        BackendError: an input is float64, or the widths are not what the kernels take.
    """
    if any(tensor.dtype == torch.float64 for tensor in inputs):
        raise BackendError("backend 'numba' computes in float32; for float64 use backend 'reference'")
    reason = refusal(inputs.x.shape[2], *inputs.conv_weight.shape)
    if reason is not None:
        raise BackendError(f"backend 'numba' cannot run this layer: {reason}")
    out, _ = _layer(*(tensor.float() for tensor in inputs), lengths, readout == "last", False)
    if readout == "last":
        out = out[:, -1:] if lengths is None else last_of(out, (lengths - 1) % CHUNK + 1)
    return out.to(inputs.x.dtype)


def _n_out(n_tokens: int, last: bool, ragged: bool) -> int:
    """Tokens whose output is computed: with ``last`` those of a row's last chunk."""
    return n_tokens if not last else min(n_tokens, CHUNK) if ragged else (n_tokens - 1) % CHUNK + 1


def _pad_columns(matrix: Tensor) -> Tensor:
    """Columns of zeros up to a multiple of 16."""
    return F.pad(matrix, (0, -matrix.shape[1] % CHANNELS))


def _zero_counts(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device="cpu")


def _arguments(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, lengths, last):
    batch, n_tokens, d_model = x.shape
    rows = x if x.stride(2) == 1 else x.contiguous()
    x_proj_t = _pad_columns(x_proj.t())
    return {
        "n_rows": batch,
        "n_tokens": n_tokens,
        "d_model": d_model,
        "d_inner": A.shape[0],
        "d_state": A.shape[1],
        "dt_rank": dt_proj.shape[1],
        "d_conv": conv_weight.shape[1],
        "last": int(last),
        "lengths": None if lengths is None else lengths.to(torch.int64).contiguous(),
        "n_items": batch * chunk_count(n_tokens),
        "n_lanes": min(get_threads(), batch),
        "projected": x_proj_t.shape[1],
        "rank_width": dt_proj.shape[1] + -dt_proj.shape[1] % CHANNELS,
        "x": rows,
        "x_batch": rows.stride(0),
        "x_token": rows.stride(1),
        "in_proj_t": in_proj.t().contiguous(),
        "conv_weight_t": conv_weight.t().contiguous(),
        "conv_bias": conv_bias.contiguous(),
        "x_proj_t": x_proj_t.contiguous(),
        "dt_proj_t": dt_proj.t().contiguous(),
        "dt_bias": dt_bias.contiguous(),
        "A": A.contiguous(),
        "D": D.contiguous(),
    }


def _fake(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, lengths, last, keep):
    (d_inner, d_state), (batch, n_tokens, d_model) = A.shape, x.shape
    out = x.new_empty(batch, _n_out(n_tokens, last, lengths is not None), d_model)
    return out, x.new_empty((batch, chunk_count(n_tokens), d_state, d_inner) if keep else (0,))


@operator(f"mamba_layer_numba({SCHEMA}, Tensor? lengths, bool last, bool keep) -> (Tensor, Tensor)", _fake)
def _layer(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, lengths, last, keep):
    """The output, and with ``keep`` the states that the backward pass starts from, else an empty tensor."""
    arguments = _arguments(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, lengths, last)
    (d_inner, d_state), (batch, n_tokens, d_model) = A.shape, x.shape
    checkpoints = x.new_empty((batch, chunk_count(n_tokens), d_state, d_inner) if keep else (0,))
    empty = x.new_empty if lengths is None else x.new_zeros
    out = empty(batch, _n_out(n_tokens, last, lengths is not None), d_model)
    n_threads = min(get_threads(), arguments["n_items"])
    room = kernels.forward_floats(d_inner, d_state, arguments["projected"], conv_weight.shape[1])
    arguments |= {"states": x.new_empty(batch, d_inner * kernels.padded_depth(d_state))}
    arguments |= {
        "progress": _zero_counts(batch, d_inner // CHANNELS),
        "scratch": x.new_empty(n_threads, room),
        "scratch_stride": room,
        "out": out,
        "out_tokens": out.shape[1],
    }
    arguments |= {"checkpoints": checkpoints if keep else None, "out_proj_t": out_proj.t().contiguous()}
    _forward(n_threads=n_threads, **arguments)
    return out, checkpoints


def _fake_backward(dout, checkpoints, *tensors_and_last):
    *tensors, _, _ = tensors_and_last
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)


@operator(
    f"mamba_layer_numba_backward(Tensor dout, Tensor checkpoints, {SCHEMA}, Tensor? lengths, bool last) -> {GRADIENTS}",
    _fake_backward,
)
def _layer_backward(
    dout, checkpoints, x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, lengths, last
):
    """Gradients of all tensors but the checkpoints, in order."""
    arguments = _arguments(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, lengths, last)
    (d_inner, d_state), (d_model, d_conv, dt_rank) = A.shape, (x.shape[2], conv_weight.shape[1], dt_proj.shape[1])
    batch, n_groups = x.shape[0], d_inner // CHANNELS
    n_slots = n_threads = min(get_threads(), arguments["n_items"])
    dout = dout if dout.stride(2) == 1 else dout.contiguous()
    dx = x.new_empty(x.shape) if lengths is None else x.new_zeros(x.shape)
    sums = {
        "din_proj": x.new_empty(n_slots, 2 * d_inner, d_model),
        "dconv_weight_t": x.new_empty(n_slots, d_conv, d_inner),
        "dconv_bias": x.new_empty(n_slots, d_inner),
        "dx_proj": x.new_empty(n_slots, *x_proj.shape),
        "ddt_proj_t": x.new_empty(n_slots, dt_rank, d_inner),
        "ddt_bias": x.new_empty(n_slots, d_inner),
        "dA": x.new_empty(n_slots, d_inner // CHANNELS, kernels.padded_depth(d_state), CHANNELS),
        "dD": x.new_empty(n_slots, d_inner),
        "dout_proj": x.new_empty(n_slots, d_model, d_inner),
    }
    room = kernels.backward_floats(d_inner, d_state, arguments["projected"], d_conv)
    arguments |= sums
    arguments |= {"scratch": x.new_empty(n_threads, room), "scratch_stride": room, "checkpoints": checkpoints}
    arguments |= {"in_proj": in_proj.contiguous(), "x_proj": x_proj.contiguous(), "out_proj": out_proj.contiguous()}
    arguments |= {"dt_proj": _pad_columns(dt_proj).contiguous(), "n_slots": n_slots, "dx": dx}
    arguments |= {"grads": x.new_empty(batch, d_inner * kernels.padded_depth(d_state))}
    arguments |= {"later": x.new_empty(batch, d_conv - 1, d_inner)}
    arguments |= {
        "progress": _zero_counts(batch, n_groups),
        "reached": _zero_counts(batch),
        "turns": _zero_counts(n_slots),
    }
    arguments |= {"dout": dout, "dout_batch": dout.stride(0), "dout_token": dout.stride(1)}
    _backward(n_threads=n_threads, **arguments)
    total = {name: partial.sum(0) for name, partial in sums.items()}
    dA = total["dA"].transpose(1, 2).reshape(d_inner, -1)[:, :d_state].contiguous()
    dconv_weight, ddt_proj = total["dconv_weight_t"].t().contiguous(), total["ddt_proj_t"].t().contiguous()
    total |= {"dx": dx, "dconv_weight": dconv_weight, "ddt_proj": ddt_proj, "dA": dA}
    return tuple(total[f"d{name}"] for name in LayerInputs._fields)


def _setup_context(ctx, inputs, output) -> None:
    _, checkpoints = output
    *tensors, ctx.last, _ = inputs  # lengths among them
    ctx.save_for_backward(checkpoints, *tensors)
    ctx.mark_non_differentiable(checkpoints)


def _backward_rule(ctx, dout: Tensor, _: None) -> tuple:
    return *_layer_backward(dout, *ctx.saved_tensors, ctx.last), None, None, None


differentiate(_layer, _setup_context, _backward_rule, _layer_backward)
