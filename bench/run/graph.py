"""A step as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GRAPH_WARM_UP = 3  # iterations on a side stream before capture, so that libraries' work space and optimizer state exist


class GraphedStep:
    """A step captured as one CUDA graph, forward, backward and optimizer together (torch.cuda.graphs).

    The capture happens on the first call, so that the memory pass sees the graph's own memory pool. Every call replays
    the same kernels on the same tensors, which is what a step on static batches does.

    Args:
        step: one iteration; it must not synchronise with the host.
    """

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self.step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor

    def __call__(self) -> Tensor:
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()
        return self._result

    def _capture(self) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(GRAPH_WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._result = self.step()
        return graph
