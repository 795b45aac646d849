"""A saved model says by itself what it is: a new process computes the same bits; another file is refused."""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ftmamba import (
    AttentionSpec,
    EncoderSpec,
    FeatureSpec,
    FTEncoder,
    MambaSpec,
    TableEncoder,
    TwoTower,
    embed,
    load,
    save,
)

ROOT = Path(__file__).resolve().parents[2]
USERS = pd.DataFrame({"age": [20.0, None, 41.5, 7.0], "town": ["Ulm", "Rome", None, "Ulm"]})
ITEMS = pd.DataFrame({"price": [0.1, 3.0, 1e6], "kind": ["a", "b", "\x00c"]})


def columns() -> tuple[TableEncoder, TableEncoder]:
    users = TableEncoder.fit(USERS[:3], numeric=["age"], categorical=["town"], scaling="quantile")
    return users, TableEncoder.fit(ITEMS, numeric=["price"], categorical=["kind"], max_rows=3)


def model(dtype: torch.dtype = torch.float32) -> TwoTower:
    torch.manual_seed(0)
    users, items = (each.features for each in columns())
    user = FTEncoder(EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=2, d_out=8), users)
    mixer = AttentionSpec(n_heads=2, ffn_activation="relu")
    content = FTEncoder(EncoderSpec(mixer=mixer, d_model=32, n_layers=1, d_out=8, dropout=0.5), items)
    return TwoTower(user, content).to(dtype)


PROGRAM = """
import sys, pandas as pd, torch
from ftmamba import embed, load
before = torch.get_rng_state()
model, columns = load(sys.argv[1])
assert torch.equal(torch.get_rng_state(), before) and not model.training
frames = pd.read_pickle(sys.argv[2])
dtype = next(model.parameters()).dtype
found = [embed(t, c.transform(f).to("cpu", dtype)) for t, c, f in zip((model.user, model.content), columns, frames)]
torch.save(found, sys.argv[3])
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_new_process_computes_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    saved, encoders = model(dtype), columns()
    path, frames, results = tmp_path / "model.safetensors", tmp_path / "frames.pkl", tmp_path / "results.pt"
    save(path, saved, encoders)
    pd.to_pickle((USERS, ITEMS), frames)
    subprocess.run([sys.executable, "-c", PROGRAM, path, frames, results], check=True, cwd=ROOT)
    towers = (saved.user, saved.content)
    for tower, encoder, frame, found in zip(towers, encoders, (USERS, ITEMS), torch.load(results), strict=True):
        torch.testing.assert_close(found, embed(tower, encoder.transform(frame).to("cpu", dtype)))  # not bits: threads
    assert load(path)[1] == encoders


def test_a_file_holds_the_state_dict_under_its_own_names(tmp_path: Path) -> None:
    saved = model().user
    save(tmp_path / "tower", saved)
    tensors = load_file(tmp_path / "tower")
    assert tensors.keys() == saved.state_dict().keys()
    loaded, encoders = load(tmp_path / "tower")
    assert type(loaded) is FTEncoder
    assert encoders == ()
    assert all(torch.equal(each, loaded.state_dict()[name]) for name, each in saved.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["tower"]


def test_dtypes_may_differ_within_a_model(tmp_path: Path) -> None:
    saved = model(torch.bfloat16)
    saved.user.blocks[0].mixer.A_log.data = saved.user.blocks[0].mixer.A_log.data.float()
    save(tmp_path / "model", saved)
    loaded, _ = load(tmp_path / "model")
    assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in saved.state_dict().items()}


def test_one_tower_on_both_sides_stays_one(tmp_path: Path) -> None:
    tower = model().user
    save(tmp_path / "model", TwoTower(tower, tower), columns()[:1])
    loaded, encoders = load(tmp_path / "model")
    assert isinstance(loaded, TwoTower)
    assert loaded.user is loaded.content
    assert encoders == columns()[:1]


def about(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return str(file.metadata()["ftmamba"])


def rewritten(path: Path, text: str) -> None:
    save_file(load_file(path), path, {"ftmamba": text})


def replaced(path: Path, old: str, new: str) -> None:
    assert old in about(path)
    rewritten(path, about(path).replace(old, new))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def without_a_weight(path: Path) -> None:
    tensors = load_file(path)
    del tensors["user.head.output.bias"]
    save_file(tensors, path, {"ftmamba": about(path)})


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut, "ncomplete"),
    "cut at its beginning": (lambda path: path.write_bytes(path.read_bytes()[:5]), "header"),
    "empty": (lambda path: path.write_bytes(b""), "header"),
    "of no version": (lambda path: replaced(path, '"version": 1', '"version": "x"'), "cannot be loaded"),
    "text": (lambda path: path.write_text("age,town\n" * 9), "header"),
    "another program's": (lambda path: save_file({"a": torch.ones(2)}, path), "not written by ftmamba"),
    "newer": (
        lambda path: replaced(path, '"version": 1', '"version": 2'),
        "a newer ftmamba wrote it, in version 2; this one knows 1",
    ),
    "without a weight": (without_a_weight, "head.output.bias"),
    "other widths": (lambda path: replaced(path, '"d_out": 8', '"d_out": 9'), "size mismatch"),
    "unknown mixer": (lambda path: replaced(path, "mamba", "typo"), "unknown mixer"),
    "no JSON": (lambda path: rewritten(path, "{"), "cannot be loaded"),
    "no towers": (lambda path: rewritten(path, '{"version": 1, "towers": {}}'), "cannot be loaded"),
    "a list": (lambda path: rewritten(path, "[1]"), "cannot be loaded"),
}


@pytest.mark.parametrize("way", SPOILED)
def test_another_file_is_refused_in_one_line(way: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    save(path, model(), columns())
    spoil, words = SPOILED[way]
    spoil(path)
    with pytest.raises(ValueError, match="model cannot be loaded: ") as refusal:
        load(path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("moment", ["ftmamba.checkpoint.save_file", "pathlib.Path.replace"])
def test_a_file_is_written_whole_or_not_at_all(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    save(path, model(), columns())
    before = path.read_bytes()

    def full(*arguments: object) -> None:
        (tmp_path / f".model.{os.getpid()}.new").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(moment, full)
    with pytest.raises(OSError, match="No space left"):
        save(path, model())
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


class Own(FTEncoder):
    pass


def tied(tower: FTEncoder) -> FTEncoder:
    tower.blocks[1] = tower.blocks[0]
    return tower


REFUSED: dict[str, tuple[Callable[[], tuple[nn.Module, object]], str]] = {
    "another module": (lambda: (nn.Linear(2, 2), ()), "not a Linear"),
    "a class of one's own": (lambda: (Own(model().user.spec, FeatureSpec(2)), ()), "not a Own"),
    "columns of another table": (lambda: (model(), columns()[::-1]), "columns of"),
    "too few columns": (lambda: (model(), columns()[:1]), "columns of"),
    "shared layers": (lambda: (tied(model().user), ()), "share weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_come_back_is_not_saved(case: str, tmp_path: Path) -> None:
    make, words = REFUSED[case]
    other, encoders = make()
    with pytest.raises(ValueError, match=words):
        save(tmp_path / "model", other, encoders)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_too_large_for_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors writes any header but reads no more than 100 MB."""
    tower = model().user
    monkeypatch.setattr("ftmamba.checkpoint.json.dumps", lambda about: "x" * 100_000_001)
    with pytest.raises(ValueError, match="model cannot be written"):
        save(tmp_path / "model", tower)
    assert not list(tmp_path.iterdir())


