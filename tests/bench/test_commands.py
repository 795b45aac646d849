"""The list of commands, the table of this machine, and the manners that all commands share."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from acting_sweep import MACHINE

import bench.__main__
import bench.env
from bench import cli
from bench.records.text import printable
from bench.run import environment

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(f"bench.{path.stem}" for path in (ROOT / "bench").glob("[!_]*.py") if path.stem != "cli")
ROWS = [
    {"owner": "mamba", "backend": "numba", "usable_on": ["cpu"], "reason": "", "about": "fused [kernel]"},
    {"owner": "attention", "backend": "flash_attn", "usable_on": [], "reason": "flash_attn not installed; "
     "install with: pip install 'ftmamba[cuda]'", "about": "a package"},
]  # fmt: skip


def test_every_command_is_listed_with_an_example() -> None:
    listed = [example.split()[2] for _, example in bench.__main__.commands()]
    assert sorted(listed) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(command).main(["--help"]) == 0
    assert f"Usage: python -m {command} [OPTIONS]" in capsys.readouterr().out


def test_the_list_is_printed_and_strays_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench"])
    assert bench.__main__.main() == 0
    assert "python -m bench.sweep --lengths 100,1000,10000" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["bench", "swep"])
    assert bench.__main__.main() == 2
    assert capsys.readouterr().err.startswith("error: unknown argument 'swep'")


def test_env_shows_the_machine_and_every_backend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "probe", lambda *, backends: {**MACHINE, "backends": ROWS})
    assert bench.env.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split() == ["processor", "Some", "CPU", "(AVX2),", "2", "of", "2", "cores", "usable"] for line in lines
    )
    assert any(line.startswith("mamba") and "on cpu" in line and "fused [kernel]" in line for line in lines)
    assert any("no: flash_attn not installed; install with: pip install 'ftmamba[cuda]'" in line for line in lines)
    assert bench.env.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"] == ROWS


def test_a_machine_without_a_working_torch_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open\\nshared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert bench.env.main([]) == 2
    assert capsys.readouterr().err == (
        "error: torch does not work here: ImportError: libtorch.so: cannot open shared object file\n"
    )


@click.command("demo")
@click.option("--fail", default="")
def demo(fail: str) -> int:
    if fail == "interrupt":
        os.kill(os.getpid(), signal.SIGTERM)
    if fail:
        raise ValueError(fail)
    return 3


def test_what_a_command_returns_is_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(demo, []) == 3
    assert cli.run(demo, ["--fail", "one\n\x1b[2Jtwo"], errors=(ValueError,)) == 2
    assert capsys.readouterr().err == "error: one \N{REPLACEMENT CHARACTER}[2Jtwo\n"
    assert cli.run(demo, ["--fail", "x" * 10_000], errors=(ValueError,)) == 2
    assert len(capsys.readouterr().err) < 700
    before = signal.getsignal(signal.SIGTERM)
    assert cli.run(demo, ["--fail", "interrupt"], errors=(ValueError,)) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = (
        f"{sys.executable} -m bench.sweep --list --device cpu --lengths {','.join(map(str, range(2, 500)))} | head -1"
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("cell")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\nb\tc", "a b c"), ("\x1b[31m", "\N{REPLACEMENT CHARACTER}[31m"), ("\udc80", "\N{REPLACEMENT CHARACTER}"),
     ("\N{RIGHT-TO-LEFT OVERRIDE}x", "\N{REPLACEMENT CHARACTER}x"), ("déjà \N{PILE OF POO}", "déjà \N{PILE OF POO}")],
)  # fmt: skip
def test_text_from_outside_becomes_one_printable_line(text: str, line: str) -> None:
    assert printable(text) == line
