"""The README's recipes, followed literally in a copy of the project, lead to the page; no other edit is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SPEC = '''
"""A mixer of the user's own: every token becomes the mean of itself and those before it."""
from dataclasses import dataclass
from typing import ClassVar

from ftmamba.backends import Backend, Backends
from ftmamba.spec import MixerSpec, parameter


@dataclass(frozen=True, kw_only=True)
class Spec(MixerSpec):
    scale: int = parameter(1, low=1, high=9, about="times the mean")

    name: ClassVar[str] = "running_mean"
    about: ClassVar[str] = "mean of the tokens so far"
    causal: ClassVar[bool] = True
    layer: ClassVar[str] = "layer:RunningMean"
    backends: ClassVar[Backends] = Backends(
        __name__, Backend(name="torch", about="cumulative sums", devices=("cpu", "cuda"))
    )


SPEC = Spec
'''
BARE = """
from dataclasses import dataclass

from ftmamba.spec import MixerSpec


@dataclass(frozen=True, kw_only=True)
class Spec(MixerSpec):
"""
LAYER = """
import torch
from torch import nn


class RunningMean(nn.Module):
    def __init__(self, spec, d_model):
        super().__init__()
        self.scale = spec.scale
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x, read=None):
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype).unsqueeze(-1)
        y = self.scale * self.weight * x.cumsum(1) / count
        return y if read is None else y.narrow(1, read % x.shape[1], 1)
"""
TASK = '''
"""A step that is a product of a vector with itself, as often as the toy axis says."""
from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES, check_tower


def prepare(tower, batch):
    import torch

    x = torch.ones(1000)
    return lambda: x * x


TASK = Task(words="toy task", noun="a toy step", axes=(*TOWER_AXES, "toy"), check=check_tower)
'''
AXIS = """    Axis(field="toy", name="toys", kind=int, many=True, default=0, about="Of the toy task.", words="toy {}"),
"""
DATA = '''
"""A data set of the synthetic one's kind."""
from dataclasses import replace

from bench.data.synthetic import adapter_of

ADAPTER = replace(adapter_of("users=60:items=30:columns=4:pairs=10"), name="toy-data")
'''
SECTION = '''
"""Says how many cells there are."""
from bench.render.blocks import Prose, Section

ORDER = 1


