"""One training on several processes: ranks joined by torch.distributed, each with its part of every global batch.

All ranks draw the same global batch, so that the number of processes changes no result beyond rounding. A process that
has joined nothing is rank 0 of 1, and nothing here does anything to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ftmamba.losses import EmbeddedPairs

_place = [0, 1]  # rank, ranks


def rank() -> int:
    """This process' number."""
    return _place[0]


def n_ranks() -> int:
    """How many processes train together."""
    return _place[1]


def join(number: int, n: int, device: str, meeting: str) -> None:
    """Become a rank; returns when all have come.

    Args:
        number: of this one.
        n: of all.
        device: on ``cuda`` each rank takes the GPU of its number.
        meeting: path of a file that none has used yet.
    """
    if device == "cuda":
        torch.cuda.set_device(number)
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=number, world_size=n)
    _place[:] = number, n


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What is made in here is of this process only."""
    before = [*_place]
    _place[:] = 0, 1
    try:
        yield
    finally:
        _place[:] = before


def part(n_rows: int) -> slice:
    """This rank's rows of a batch, which the ranks divide evenly."""
    own = n_rows // n_ranks()
    return slice(rank() * own, (rank() + 1) * own)


def joined(module: nn.Module) -> nn.Module:
    """The module with gradients that are means over ranks (DistributedDataParallel)."""
    return module if n_ranks() == 1 else nn.parallel.DistributedDataParallel(module)


def gathered(pairs: EmbeddedPairs) -> tuple[EmbeddedPairs, int]:
    """This rank's users with the items of all ranks, gradients included; and where its own items begin.

    The mean over ranks of the softmax loss of these is that of the global batch, and so are its gradients: that of an
    item comes back from every rank whose users it was a negative for.
    """
    items = torch.cat(torch.distributed.nn.functional.all_gather(pairs.items))  # type: ignore[attr-defined]
    rows, log_q = (_all(each) for each in (pairs.item_rows, pairs.log_q))
    return pairs._replace(items=items, item_rows=rows, log_q=log_q), rank() * len(pairs.users)


def _all(own: Tensor) -> Tensor:
    parts = [torch.empty_like(own) for _ in range(n_ranks())]
    torch.distributed.all_gather(parts, own.contiguous())
    return torch.cat(parts)


def mean(value: Tensor) -> Tensor:
    """The mean over ranks."""
    if n_ranks() > 1:
        torch.distributed.all_reduce(value)
        value /= n_ranks()
    return value


def from_first(find: Callable[[], Any]) -> Any:
    """What rank 0 finds, on every rank."""
    if n_ranks() == 1:
        return find()
    found = [find() if rank() == 0 else None]
    torch.distributed.broadcast_object_list(found)
    return found[0]
