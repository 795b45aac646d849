"""Our kernels as operators of torch: how a backend with a backward pass of its own registers both passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.autograd import forward_ad

from ftmamba.backends import BackendError

ANY_DEVICE = "CompositeExplicitAutograd"
_LIBRARY = torch.library.Library("ftmamba", "FRAGMENT")  # type: ignore[no-untyped-call]


def operator(schema: str, fake: Callable[..., Any], key: str = "CPU") -> Callable[[Callable[..., Any]], OpOverload]:
    """Make an operator of a function of tensors on the devices of a dispatch ``key``, by its torch schema.

    ``fake`` gives outputs of the same shapes.

    The decorator `torch.library.custom_op` would import torch._dynamo at the first call, which takes longer than
    everything else here.
    """

    def define(kernel: Callable[..., Any]) -> OpOverload:
        name = schema.partition("(")[0]
        _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, kernel, key)  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"ftmamba::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.ftmamba, name).default  # type: ignore[no-any-return]

    return define


def differentiate(
    forward: OpOverload, setup_context: Callable[..., None], rule: Callable[..., Any], backward: OpOverload
) -> None:
    """Let autograd go through ``forward`` by ``rule``, which calls ``backward``, and no further.

    Kernels compute first derivatives by reverse mode. Torch takes an operator without a rule as a constant; so second
    derivatives, forward mode and the transforms of torch.func, except for vmap alone, are refused. Whether autograd
    will go back is known only here (a tensor under vmap does not tell); where ``forward`` ends with an argument
    ``keep``, it becomes true then.

    Raises:
        BackendError: later, where one of these is asked for.
    """
    _register(forward, setup_context, rule)
    _register(backward, lambda ctx, inputs, output: None, _refuse)


def _register(op: OpOverload, setup_context: Callable[..., None], rule: Callable[..., Any]) -> None:
    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                output = op(*inputs)
            setup_context(ctx, inputs, output)
            return output

        backward = staticmethod(rule)
        jvp = staticmethod(_refuse)  # type: ignore[assignment]

    keeps = op._schema.arguments[-1].name == "keep"

    def autograd(*inputs: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            _refuse()
        if not torch.is_grad_enabled() and forward_ad._current_level < 0:
            with torch._C._AutoDispatchBelowAutograd():
                return op(*inputs)
        if keeps and torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in inputs):
            inputs = (*inputs[:-1], True)
        return Rule.apply(*inputs)  # type: ignore[no-untyped-call]

    _LIBRARY.impl(op._schema.name, autograd, "Autograd")  # type: ignore[no-untyped-call]


def _refuse(*_: Any) -> Any:
    raise BackendError(
        "kernels give first derivatives by backward() and torch.autograd.grad; for second derivatives, forward mode "
        "and transforms of torch.func use backend 'reference'"
    )
