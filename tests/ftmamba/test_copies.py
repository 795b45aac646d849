"""Towers that are copied, saved, averaged, exported or turned to float64 compute what they did before."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ftmamba import AttentionSpec, BackendError, EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, MambaSpec, TwoTower
from ftmamba.features import random_batch
from ftmamba.mixers import NAMES, build_mixer, find
from ftmamba.ops import causal_conv, selective_scan
from ftmamba.spec import MixerSpec

ROOT = Path(__file__).resolve().parents[2]
FEATURES = FeatureSpec(n_numeric=3, cardinalities=(4, 7))
ALL = [
    find(mixer)(backend=backend)
    for mixer in NAMES
    for backend in ("auto", *find(mixer).backends)
    if mixer != "mamba_ssm" and (backend == "auto" or "cpu" in find(mixer).backends[backend].devices)
]


def make_batch(n_rows: int = 5, seed: int = 0) -> FeatureBatch:
    return random_batch(FEATURES, n_rows, torch.Generator().manual_seed(seed))


def make_tower(mixer: MixerSpec, d_model: int = 32) -> FTEncoder:
    torch.manual_seed(0)
    try:
        return FTEncoder(EncoderSpec(mixer=mixer, d_model=d_model, n_layers=2), FEATURES)
    except BackendError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("mixer", ALL, ids=repr)
def test_a_copy_computes_the_same_and_shares_nothing(mixer: MixerSpec, way: Callable[[nn.Module], nn.Module]) -> None:
    model = TwoTower(make_tower(mixer), make_tower(AttentionSpec()))
    expected = model(make_batch(), make_batch(seed=1))
    copied = way(model)
    assert torch.equal(copied(make_batch(), make_batch(seed=1)), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(model(make_batch(), make_batch(seed=1)), expected)


@pytest.mark.parametrize("mixer", ALL, ids=repr)
def test_averaged_weights(mixer: MixerSpec) -> None:
    """Half of the first weights and half of zero is half of the first."""
    tower = make_tower(mixer)
    average = AveragedModel(tower, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(tower)
    first = [parameter.detach().clone() for parameter in tower.parameters()]
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
    average.update_parameters(tower)
    for mean, weight in zip(average.parameters(), first, strict=True):
        torch.testing.assert_close(mean, weight / 2)
    assert torch.isfinite(average(make_batch())).all()


@pytest.mark.parametrize(
    ("mixer", "d_model"), [(MambaSpec(), 20), (MambaSpec(), 32), (MambaSpec(), 272), (AttentionSpec(), 32)], ids=repr
)
def test_an_exported_tower_takes_any_batch(
    mixer: MixerSpec, d_model: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftmamba.ops.mamba_layer.numba.get_threads", lambda: 7)  # must not become the smallest batch
    tower, rows = make_tower(mixer, d_model), {0: Dim("batch", max=4096)}
    with torch.no_grad():
        exported = torch.export.export(tower, (make_batch(8),), dynamic_shapes=(FeatureBatch(rows, rows),))
    torch.export.save(exported, tmp_path / "tower.pt2")
    loaded = torch.export.load(tmp_path / "tower.pt2").module()
    for n_rows in (1, 2, 600):  # 600 rows of 6 tokens are more than one stretch
        batch = make_batch(n_rows)
        torch.testing.assert_close(loaded(batch), tower(batch), rtol=1e-4, atol=1e-5)


def test_a_pickled_tower_compiles_in_a_new_process(tmp_path: Path) -> None:
    """Nothing has been imported there that torch.compile could not trace or the exported program would miss."""
    tower = make_tower(MambaSpec())
    torch.save((tower, make_batch(), tower(make_batch())), tmp_path / "tower.pt")
    torch.export.save(torch.export.export(tower, (make_batch(),)), tmp_path / "tower.pt2")
    program = (
        "import sys, torch; tower, batch, expected = torch.load(sys.argv[1], weights_only=False);"
        "compiled = torch.compile(tower, fullgraph=True, backend='aot_eager');"
        "torch.testing.assert_close(compiled(batch), expected);"
        "torch.testing.assert_close(torch.export.load(sys.argv[1] + '2').module()(batch), expected);"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "tower.pt")], check=True, cwd=ROOT)


@pytest.mark.parametrize("mixer", [MambaSpec(), AttentionSpec()], ids=repr)
def test_auto_finds_a_backend_for_float64(mixer: MixerSpec) -> None:
    tower, batch = make_tower(mixer).double(), make_batch().to("cpu", torch.float64)
    truth = make_tower(type(mixer)(backend="reference")).double()
    torch.testing.assert_close(tower(batch), truth(batch), rtol=1e-12, atol=1e-12)
    tower(batch).sum().backward()
    torch.testing.assert_close(tower.float()(make_batch()).double(), truth(batch), rtol=1e-4, atol=1e-5)


def test_what_computes_in_float32_alone_says_so() -> None:
    tower = make_tower(MambaSpec(backend="numba")).double()
    with pytest.raises(BackendError, match="'numba' cannot run here: computes in float32; for float64 take 'auto'"):
        tower(make_batch().to("cpu", torch.float64))
    for backends in (selective_scan.BACKENDS, causal_conv.BACKENDS):
        assert backends.resolve("auto", "cpu", float64=True) == "reference"


@pytest.mark.parametrize("mixer", NAMES)
def test_an_unknown_backend_is_refused_by_every_mixer(mixer: str) -> None:
    with pytest.raises(BackendError, match="unknown backend 'typo'; choose from"):
        build_mixer(find(mixer)(backend="typo"), 32)
