"""The list of commands, the table of this machine, and the manners that all commands share."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from acting import MACHINE

import bench.__main__
import bench.env
from bench import cli
from bench.records.record import Record
from bench.records.text import printable
from bench.run import environment

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    f"bench.{path.stem}" for path in (ROOT / "bench").glob("[!_]*.py") if path.stem not in ("cli", "command")
)
ROWS = [
    {"owner": "mamba", "backend": "numba", "usable_on": ["cpu"], "reason": "", "about": "fused [kernel]"},
    {"owner": "attention", "backend": "flash_attn", "usable_on": [], "reason": "flash_attn not installed; "
     "install with: python -m bench.peers", "about": "a package"},
]  # fmt: skip


def test_every_command_is_listed_with_an_example() -> None:
    listed = [example.split()[2] for _, example in bench.__main__.commands()]
    assert sorted(listed) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module(command).main(["--help"]) == 0
    assert f"Usage: python -m {command} [OPTIONS]" in capsys.readouterr().out


def test_the_list_is_printed_and_strays_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.__main__.main([]) == 0
    assert "python -m bench.sweep --lengths 100,1000,10000" in capsys.readouterr().out
    assert bench.__main__.main(["swep"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown argument 'swep'; commands are compare, datasets, ")


def test_a_command_is_called_by_its_name_and_keeps_its_command_line(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "bench"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run([*program, "datasets", "list"], cwd=tmp_path, env=env, capture_output=True, check=True)
    alone = subprocess.run([sys.executable, "-m", "bench.datasets", "list"], cwd=tmp_path, env=env,
                           capture_output=True, check=True)  # fmt: skip
    assert done.stdout == alone.stdout
    assert b"\x1b" not in done.stdout
    told = subprocess.run([*program, "--version"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert told.stdout == f"bench of ftmamba {project['version']}\n"
    assert project["scripts"]["bench"] == "bench.__main__:main"


def test_one_core_is_one_core(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one = {**MACHINE, "cpu": {**MACHINE["cpu"], "usable_cores": 1, "logical_cores": 1}, "backends": []}
    monkeypatch.setattr(environment, "probe", lambda *, backends: one)
    assert bench.env.main([]) == 0
    assert "1 of 1 core usable" in capsys.readouterr().out


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
    assert any("no: flash_attn not installed; install with: python -m bench.peers" in line for line in lines)
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


def speak(tmp_path: Path, shell: str = "", body: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """A command of its own process that says what encodings lack, by every way of saying."""
    (tmp_path / "speak.py").write_text(
        "import click, os, signal, sys, time\n"
        "from bench import cli\n"
        "@click.command('speak')\n"
        "def speak():\n"
        f"    {body or 'pass'}\n"
        "    cli.out.print('3 µs ≈ \\N{MINUS SIGN}1 é \\udc80')\n"
        "    print('L² ∞ …')\n"
        "    cli.err.print('a ◆')\n"
        "    cli.complain('b ◆')\n"
        "sys.exit(cli.run(speak, None))\n", encoding="utf-8",
    )  # fmt: skip
    command = f"trap '' HUP; {sys.executable} speak.py {shell}"
    everywhere = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False, env=everywhere)


@pytest.mark.parametrize(
    ("env", "said", "complained"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"3 us ~ -1 ? ?\nL^2 inf ...\n", b"a ?\nerror: b ?\n"),
        ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"3 us ~ -1 ? ?\nL^2 inf ...\n",
         b"a ?\nerror: b ?\n"),
        ({"PYTHONIOENCODING": "latin-1"}, b"3 \xb5s ~ -1 \xe9 ?\nL\xb2 inf ...\n", b"a ?\nerror: b ?\n"),
        ({"PYTHONIOENCODING": "utf-8"}, "3 µs ≈ \N{MINUS SIGN}1 é ?\nL² ∞ …\n".encode(), "a ◆\nerror: b ◆\n".encode()),
    ],
)  # fmt: skip
def test_every_encoding_takes_every_text(env: dict[str, str], said: bytes, complained: bytes, tmp_path: Path) -> None:
    done = speak(tmp_path, **env)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, complained)


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_process_without_streams_does_its_work(shell: str, tmp_path: Path) -> None:
    done = speak(tmp_path, shell, body="open('done', 'w').close()")
    assert done.returncode == 0
    assert (tmp_path / "done").exists()
    assert b"Traceback" not in done.stderr


def test_what_was_started_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    assert speak(tmp_path, body="os.kill(os.getpid(), signal.SIGHUP)").returncode == 0


def test_signals_after_the_first_do_not_disturb_the_ending(tmp_path: Path) -> None:
    """Nor does one that comes when all is done: a handler at exit sees it ignored."""
    body = (
        "import atexit; atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "    finally:\n"
        "        for number in (signal.SIGTERM, signal.SIGINT): os.kill(os.getpid(), number)\n"
        "        open('done', 'w').close()"
    )
    done = speak(tmp_path, body=body)
    assert (done.returncode, done.stderr) == (130, b"\nerror: interrupted\n")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "ok"], 0),
        (["ok", "oom", "timeout", "skipped"], 0),
        (["ok", "error"], 1),
        (["oom", "timeout"], 1),
        ([], 0),
    ],
)
def test_exit_codes_tell_of_cells_without_a_number(statuses: list[str], code: int) -> None:
    records = [
        Record(run="r", cell_id="c", round=0, cell={}, status=each, reason="" if each == "ok" else "why")  # type: ignore[arg-type]
        for each in statuses
    ]
    assert cli.exit_code(records) == code


@pytest.mark.parametrize("name", ["sweep", "quality", "profile", "report", "compare", "datasets"])
def test_an_empty_path_is_not_the_current_folder(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"bench.{name}")
    command = getattr(module, name)
    parameters = [each for one in (command, *getattr(command, "commands", {}).values()) for each in one.params]
    paths = [each for each in parameters if isinstance(each.type, click.Path)]
    assert paths
    for each in paths:
        with pytest.raises(click.BadParameter, match="is empty; give a path"):
            each.type.convert("", each, None)
        assert each.type.convert(str(tmp_path), each, None) == tmp_path


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    lengths = ",".join(map(str, range(2, 500)))
    listing = f"{sys.executable} -m bench.sweep --list --device cpu --lengths {lengths}"
    command = f"set -o pipefail; {listing} | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("cell")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\nb\tc", "a b c"), ("\x1b[31m", "\N{REPLACEMENT CHARACTER}[31m"), ("\udc80", "\N{REPLACEMENT CHARACTER}"),
     ("\N{RIGHT-TO-LEFT OVERRIDE}x", "\N{REPLACEMENT CHARACTER}x"), ("déjà \N{PILE OF POO}", "déjà \N{PILE OF POO}")],
)  # fmt: skip
def test_text_from_outside_becomes_one_printable_line(text: str, line: str) -> None:
    assert printable(text) == line
