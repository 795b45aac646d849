"""The build of the CUDA peers, up to the call of the compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import peers


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["-gencode", "arch=compute_75,code=sm_75", "-gencode", "arch=compute_120,code=sm_120", "-O3", "-c", "scan.cu"],
         ["-O3", "-c", "scan.cu", "-gencode=arch=compute_90,code=sm_90"]),
        (["-gencode=arch=compute_80,code=sm_80", "-c", "a.cu"], ["-c", "a.cu", "-gencode=arch=compute_90,code=sm_90"]),
        (["-V"], ["-V"]),
    ],
)  # fmt: skip
def test_a_file_is_compiled_for_one_gpu(given: list[str], passed: list[str], tmp_path: Path) -> None:
    compiler, told = tmp_path / "nvcc", tmp_path / "real"
    told.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    told.chmod(0o755)
    peers.write_compiler(compiler, str(told), "90")
    assert json.loads(subprocess.check_output([str(compiler), *given])) == passed


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[list[str], dict[str, str]]]:
    """A machine without a network: programs are not run, but noted with their environment."""
    ran: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], env: dict[str, str] | None = None, **_: object) -> subprocess.CompletedProcess[str]:
        ran.append((command, dict(env or {})))
        if "PYTORCH_NVCC" in ran[-1][1]:
            assert os.access(ran[-1][1]["PYTORCH_NVCC"], os.X_OK)
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(peers, "find_nvcc", lambda: "/nvcc")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    for package, version in peers.PINNED.items():
        (tmp_path / f"{package.replace('-', '_')}-{version}.tar.gz").touch()
    return ran


def test_archives_that_are_there_are_built_without_a_network(
    offline: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    assert peers.main(["--sdists", str(tmp_path), "--capability", "9.0", "--jobs", "3"]) == 0
    builds = [(command, env) for command, env in offline if "install" in command]
    assert [Path(command[-1]).name.partition("-")[0] for command, _ in builds] == ["causal_conv1d", "mamba_ssm"]
    assert not [command for command, _ in offline if "download" in command]
    for command, env in builds:
        assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(command)
        assert env["MAMBA_FORCE_BUILD"] == env["CAUSAL_CONV1D_FORCE_BUILD"] == env["MAMBA_KEEP_CUDA_BUILD"] == "TRUE"
        assert env["MAX_JOBS"] == "3"
    assert "selective_scan_cuda" in offline[-1][0][-1]  # `import mamba_ssm` alone would say nothing


def test_what_is_missing_is_told_in_one_line(
    offline: list[tuple[list[str], dict[str, str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("bench.run.environment.probe", lambda: {"gpus": []})
    assert peers.main(["--sdists", str(tmp_path)]) == 2
    assert "--capability" in capsys.readouterr().err
    (tmp_path / "mamba_ssm-2.3.2.post1.tar.gz").unlink()
    assert peers.main(["--sdists", str(tmp_path), "--capability", "9.0"]) == 2
    assert "could not be fetched" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wheel" else name)
    assert peers.main(["--sdists", str(tmp_path), "--capability", "9.0"]) == 2
    assert "pip install wheel" in capsys.readouterr().err
