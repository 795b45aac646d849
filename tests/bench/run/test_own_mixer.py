"""A mixer from a module of the user's: measured, and compared with a reference where it names one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.plan.cell import Cell
from bench.plan.tower import tower_cost
from bench.run.profiler.work import step_work
from bench.run.verify import WrongResultError, verify

SPEC = """
from dataclasses import dataclass
from ftmamba.backends import ANY, Backend, Backends
from ftmamba.mixers.mamba import MambaSpec
from ftmamba.spec import MixerSpec
from toy_layers import Layer, SlowerDecay, Mamba

@dataclass(frozen=True, kw_only=True)
class Toy(MixerSpec):
    backends = Backends(__name__, Backend(name="torch", about="plain torch", devices=ANY))
    layer = "toy_layers:Layer"

@dataclass(frozen=True, kw_only=True)
class Peer(MambaSpec):
    backends = Toy.backends
    layer = ":Mamba"
    peer_of = "mamba"
    chunk: int = 8

@dataclass(frozen=True, kw_only=True)
class WrongPeer(Peer):
    layer = ":SlowerDecay"
"""
LAYERS = """
from torch import nn
from ftmamba import MambaSpec
from ftmamba.mixers.mamba.layer import MambaMixer

class Layer(nn.Linear):
    def __init__(self, spec, d_model):
        super().__init__(d_model, d_model)

    def forward(self, x, read=None):
        y = super().forward(x.cumsum(1))
        return y if read is None else y[:, read].unsqueeze(1)

class Mamba(MambaMixer):
    def __init__(self, spec, d_model):
        super().__init__(MambaSpec(d_state=spec.d_state, backend="reference"), d_model)

class SlowerDecay(Mamba):
    def _decay_rates(self):
        return super()._decay_rates() / 2
"""


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_spec.py").write_text(SPEC, encoding="utf-8")
    (tmp_path / "toy_layers.py").write_text(LAYERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("toy_spec", "toy_layers"):
        sys.modules.pop(name, None)


def cell(name: str, task: str = "train_step") -> Cell:
    sizes = {"n_tokens": 9, "batch_size": 2, "n_layers": 2, "d_model": 16}
    return Cell(task=task, mixer=f"toy_spec:{name}", backend="torch", **sizes)


def test_a_mixer_without_a_reference_is_measured_and_not_compared() -> None:
    assert verify(cell("Toy")) == "not compared: toy_spec:Toy has no reference"
    assert tower_cost(cell("Toy")) is None
    assert step_work(cell("Toy")) == {}


@pytest.mark.parametrize("task", ["forward", "train_step"])
def test_a_mixer_that_names_a_layer_of_ours_is_held_to_it(task: str) -> None:
    assert verify(cell("Peer", task)).startswith("off the float64 reference by")
    with pytest.raises(WrongResultError, match="backend torch is off by"):
        verify(cell("WrongPeer", task))
