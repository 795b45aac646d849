"""An optimizer whose every step is the same work on the same numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class StandingAdamW:
    """AdamW (arXiv 1711.05101) in one fused call at a learning rate of zero; state is made in the first step.

    A rate of zero costs the same and keeps every iteration at the same numbers: over thousands of iterations on one
    batch the gradients would otherwise sink into denormal numbers, which processors handle slowly. The functional form
    is what ``torch.optim.AdamW`` calls; the class itself imports torch's compiler, over a second in every process.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._steps: list[Tensor] = []

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its gradient, and forget the gradient."""
        trained = [parameter for parameter in self._parameters if parameter.grad is not None]
        if not self._steps:
            self._means = [torch.zeros_like(parameter) for parameter in trained]
            self._squares = [torch.zeros_like(parameter) for parameter in trained]
            self._steps = [torch.zeros((), device=parameter.device) for parameter in trained]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        adamw(
            list(trained), gradients, self._means, self._squares, [], self._steps, fused=True, amsgrad=False,
            maximize=False, lr=0.0, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01,
        )  # fmt: skip
        for parameter in self._parameters:
            parameter.grad = None
