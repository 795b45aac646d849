"""The layer on NVIDIA GPUs for short rows, where launches are what takes the time: two launches forward, two back."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ftmamba.backends import BackendError
from ftmamba.ops.gpu import check_dtypes, contiguous_rows, on
from ftmamba.ops.mamba_layer import GRADIENTS, SCHEMA, LayerInputs
from ftmamba.ops.mamba_layer import triton_kernels as kernels
from ftmamba.ops.operators import ANY_DEVICE, differentiate, operator
from ftmamba.ops.selective_scan import Readout
from ftmamba.ops.selective_scan.launch import LANES, SEGMENT
from ftmamba.ops.selective_scan.triton import warp_sum

# Of a row, and of all rows, without gradients and with them. Beyond, a program walks its row, or sums a weight's
# gradient over all tokens, for longer than the launches that are saved would take.
MOST_TOKENS = {False: 128, True: 64}
MOST_WORK = {False: 2**16, True: 2**13}
D_STATE = 16
TILE = 32  # of a weight
# As large as registers allow, in float32 too.
TILES = {"TOKENS": 16, "CHANNELS": 32, "WIDE": 32}


def refusal(d_model: int, d_inner: int, d_conv: int, d_state: int, dt_rank: int) -> str | None:
    """Why layers of these widths cannot run here, or None when they can."""
    if d_model % 32 or d_model > 128 or d_inner % 64 or d_inner > 256:
        return "d_model must be a multiple of 32 up to 128 and d_inner one of 64 up to 256"
    if d_state != D_STATE or dt_rank > D_STATE or d_conv > 8:
        return f"it takes {D_STATE} states, ranks of the step up to {D_STATE} and up to 8 taps"
    return None


def pays(x: Tensor) -> bool:
    """Whether this is expected to be faster than the ops one by one: for short rows, launched one by one.

    Autocast and compilers see through the ops, not into a kernel.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    trained = torch.is_grad_enabled()
    return x.shape[1] <= MOST_TOKENS[trained] and x.shape[0] * x.shape[1] <= MOST_WORK[trained]


def mamba_layer(inputs: LayerInputs, *, readout: Readout = "all", lengths: Tensor | None = None) -> Tensor:
    """See `ftmamba.ops.mamba_layer.mamba_layer`. float32, bfloat16 or float16, one for tokens and projections.

    Raises:
        BackendError: widths that the kernels do not take.
        ValueError: dtypes that they do not take.
    """
    check_dtypes("the layer", *inputs)
    x, in_proj, conv_weight, _, x_proj, dt_proj, _, A, _, out_proj = inputs
    if len({each.dtype for each in (x, in_proj, x_proj, dt_proj, out_proj)}) > 1:
        raise ValueError("the layer in triton takes tokens and projections of one dtype")
    if reason := refusal(x.shape[2], *conv_weight.shape, A.shape[1], dt_proj.shape[1]):
        raise BackendError(f"backend 'triton' cannot run this layer: {reason}")
    return _layer(*inputs, None if lengths is None else lengths.to(x.device), readout == "last", False)[0]  # type: ignore[no-any-return]


def _outputs(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, lengths, last, keep):
    """The output and, to ``keep``: u, v, z, dt and y; ranks, B and C; states every SEGMENT tokens."""
    (batch, n_tokens, d_model), d_inner = x.shape, A.shape[0]
    kept = x.new_empty((5, batch, n_tokens, d_inner) if keep else (0,))
    p = x.new_empty((batch, n_tokens, 3 * D_STATE) if keep else (0,))
    checkpoints = _float32(x, batch, triton.cdiv(n_tokens, SEGMENT), D_STATE, d_inner) if keep else _float32(x, 0)
    return x.new_empty(batch, 1 if last else n_tokens, d_model), kept, p, checkpoints


