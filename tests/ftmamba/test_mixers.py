"""Mixers found by name or in a user's own module: what they declare, how text becomes one, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ftmamba import EncoderSpec, FeatureSpec, FTEncoder
from ftmamba.cost import block_cost, encoder_cost, encoder_params
from ftmamba.features import random_batch
from ftmamba.mixers import NAMES, MixerError, build_mixer, defaults, find, parse, spell

ROOT = Path(__file__).resolve().parents[2]
OWN = "toymix.mean:MeanSpec"
SPEC = """
from dataclasses import dataclass
from ftmamba.backends import ANY, Backend, Backends
from ftmamba.mixers.mamba import MambaSpec
from ftmamba.spec import MixerSpec, parameter

@dataclass(frozen=True, kw_only=True)
class MeanSpec(MixerSpec):
    share: float = parameter(0.5, low=0, high=1, about="of the mean of all tokens in each")
    hops: int = 1
    backends = Backends(__name__, Backend(name="torch", about="plain torch", devices=ANY))
    layer = "layers:Mean"

@dataclass(frozen=True, kw_only=True)
class ShortMamba(MambaSpec):
    d_conv: int = parameter(2, low=1)

class Unfinished(MixerSpec):
    layer = "layers:Mean"

@dataclass(frozen=True, kw_only=True)
class Untyped(MeanSpec):
    width: "Width" = parameter(1)

class NoLayer(MeanSpec):
    layer = "nowhere:Mean"
"""
LAYERS = """
from torch import nn

class Mean(nn.Module):
    def __init__(self, spec, d_model):
        super().__init__()
        self.share = spec.share

    def forward(self, x, read=None):
        y = x + self.share * (x.mean(1, keepdim=True) - x)
        return y if read is None else y[:, read].unsqueeze(1)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toymix"
    package.mkdir()
    for name, text in {"__init__": "", "mean": SPEC, "layers": LAYERS, "broken": "1 / 0"}.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("toymix")]:
        del sys.modules[name]


def test_a_folder_is_a_mixer_and_asking_costs_no_torch() -> None:
    folders = {each.parent.name for each in (ROOT / "ftmamba/mixers").glob("*/__init__.py")}
    assert set(NAMES) == folders
    assert NAMES[:2] == ("mamba", "attention")
    assert [find(name).is_peer() for name in NAMES] == sorted(find(name).is_peer() for name in NAMES)
    assert {name: find(name).name for name in NAMES} == {name: name for name in NAMES}
    code = "import sys, ftmamba.mixers as m; m.parse('mamba:d_state=8'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "name", "params"),
    [
        ("mamba", "mamba", {}),
        ("mamba:d_state=32:expand=4", "mamba", {"d_state": 32, "expand": 4}),
        ("attention:d_ffn=64:first_norm=True", "attention", {"d_ffn": 64, "first_norm": True}),
        ("attention:ffn_activation=relu", "attention", {"ffn_activation": "relu"}),
        (f"{OWN}:share=0.25:hops=3", OWN, {"share": 0.25, "hops": 3}),
        (OWN, OWN, {}),
    ],
)
def test_text_becomes_a_mixer_and_back(text: str, name: str, params: dict[str, object]) -> None:
    assert parse(text) == (name, params)
    assert spell(name, {**defaults(name), **params}) == text
    assert {key: type(value) for key, value in parse(text)[1].items()} == {k: type(v) for k, v in params.items()}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lstm", "unknown mixer 'lstm'; choose from mamba, attention"),
        ("mamba:d_stat=3", "mamba has no parameter 'd_stat'; choose from d_state, d_conv, expand"),
        ("mamba:backend=numba", "mamba has no parameter 'backend'"),
        ("mamba:d_state", "give d_state once, as d_state=VALUE"),
        ("mamba:d_state=2:d_state=3", "give d_state once"),
        ("mamba:d_state=0", "mamba: d_state takes whole numbers from 1 to 1,024, got 0"),
        ("mamba:d_state=1.5", "mamba: d_state takes whole numbers from 1 to 1,024, got '1.5'"),
        ("attention:ffn_activation=gelu", "attention: ffn_activation takes reglu or relu, got 'gelu'"),
        (f"{OWN}:share=1.5", f"{OWN}: share takes numbers from 0 to 1, got 1.5"),
        (f"{OWN}:width=1", f"{OWN} has no parameter 'width'; choose from share, hops"),
        ("nowhere_at_all.mixer:Spec", "cannot import Spec from nowhere_at_all.mixer: ModuleNotFoundError"),
        ("toymix.broken:Spec", "cannot import Spec from toymix.broken: ZeroDivisionError: division by zero"),
        ("toymix.mean:Median", "cannot import Median from toymix.mean: AttributeError"),
        ("toymix.mean:parameter", "toymix.mean:parameter is no mixer: it does not derive from ftmamba.spec.MixerSpec"),
        ("toymix.mean:Unfinished", "toymix.mean:Unfinished is no mixer: it does not declare backends"),
        ("toymix.mean:Untyped", "the type of a parameter cannot be read: name 'Width' is not defined"),
        ("attention:d_ffn=0", "attention: d_ffn takes whole numbers or none from 1 to 1,000,000, got 0"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(MixerError) as error:
        parse(text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_own_mixer_makes_a_tower_without_a_cost() -> None:
    mixer = find(OWN)(share=0.25)
    assert mixer.name == OWN
    x = torch.tensor([[[0.0], [4.0]]])
    assert build_mixer(mixer, 1)(x).tolist() == [[[0.5], [3.5]]]
    spec, features = EncoderSpec(mixer=mixer, d_model=8, n_layers=2), FeatureSpec(3, (4,))
    assert FTEncoder(spec, features)(random_batch(features, 5, torch.Generator().manual_seed(0))).shape == (5, 8)
    assert encoder_cost(spec, features, 5, "forward") is None
    assert block_cost(spec, 4, 5, training=True) is None
    with pytest.raises(ValueError, match="has no model of its cost"):
        encoder_params(spec, features)
    assert defaults("toymix.gone:Spec") == {}


def test_own_mixer_may_take_a_layer_of_ours() -> None:
    mixer = find("toymix.mean:ShortMamba")()
    assert build_mixer(mixer, 16).conv1d.weight.shape == (32, 1, 2)
    assert find("mamba").name == "mamba"
    with pytest.raises(MixerError, match=r"cannot import Mean from toymix\.nowhere"):
        build_mixer(find("toymix.mean:NoLayer")(), 16)
