"""A step as one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

GRAPH_WARM_UP = 3  # iterations on a side stream before capture, so that libraries' work space and optimizer state exist


@functools.cache
def side_stream() -> torch.cuda.Stream:
    """The process' one stream for captures: libraries keep work space for each stream (cuBLAS 32 MiB on Hopper)."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class GraphedStep:
    """A step captured as one CUDA graph, forward, backward and optimizer together (torch.cuda.graphs).

    The capture happens on the first call, so that the memory pass sees the graph's own memory pool. Every call replays
    the same kernels on the same tensors, which is what a step on static batches does.

    Args:
        step: one iteration; it must not synchronise with the host.
        times: iterations in the graph, one after the other; more than one where an iteration is shorter than a launch.
    """

    def __init__(self, step: Callable[[], Tensor], times: int = 1) -> None:
        self.step, self._times = step, times
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor

    def __call__(self) -> Tensor:
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()
        return self._result

    def _capture(self) -> torch.cuda.CUDAGraph:
        side = side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(GRAPH_WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            for _ in range(self._times):
                self._result = self.step()
        return graph