@operator(
    f"mamba_layer_triton({SCHEMA}, Tensor? lengths, bool last, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
    _outputs,
    ANY_DEVICE,
)
def _layer(x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, lengths, last, keep):
    weights = (in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj)
    out, kept, p, checkpoints = outputs = _outputs(x, *weights, lengths, last, keep)
    if x.numel() == 0:
        return outputs
    x = contiguous_rows(x)
    in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj = (each.contiguous() for each in weights)
    batch, n_tokens, _ = x.shape
    if not keep:
        kept, p = x.new_empty(5, batch, n_tokens, A.shape[0]), x.new_empty(batch, n_tokens, 3 * D_STATE)
    u, v, z, dt, y = kept
    n_tiles = triton.cdiv(n_tokens, TILES["TOKENS"])
    options = _options(x, A) | {"KEEP": keep}
    with on(x.device):
        kernels.project_kernel[(batch * n_tiles,)](
            x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, u, v, z, dt, p,
            n_tokens, n_tiles, x.stride(0), x.stride(1),
            **options, **TILES, RANK=dt_proj.shape[1], K=conv_weight.shape[1], num_warps=4,
        )  # fmt: skip
        kernels.scan_project_kernel[(batch,)](
            v, dt, A, p, D, z, dt_bias, out_proj, x if lengths is None else lengths, y, out, checkpoints,
            n_tokens, checkpoints.shape[1] if keep else 0, 0,
            **options, **TILES, **_walk(A), RAGGED=lengths is not None, LAST=last, UNROLL=2, num_stages=1,
        )  # fmt: skip
    return outputs


def _gradients(dout, kept, p, checkpoints, *inputs):
    return tuple(each.new_empty(each.shape) for each in inputs[:10])


@operator(
    f"mamba_layer_triton_backward(Tensor dout, Tensor kept, Tensor p, Tensor checkpoints, {SCHEMA}, Tensor? lengths, "
    f"bool last) -> {GRADIENTS}",
    _gradients,
    ANY_DEVICE,
)
def _layer_backward(dout, kept, p, checkpoints, *inputs):
    """Gradients of the layer's inputs, in order."""
    grads = _gradients(dout, kept, p, checkpoints, *inputs)
    *tensors, lengths, last = inputs
    if tensors[0].numel() == 0:
        return tuple(grad.zero_() for grad in grads)
    x, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj = (t.contiguous() for t in tensors)
    (batch, n_tokens, _), d_inner = x.shape, A.shape[0]
    dout, (u, v, z, dt, y) = dout.contiguous(), kept
    dy, du, dv, dz, ddt = torch.empty_like(kept)
    dp = torch.empty_like(p)
    walk = _walk(A)
    scratch = _float32(x, batch, min(SEGMENT, n_tokens), D_STATE, walk["BLOCK_D"])
    d_tokens = _float32(x, batch, walk["BLOCK_D"] // LANES, n_tokens, 2 * D_STATE)
    d_channels = _float32(x, batch, D_STATE + 2, d_inner)
    options = _options(x, A) | {"RANK": dt_proj.shape[1], "K": conv_weight.shape[1]}
    options |= {"RAGGED": lengths is not None, "LAST": last}
    ends = x if lengths is None else lengths
    n_products = 3 * x.shape[2] // TILE + triton.cdiv(x_proj.shape[0], TILE) + 1
    n_tiles = (n_products + conv_weight.shape[1] + 1 + D_STATE + 2) * d_inner // TILE
    with on(x.device):
        kernels.layer_adjoint_kernel[(batch,)](
            dout, in_proj, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A, D, out_proj, ends,
            u, v, z, dt, p, checkpoints, scratch, d_tokens, dy, du, dv, dz, ddt, dp, grads[0], d_channels,
            n_tokens, checkpoints.shape[1], scratch.shape[1], 0,
            **options, **TILES, **walk, **warp_sum(D_STATE), num_stages=1,
        )  # fmt: skip
        in_grad, *others, out_grad = grads[1:]
        kernels.weights_kernel[(n_tiles,)](
            x, dout, ends, u, v, y, p, du, dv, dz, ddt, dp, d_channels, in_grad, *others, out_grad,
            batch, n_tokens, **options, TILE=TILE, ROWS=64, num_warps=4, num_stages=2,
        )  # fmt: skip
    return grads


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.last, _ = inputs  # lengths among them
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # else each backward pass would fill gradients of what is kept with zeros


def _backward(ctx: Any, dout: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    return *_layer_backward(dout, *ctx.saved_tensors, ctx.last), None, None, None


differentiate(_layer, _setup_context, _backward, _layer_backward)


def _options(x: Tensor, A: Tensor) -> dict[str, Any]:
    precise = torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    precision = "ieee" if precise else "tf32"
    # Left alone, ptxas spills to make room for programs that are not there.
    return {"D_MODEL": x.shape[2], "D_INNER": A.shape[0], "N": D_STATE, "PRECISION": precision, "maxnreg": 255}


def _walk(A: Tensor) -> dict[str, int]:
    """A thread a channel."""
    block_d = triton.next_power_of_2(A.shape[0])
    return {"BLOCK_D": block_d, "ALIGN": 16, "SEGMENT": SEGMENT, "num_warps": block_d // LANES}


def _float32(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)
