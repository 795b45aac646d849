"""The Mamba-1 layer (Gu and Dao, arXiv 2312.00752, section 3.4), without norm and residual."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.mamba import MambaSpec
from ftmamba.ops import causal_conv, mamba_layer, selective_scan
from ftmamba.ragged import check_read, valid, without_looking_ahead
from ftmamba.state import Recurrent, Steps

# Without gradients a CPU takes a stretch of tokens at a time, of at most so many numbers a tensor: the system need not
# map fresh memory for each step, which takes as long as the layer itself. Shorter stretches stay in cache but leave a
# wide layer at B = 1 too little to share out: 2**19 took 1.1 to 1.3 times as long as the training forward pass, 2**22
# about as long. Where so many rows would leave fewer than these tokens, it takes some of the rows at a time.
STRETCH_NUMBERS = 2**22
STRETCH_TOKENS = 32


class MambaMixer(Steps, nn.Module):
    """Gated selective state space layer; parameters are named and shaped as in mamba_ssm's ``Mamba``.

    Args:
        spec: widths and backend; ``auto`` takes the preferred backend of the device that the input is on.
        d_model: width of a token.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: MambaSpec, d_model: int) -> None:
        super().__init__()
        d_inner, dt_rank = spec.d_inner(d_model), spec.dt_rank(d_model)
        self.spec = spec
        self.d_inner = d_inner
        self.split = [dt_rank, spec.d_state, spec.d_state]
        self._prepare()

        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        # Holds the weights in the layout that checkpoints use; the op itself reads them as a (d_inner, d_conv) matrix.
        self.conv1d = nn.Conv1d(d_inner, d_inner, spec.d_conv, groups=d_inner)
        self.x_proj = nn.Linear(d_inner, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, spec.d_state + 1).float()).repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self._init_dt(dt_rank)

    def _prepare(self) -> None:
        for scan in selective_scan.BACKENDS.prepare(self.spec.backend, usable_devices()):
            mamba_layer.fused_beside(scan)
        causal_conv.BACKENDS.prepare(conv_backend(self.spec.backend), usable_devices())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def _init_dt(self, dt_rank: int, low: float = 1e-3, high: float = 1e-1) -> None:
        """Step sizes log-uniform in [low, high] at the start (arXiv 2312.00752, section 3.6)."""
        bound = dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        step = torch.exp(torch.rand(self.d_inner) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        n_tokens = x.shape[1]
        if n_tokens < 1:
            raise ValueError("a Mamba layer needs at least one token")
        if lengths is None and read is not None and read % n_tokens != n_tokens - 1:
            raise ValueError("a causal mixer can be read only at the last token")
        scan = selective_scan.BACKENDS.load_for(self.spec.backend, x.device.type, x.dtype == torch.float64)
        fused = mamba_layer.fused_beside(scan)
        dt_rank, d_state, _ = self.split
        widths = (x.shape[2], self.d_inner, self.spec.d_conv, d_state, dt_rank)
        if fused is not None and fused.refusal(*widths) is None and fused.pays(x):
            return self._run_fused(fused, x, read, lengths)
        if lengths is not None:
            return without_looking_ahead(self, x, read, lengths)
        # A graph must not be bound to the batches for which a stretch holds all tokens.
        if x.device.type == "cuda" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._mix(x, None, read)[0]
        stretch = max(STRETCH_NUMBERS // (max(x.shape[0], 1) * self.d_inner), STRETCH_TOKENS)
        n_rows = max(STRETCH_NUMBERS // (min(stretch, n_tokens) * self.d_inner), 1)
        outputs = [self._by_stretches(rows, stretch, read) for rows in torch.split(x, n_rows)]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _by_stretches(self, x: Tensor, stretch: int, read: int | None) -> Tensor:
        outputs, state = [], None
        for first in range(0, x.shape[1], stretch):
            earlier = min(first, self.spec.d_conv - 1)  # tokens that the convolution still sees
            out, state = self._mix(x[:, first - earlier : first + stretch], state, read, earlier)
            outputs.append(out)
        return torch.cat(outputs, dim=1) if read is None and len(outputs) > 1 else out

    def _mix(self, x: Tensor, state: Tensor | None, read: int | None, earlier: int = 0) -> tuple[Tensor, Tensor]:
        """Output and last state of the tokens behind the first ``earlier`` ones, from the state before them."""
        if read is None:
            u, z = self.in_proj(x).chunk(2, dim=-1)
            return self._scan(u, z[:, earlier:], state, read, earlier)
        in_weight, gate_weight = self.in_proj.weight.chunk(2)
        return self._scan(F.linear(x, in_weight), F.linear(x[:, -1:], gate_weight), state, read, earlier)

    def _start(self, batch: int, room: int | None) -> Recurrent:
        weight, spec = self.in_proj.weight, self.spec
        state = weight.new_zeros(batch, self.d_inner, spec.d_state, dtype=self._decay_rates().dtype)
        return Recurrent(weight.new_zeros(batch, spec.d_conv - 1, self.d_inner), state)

    @torch.no_grad()
    def prefill(self, x: Tensor, lengths: Tensor, room: int | None) -> tuple[Tensor, Recurrent]:
        """See ``ftmamba.state``."""
        (u, z), before = self.in_proj(x).chunk(2, dim=-1), self.spec.d_conv - 1
        y, state = self._scan(u, z, None, None, 0, valid(lengths, x.shape[1]))
        places = lengths[:, None] + torch.arange(before, device=x.device)
        seen = F.pad(u, (0, 0, before, 0))[torch.arange(len(x), device=x.device)[:, None], places]
        return y, Recurrent(seen, state)

    @torch.no_grad()
    def step(self, x: Tensor, state: Recurrent) -> tuple[Tensor, Recurrent]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        seen = torch.cat([state.conv, u], dim=1)
        y, scanned = self._scan(seen, z, state.state, None, self.spec.d_conv - 1)
        return y, Recurrent(seen[:, 1:], scanned)

    def packed(self) -> dict[str, Tensor | int] | None:
        """The weights as ``ftmamba.tower_step`` reads them; None where its kernel does not take this layer."""
        (rank, d_state, _), d_inner = self.split, self.d_inner
        if type(self) is not MambaMixer or selective_scan.BACKENDS.resolve(self.spec.backend, "cpu") != "numba":
            return None
        from ftmamba.ops.simd import CHANNELS

        if d_inner % CHANNELS or d_state % CHANNELS:
            return None
        steps, states = (each.detach().t() for each in torch.split(self.x_proj.weight, [rank, 2 * d_state]))
        x_proj = torch.cat([F.pad(steps, (0, -rank % CHANNELS)), states], dim=1)
        x_proj = F.pad(x_proj, (0, -x_proj.shape[1] % (4 * CHANNELS)))
        in_proj, out_proj = self.in_proj.weight.detach().t(), self.out_proj.weight.detach().t()
        return {
            "is_attention": 0,
            "in_weight": in_proj,
            "in_width": 2 * d_inner,
            "conv_weight": self.conv1d.weight.detach().squeeze(1).t(),
            "conv_bias": self.conv1d.bias,  # type: ignore[dict-item]
            "d_conv": self.spec.d_conv,
            "d_inner": d_inner,
            "d_state": d_state,
            "x_proj": x_proj,
            "x_width": x_proj.shape[1],
            "rank": rank,
            "B_column": rank + -rank % CHANNELS,
            "dt_proj": self.dt_proj.weight.detach().t(),
            "dt_bias": self.dt_proj.bias,
            "A": -self.A_log.detach().double().exp() / math.log(2),  # rates of powers of 2
            "D": self.D,
            "out_weight": out_proj,
        }

    def _scan(
        self,
        u: Tensor,
        z: Tensor,
        state: Tensor | None,
        read: int | None,
        earlier: int,
        there: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        where = (u.device.type, u.dtype == torch.float64)
        scan = selective_scan.BACKENDS.load_for(self.spec.backend, *where)
        conv = causal_conv.BACKENDS.load_for(conv_backend(self.spec.backend), *where)
        u = conv.causal_conv(u, self.conv1d.weight.squeeze(1), self.conv1d.bias)[:, earlier:]
        if read is None:
            dt, B, C = torch.split(self.x_proj(u), self.split, dim=-1)
        else:
            every_weight, C_weight = torch.split(self.x_proj.weight, [sum(self.split[:2]), self.split[2]])
            dt, B = torch.split(F.linear(u, every_weight), self.split[:2], dim=-1)
            C = F.linear(u[:, -1:], C_weight)
        dt = F.linear(dt, self.dt_proj.weight)
        if there is not None:  # the state stands still where a step's softplus is 0
            dt = dt.masked_fill(~there.unsqueeze(-1), -1e4)
        inputs = selective_scan.ScanInputs(u, dt, self._decay_rates(), B, C, self.D, z, self.dt_proj.bias, state)
        y, state = scan.selective_scan(inputs, readout="all" if read is None else "last")
        return self.out_proj(y), state

    def _run_fused(self, fused: ModuleType, x: Tensor, read: int | None, lengths: Tensor | None) -> Tensor:
        if lengths is not None:
            check_read(read)
        inputs = mamba_layer.LayerInputs(
            x,
            self.in_proj.weight,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,  # type: ignore[arg-type]
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self._decay_rates(),
            self.D,
            self.out_proj.weight,
        )
        return fused.mamba_layer(inputs, readout="all" if read is None else "last", lengths=lengths)  # type: ignore[no-any-return]

    def _decay_rates(self) -> Tensor:
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))


def conv_backend(scan_backend: str) -> str:
    """The convolution that goes with a scan: the backend of the same name, else plain torch."""
    if scan_backend == "auto" or scan_backend in causal_conv.BACKENDS:
        return scan_backend
    return "reference"