def build(findings):
    return Section("toy", "Toy section", [Prose(f"{len(findings.summary.cells)} cells stand on this page")])
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after the recipes, beside a package of the user's own."""
    folder = tmp_path_factory.mktemp("recipes")
    for package in ("ftmamba", "bench"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    write = {
        "ftmamba/mixers/running_mean/__init__.py": SPEC, "ftmamba/mixers/running_mean/layer.py": LAYER,
        "mine/__init__.py": "", "mine/mixer/__init__.py": SPEC, "mine/mixer/layer.py": LAYER,
        "bench/run/tasks/toy_task.py": TASK, "bench/data/toy_data.py": DATA, "bench/render/sections/toy.py": SECTION,
        "bench/plan/presets/toy.toml": 'about = "a toy"\nextends = "smoke"\ntasks = ["toy_task"]\ntoys = [0, 7]\n',
    }  # fmt: skip
    for name, content in write.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name, line, after in (
        ("bench/plan/axes.py", AXIS, "AXES = (\n"),
        ("bench/data/__init__.py", '    "toy-data": "toy_data",\n', "DATASETS: dict[str, str] = {\n"),
    ):
        text = (folder / name).read_text()
        assert text.count(after) == 1
        (folder / name).write_text(text.replace(after, after + line))
    return folder


def run(folder: Path, *argv: str, code: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "FTMAMBA_DATA": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", *argv], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


SMALL = ("--quiet", "--device", "cpu", "--threads", "1")


def test_a_mixer_an_axis_and_a_task_reach_the_page_and_the_comparison(copy: Path) -> None:
    mixers = "mamba,running_mean:scale=2,mine.mixer:Spec"
    run(copy, "bench.sweep", "--preset", "toy", *SMALL, "--budget", "0.01", "--mixers", mixers, "--out", "results/a")
    records = [json.loads(line) for line in (copy / "results/a/records.jsonl").read_text().splitlines()]
    assert len(records) == 3 * 3 * 2
    assert {record["status"] for record in records} == {"ok"}
    assert {(record["cell"]["mixer"], record["cell"]["toy"]) for record in records} == {
        (mixer, toy) for mixer in ("mamba", "running_mean", "mine.mixer:Spec") for toy in (0, 7)
    }
    page = (copy / "reports/a.html").read_text()
    for told in ("Toy section", "18 cells stand on this page", "toy task", "toy 7", "running_mean", "mine.mixer:Spec"):
        assert told in page
    compared = json.loads(run(copy, "bench.compare", "results/a", "results/a", "--json"))
    assert len(compared["cells"]) == 18


def test_a_mixer_of_ones_own_runs_through_sweep_and_profile(copy: Path) -> None:
    """No cost model: no cost columns. No reference: not verified, wherever its number stands."""
    own = ("--mixers", "attention,mine.mixer:Spec", "--lengths", "5,9", "--budget", "0.01", *SMALL)
    run(copy, "bench.sweep", "--preset", "smoke", *own, "--out", "results/b")
    records = [json.loads(line) for line in (copy / "results/b/records.jsonl").read_text().splitlines()]
    mine = [record for record in records if record["cell"]["mixer"] == "mine.mixer:Spec"]
    assert {record["status"] for record in mine} == {"ok"}
    assert all("not compared" in record["notes"]["verify"] and "flops" not in record["values"] for record in mine)
    assert "not verified" in (copy / "reports/b.html").read_text()
    run(copy, "bench.profile", *own, "--d-model", "16", "--layers", "1", "--out", "results/p")
    assert "mine.mixer:Spec" in (copy / "reports/p.html").read_text()


def test_a_data_set_and_a_mixer_reach_ranking_quality(copy: Path) -> None:
    run(
        copy, "bench.quality", "--dataset", "toy-data", "--mixers", "mine.mixer:Spec", "--baselines", "popularity",
        "--seeds", "0", "--steps", "3", "--layers", "1", "--d-model", "16", *SMALL, "--out", "results/q",
    )  # fmt: skip
    page = (copy / "reports/q.html").read_text()
    assert "toy-data" in page
    assert "mine.mixer:Spec" in page


def test_ids_do_not_change_when_an_axis_comes(copy: Path) -> None:
    program = (
        "from pathlib import Path; from bench.records.store import load_run;"
        "print(*(record.cell_id for record in load_run(Path('RUN')).records))"
    ).replace("RUN", str(ROOT / "results" / "cpu-sweep"))
    ids = [
        subprocess.run([sys.executable, "-c", program], cwd=where, env={**os.environ, "PYTHONPATH": str(where)},
                       capture_output=True, text=True, check=True).stdout for where in (ROOT, copy)
    ]  # fmt: skip
    assert ids[0] == ids[1]
    assert len(ids[0].split()) == len((ROOT / "results" / "cpu-sweep" / "records.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("module", "content", "told"),
    [
        ("broken", "import no_such_module", "no_such_module"),
        ("empty", "", "has no attribute 'Spec'"),
        ("wrong", "class Spec: pass", "does not derive from"),
        ("tuple", f"{BARE}    backends = ('torch',)\n    layer = ':Layer'\n", "backends"),
        (
            "bare",
            SPEC.replace("parameter(1, ", "parameter(MISSING, ").replace("import d", "import MISSING, d"),
            "scale",
        ),
        (
            "short",
            f"{SPEC}\n\ndef parts(self, d_model):\n    return {{}}\n\n\nSpec.parts = parts\n",
            "breaks the contract",
        ),
    ],
)
def test_a_module_that_is_no_mixer_is_told_by_name(copy: Path, module: str, content: str, told: str) -> None:
    (copy / f"{module}_mixer.py").write_text(content)
    err = run(copy, "bench.sweep", *SMALL, "--mixers", f"{module}_mixer:Spec", "--out", "results/x", code=2)
    assert err.count("\n") == 1
    assert f"{module}_mixer" in err
    assert told in err
