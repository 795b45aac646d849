"""The gated delta rule over chunks of tokens: the corrections of a chunk solve one triangular system."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.mixers.mamba2.chunked import within


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, *, chunk: int) -> Tensor:
    """See ``ftmamba.mixers.gated_deltanet.reference``; the form of arXiv 2412.06464, section 3.3.

    With the state S at a chunk's start, corrections U solve ``(I + tril(beta K K^T, -1)) U = beta (V - K S)``, decays
    left out here. U is linear in S, so both parts are solved for in all chunks at once.
    """
    n_tokens, d_head = q.shape[1], q.shape[-1]
    chunk = min(chunk, n_tokens)
    n_chunks = -(-n_tokens // chunk)
    q, k, v, decay, beta = (
        torch.unflatten(F.pad(each.transpose(1, 2), (0, 0, 0, n_chunks * chunk - n_tokens)), 2, (n_chunks, chunk))
        for each in (q, k, v, decay.unsqueeze(-1), beta.unsqueeze(-1))
    )  # (batch, n_heads, n_chunks, chunk, ...)
    run = decay.cumsum(-2)
    left, start, ends = within(run.squeeze(-1)), run.exp(), run[..., -1:, :]
    system = beta * (k @ k.transpose(-1, -2)) * left  # its diagonal is taken as 1
    wanted = torch.cat([beta * v, beta * start * k], dim=-1)
    solved, of_state = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True).split(d_head, -1)
    weights, q = (q @ k.transpose(-1, -2)) * left, q * start
    k, kept = (k * (ends - run).exp()).transpose(-1, -2), ends.exp()
    state, outputs = torch.zeros_like(k[:, :, 0] @ v[:, :, 0]), []
    for i in range(n_chunks):
        corrections = solved[:, :, i] - of_state[:, :, i] @ state
        outputs.append(q[:, :, i] @ state + weights[:, :, i] @ corrections)
        state = kept[:, :, i] * state + k[:, :, i] @ corrections
    return torch.cat(outputs, 2)[:, :, :n_tokens].transpose(1, 2)
