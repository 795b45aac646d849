"""A training that was cut off goes on where it was, to the same result: its state in one safetensors file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

VERSION = "1"


@dataclass(frozen=True)
class State:
    """What has to be known to go on.

    Attributes:
        model: weights.
        best: weights that were best on validation; empty before the first look.
        optimizer: each parameter's moments and step, as ``INDEX.NAME``.
        generator: state of the generator that hides ids.
        progress: counters and the learning curve, plain data.
    """

    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    generator: Tensor
    progress: Mapping[str, Any]


def save(path: Path, key: str, state: State) -> None:
    """Write the state whole or not at all; ``key`` names the training it belongs to."""
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part in ("model", "best", "optimizer")
        for name, tensor in getattr(state, part).items()
    }
    tensors["generator"] = state.generator.cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    save_file(tensors, new, {"version": VERSION, "key": key, "progress": json.dumps(dict(state.progress))})
    new.replace(path)


def load(path: Path, key: str, device: str) -> State | None:
    """The state of the training ``key``; None where there is none, or one that cannot be read."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    try:
        with safe_open(path, framework="pt", device=device) as file:
            about = file.metadata() or {}
            if about.get("version") != VERSION or about.get("key") != key:
                return None
            for name in file.keys():  # noqa: SIM118 (no mapping, only something with keys)
                part, _, rest = name.partition(".")
                if rest:
                    parts[part][rest] = file.get_tensor(name)
            return State(generator=file.get_tensor("generator").cpu(), progress=json.loads(about["progress"]), **parts)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def forget(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and steps of every parameter that has some."""
    return {
        f"{index}.{name}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state[parameter].items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        optimizer.state[parameters[int(index)]][name] = value.clone()


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
