"""Tells which region of a step the program is in, without a word of it in the model core.

Forward, a module is seen as it is called (not by hooks, with which torch's own Transformer layer takes another path),
a projection by the weight that ``linear`` is given, an op as its backend's function is called.

Backward, the autograd engine runs the nodes of one device in strictly descending order of the sequence numbers that
they got in the forward pass. So the regions come in reverse, and a hook on the first node of each stretch tells when
one begins. The node that adds up a weight's gradient has no number; it runs straight after the node that made it.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.records.region import Region
from ftmamba.blocks import Block
from ftmamba.encoder import FTEncoder
from ftmamba.two_tower import TwoTower

T = TypeVar("T")

OVERHEAD = Region(name="overhead", phase="update")  # the instrument's own work between the passes
_BY_PATH = {"mixer_norm": "norm", "ffn_norm": "norm", "mixer": "mixer", "ffn": "feed_forward"}
_BY_CLASS = {nn.LayerNorm: "norm", nn.Conv1d: "conv1d", nn.MultiheadAttention: "attention"}
_MODELS = (FTEncoder, TwoTower)
_HOLD_PROJECTIONS = ("mixer", "block", "attention")


class Instrument:
    """While it is entered, ``switch`` is called whenever a step passes from one region to another. It may be entered
    again.

    Args:
        switch: takes the region that begins; may be called by the thread that runs the backward pass.
        outside: what the code of a step outside its model counts as.
        remember: whether ``region_of`` shall know the nodes of all steps, or those of the last one only.
    """

    def __init__(self, switch: Callable[[Region], None], outside: Region, *, remember: bool = False) -> None:
        self._switch = switch
        self._outside = outside
        self._remember = remember
        self._stack = [outside]
        self._starts: list[int] = []
        self._began: list[Region] = []
        self._regions: dict[nn.Module, Region] = {}
        self._projections: dict[int, Region] = {}
        self._undo = contextlib.ExitStack()

    def run(self, step: Callable[[], T]) -> T:
        """One step, from outside its model."""
        self._stack = [self._outside]
        if not self._remember:
            self._starts.clear()
            self._began.clear()
        self._move(self._outside)
        return step()

    def region_of(self, sequence_nr: int) -> Region | None:
        """The forward region in which an autograd node was made, None where that is unknown."""
        at = bisect.bisect_right(self._starts, sequence_nr) - 1
        return self._began[at] if at >= 0 else None

    def __enter__(self) -> Instrument:
        self._patch(nn.Module, "__call__", self._module)
        self._patch(nn.functional, "linear", self._linear)
        self._patch(Tensor, "backward", self._backward)
        for module, op in loaded_ops():
            self._patch(module, op, functools.partial(self._op, op))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _patch(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, wrap(original))
        self._undo.callback(setattr, owner, name, original)

    def _move(self, region: Region) -> None:
        self._starts.append(torch._C._autograd._get_sequence_nr())
        self._began.append(region)
        self._switch(region)

    def _within(self, region: Region, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._stack.append(region)
        self._move(region)
        result = call(*args, **kwargs)
        self._stack.pop()
        self._move(self._stack[-1])
        return result

    def _module(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def in_region(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if isinstance(module, _MODELS) and module not in self._regions:
                self._regions |= module_regions(module)
                self._projections |= projection_regions(module)
            region = self._regions.get(module)
            within: Callable[..., Any] = call if region is None else functools.partial(self._within, region, call)
            return within(module, *args, **kwargs)

        return in_region

    def _linear(self, linear: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def in_region(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            region = self._projections.get(id(weight if weight._base is None else weight._base))
            within: Callable[..., Tensor] = (
                linear if region is None else functools.partial(self._within, region, linear)
            )
            return within(input, weight, bias)

        return in_region

    def _op(self, name: str, op: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._within(self._stack[-1].inner(name), op, *args, **kwargs)

    def _backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        def in_regions(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            self._move(OVERHEAD)
            handles = [
                node.register_prehook(lambda _, region=region.backward: self._switch(region))
                for node, region in self._stretches(loss)
            ]
            self._switch(self._outside.backward)
            backward(loss, *args, **kwargs)
            self._switch(OVERHEAD)
            for handle in handles:
                handle.remove()
            self._switch(Region(name="optimizer", phase="update"))

        return in_regions

    def _stretches(self, loss: Tensor) -> Iterator[tuple[Any, Region]]:
        """The first node to run of each stretch of nodes of one region, from the last region to the first."""
        nodes = {node._sequence_nr(): node for node in graph_nodes(loss) if node.next_functions}
        before = None
        for number in sorted(nodes, reverse=True):
            region = self.region_of(number)
            if region is not None and region != before:
                yield nodes[number], region
                before = region


def loaded_ops() -> list[tuple[Any, str]]:
    """Every backend module that is imported, with the name of its op's function."""
    named = [(name.split("."), module) for name, module in [*sys.modules.items()] if name.startswith("ftmamba.ops.")]
    return [(module, path[2]) for path, module in named if len(path) == 4 and callable(getattr(module, path[2], None))]


def module_regions(model: FTEncoder | TwoTower) -> dict[nn.Module, Region]:
    """The region that each module of a tower, or of two towers, is; modules inside a region have none of their own."""
    if isinstance(model, TwoTower):
        return {
            model: Region(name="scoring"),
            **_tower_regions(model.user, "user"),
            **_tower_regions(model.content, "content"),
        }
    return _tower_regions(model, "")


def _tower_regions(encoder: FTEncoder, tower: str) -> dict[nn.Module, Region]:
    regions = {
        encoder: Region(name="readout", tower=tower),
        encoder.tokenizer: Region(name="tokenizer", tower=tower),
        encoder.head: Region(name="head", tower=tower),
    }
    for i, block in enumerate(encoder.blocks):
        regions[block] = Region(name="residual" if isinstance(block, Block) else "block", tower=tower, block=i)
        for path, module in block.named_modules():
            name = _BY_PATH.get(path) or _BY_CLASS.get(type(module))
            if name is not None and not isinstance(module, nn.Identity) and not path.startswith("ffn."):
                regions[module] = Region(name=name, tower=tower, block=i)
    return regions


def projection_regions(model: FTEncoder | TwoTower) -> dict[int, Region]:
    """By the identity of a weight matrix in a mixer: region ``in_proj`` for ``mixer.in_proj.weight``."""
    found = {}
    for module, region in module_regions(model).items():
        if region.name in _HOLD_PROJECTIONS:
            for path, weight in module.named_parameters():
                name = path.removesuffix(".weight").removesuffix("_weight").rpartition(".")[2]
                if path.endswith("weight") and weight.dim() == 2:
                    found[id(weight)] = region.inner(name)
    return found


def graph_nodes(loss: Tensor) -> list[Any]:
    """All nodes of the graph that ends in ``loss``."""
    seen = {loss.grad_fn}
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        assert node is not None
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return list(seen)