def test_a_copy_is_saved_like_its_original(tmp_path: Path) -> None:
    save(tmp_path / "one", model(), columns())
    save(tmp_path / "two", copy.deepcopy(model()), columns())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


OWN = """
from dataclasses import dataclass
from ftmamba.mixers.mamba import MambaSpec
from ftmamba.spec import parameter

@dataclass(frozen=True, kw_only=True)
class Spec(MambaSpec):
    wide: float = parameter(1.0, low=0.0)
    layer = ":Layer"

def __getattr__(name):
    from ftmamba.mixers.mamba.layer import MambaMixer as Layer
    if name == "Layer":
        return Layer
    raise AttributeError(name)
"""


def test_a_mixer_of_ones_own_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_mixer.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.import_module("own_mixer").Spec(d_state=4, wide=2.5)
    saved = FTEncoder(EncoderSpec(mixer=spec, d_model=16, n_layers=1), FeatureSpec(2))
    save(tmp_path / "model", saved)
    program = (
        "import sys; from ftmamba import load; spec = load(sys.argv[1])[0].spec;"
        "assert repr(spec) == sys.argv[2] and type(spec.mixer).__module__ == 'own_mixer', spec"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "model"), repr(saved.spec)]
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    subprocess.run(arguments, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path})
    lost = subprocess.run(arguments, check=False, cwd=ROOT, capture_output=True, text=True)
    assert "model cannot be loaded: " in lost.stderr.splitlines()[-1]
    assert "No module named 'own_mixer'" in lost.stderr.splitlines()[-1]
