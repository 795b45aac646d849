"""Where a run comes from: told in full, without naming the host or its user."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.run import environment, provenance


@pytest.fixture(scope="module")
def machine() -> dict[str, Any]:
    return environment.probe(backends=True)


def test_the_probe_finds_this_machine(machine: dict[str, Any]) -> None:
    import torch

    assert machine["torch"]["version"] == torch.__version__
    assert machine["versions"]["torch"]
    assert machine["threads"]["torch"] >= 1
    assert machine["memory_bytes"] > 2**28
    assert len(machine["gpus"]) == torch.cuda.device_count()


def test_every_backend_is_usable_or_says_why_not(machine: dict[str, Any]) -> None:
    rows = {(row["owner"], row["backend"]): row for row in machine["backends"]}
    assert {"mamba", "attention", "causal_conv"} <= {owner for owner, _ in rows}
    for row in rows.values():
        assert bool(row["usable_on"]) != bool(row["reason"]), row
    assert "cpu" in rows["attention", "sdpa"]["usable_on"]
    assert "cpu" in rows["mamba", "reference"]["usable_on"]
    if not machine["gpus"]:
        assert "runs on cuda, which torch does not find here" in rows["attention", "sdpa_cudnn"]["reason"]


def test_a_broken_installation_is_not_called_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftmamba import mixers
    from ftmamba.ops import attention

    def broken(*arguments: object) -> None:
        raise ImportError("undefined symbol: _ZN3c10\nelsewhere")

    monkeypatch.setattr(mixers, "build_mixer", broken)
    row = environment._state("attention", attention.BACKENDS["sdpa"], ["cpu"])
    assert row["usable_on"] == []
    assert row["reason"] == "installed, but fails to load: ImportError: undefined symbol: _ZN3c10 elsewhere"


def test_no_fact_names_the_host_or_its_user(machine: dict[str, Any]) -> None:
    published = json.dumps(machine).lower()
    for secret in (platform.node(), getpass.getuser(), str(Path.home())):
        if len(secret) > 4:  # a shorter one, such as "root" or "vm", is part of other words
            assert secret.lower() not in published


def test_cuda_without_a_gpu_is_refused(machine: dict[str, Any]) -> None:
    bare = {**machine, "gpus": [], "torch": {"version": "1", "cuda": "12.8"}}
    assert environment.resolve_device("auto", bare) == "cpu"
    with pytest.raises(environment.MachineError, match=r"torch was built for CUDA 12\.8, but finds no GPU"):
        environment.resolve_device("cuda", bare)
    with_gpu = {**bare, "gpus": [{"name": "x"}]}
    assert environment.resolve_device("auto", with_gpu) == "cuda"
    assert environment.resolve_device("cpu", with_gpu) == "cpu"


def test_a_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        settings = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance.git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "reports").mkdir()
    for name in ("file", "reports/a.html"):
        (tmp_path / name).write_text("1")
    git("add", "file", "reports")
    git("commit", "-qm", "first")
    assert provenance.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "untracked").write_text("")
    (tmp_path / "reports" / "a.html").write_text("of this run")
    assert provenance.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}
    (tmp_path / "inner").mkdir()
    assert provenance.git_state(tmp_path / "inner") is None  # somebody else's checkout around an installed copy
