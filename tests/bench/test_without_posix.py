"""Without what only POSIX systems have: the model core and what reads results work, what measures refuses."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.records.store import NEEDS_POSIX

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "results" / "cpu-peers"
HIDE = (  # what Windows does not have and this project names; psutil is loaded first, as it is made for each system
    "import importlib, os, psutil, signal, subprocess, sys\n"
    f"sys.path.insert(0, {str(ROOT)!r})\n"
    "sys.modules.update(fcntl=None, resource=None)\n"
    "for name in ('fork', 'wait4', 'killpg', 'getloadavg', 'sched_getaffinity', 'sched_setaffinity', 'O_CLOEXEC'):\n"
    "    vars(os).pop(name, None)\n"
    "for name in ('SIGHUP', 'SIGKILL'):\n"
    "    vars(signal).pop(name)\n"
)


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE + program], cwd=folder, capture_output=True, text=True, check=False
    )


def exit_codes(commands: Sequence[str], folder: Path) -> tuple[dict[str, int], str]:
    """Of the commands, all in one process, and what they said on standard error."""
    program = (
        "codes = {}\n"
        f"for line in {commands!r}:\n"
        "    name, *argv = line.split()\n"
        "    codes[line] = importlib.import_module(f'bench.{name}').main(argv)\n"
        "print(repr(codes))"
    )
    done = run(program, folder)
    return ast.literal_eval(done.stdout.splitlines()[-1]), done.stderr


def test_the_core_gives_the_outputs_and_gradients_of_the_reference() -> None:
    program = (
        "import torch\n"
        "from dataclasses import replace\n"
        "from ftmamba import EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, MambaSpec\n"
        "features = FeatureSpec(n_numeric=3, cardinalities=(10, 500))\n"
        "batch = FeatureBatch(torch.randn(8, 3, dtype=torch.float64), torch.randint(10, (8, 2)))\n"
        "found = {}\n"
        "for backend, dtype in (('reference', torch.float64), ('numba', torch.float32)):\n"
        "    torch.manual_seed(0)\n"
        "    spec = EncoderSpec(mixer=MambaSpec(backend=backend), d_model=16, n_layers=2)\n"
        "    tower = FTEncoder(spec, features).to(dtype)\n"
        "    scores = tower(FeatureBatch(batch.numeric.to(dtype), batch.categorical))\n"
        "    scores.square().sum().backward()\n"
        "    found[backend] = [scores, *(each.grad for each in tower.parameters())]\n"
        "for ours, right in zip(found['numba'], found['reference'], strict=True):\n"
        "    torch.testing.assert_close(ours.double(), right, rtol=1e-3, atol=1e-4)\n"
    )
    assert run(program, ROOT).stderr == ""


def test_what_measures_says_in_one_line_what_it_needs(tmp_path: Path) -> None:
    commands = [
        "env", "sweep --device cpu", f"sweep --resume --out {RUN}", "quality --dataset vaccine", "profile",
        "selftest --quick",
    ]  # fmt: skip
    told = f"error: {NEEDS_POSIX}\n" * len(commands)
    assert exit_codes(commands, tmp_path) == (dict.fromkeys(commands, 2), told)


def test_what_measures_nothing_works(tmp_path: Path) -> None:
    commands = [
        f"report {RUN}", f"compare {RUN} {RUN}", "datasets show vaccine", "sweep --list --device cpu", "quality --list",
        "__main__",
    ]  # fmt: skip
    assert exit_codes(commands, tmp_path) == (dict.fromkeys(commands, 0), "")
    assert (tmp_path / "reports" / "cpu-peers.html").exists()
