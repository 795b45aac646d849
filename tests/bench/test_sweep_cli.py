"""The command as people meet it: what it refuses, what it keeps, how it ends."""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from acting_sweep import ACTING, MACHINE
from hypothesis import given, settings
from hypothesis import strategies as st

import bench.gpu_check
import bench.profile
import bench.quality
import bench.sweep
from bench.plan.sweep import Sweep
from bench.records.record import SCHEMA
from bench.records.store import load_run
from bench.records.writer import RunWriter
from bench.run import environment
from bench.run.runner import Runner, plan
from ftmamba import backends

SCRIPT = Path(__file__).parent / "acting_sweep.py"
KILLS = int(os.environ.get("FTMAMBA_TEST_KILLS", "10"))
SMALL = ("--preset", "smoke", "--device", "cpu", "--mixers", "attention", "--tasks", "forward")


@pytest.fixture(autouse=True)
def acting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "probe", lambda **_: MACHINE)
    monkeypatch.setattr(bench.sweep, "Runner", functools.partial(Runner, worker=ACTING))
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on standard error of a command that ends with exit code 2."""
    assert bench.sweep.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")
    return printed.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--mixers lstm", "'lstm' for mixers; choose from mamba, attention"),
        ("--backends cudnn", "unknown backend 'cudnn'; choose for mamba: auto, numba"),
        ("--backends sdpa --mixers mamba", "unknown backend 'sdpa'; choose for mamba: auto"),
        ("--tasks fly", "'fly' for tasks; choose from forward, train_step"),
        ("--preset nope", "unknown preset 'nope'; choose from default, "),
        ("--preset nope.toml", "cannot read preset 'nope.toml': No such file"),
        ("--dtype float8", "'float8' for dtype; choose from float32"),
        ("--execution warp", "'warp' for execution; choose from eager"),
        ("--device tpu", "unknown device 'tpu'; choose from auto, cpu, cuda"),
        ("--device cuda", "device cuda is not usable: this build of torch has no CUDA"),
        ("--lengths 1", "lengths takes whole numbers from 2 "),
        ("--lengths 0", "lengths takes whole numbers from 2 "),
        ("--lengths -5", "got -5"),
        ("--lengths abc", "'abc' is not a whole number"),
        ("--lengths 1.5", "'1.5' is not a whole number"),
        ("--lengths=", "--lengths': is an empty list"),
        ("--lengths 100,,200", "empty place between its commas"),
        ("--lengths 99999999999999999999999", "lengths takes whole numbers from 2 to"),
        (f"--lengths {'9' * 5000}", "is not a whole number"),
        (f"--lengths {','.join(map(str, range(2, 1000)))} --seed 1 --layers {','.join(map(str, range(1, 999)))}",
         "cells, more than 100000"),
        ("--lengths", "requires an argument"),
        ("--batch-sizes 0", "batch_sizes takes whole numbers from 1 "),
        ("--layers 0", "layers takes whole numbers from 1 "),
        ("--d-model -64", "d_model takes whole numbers from 1 "),
        ("--d-model 100", "d_model 100 is not a multiple of n_heads 8"),
        ("--rounds 0", "rounds must be a whole number of at least 1, got 0"),
        ("--rounds x", "'x' is not a valid integer"),
        ("--budget 0", "budget_s must be a positive number of seconds, got 0.0"),
        ("--budget nan", "budget_s must be a positive number of seconds, got nan"),
        ("--timeout -1", "timeout_s must be a positive number"),
        ("--threads -1", "threads must be a whole number of at least 0"),
        ("--seed -1", "seed must be a whole number of at least 0"),
        ("--resume", "--resume needs --out"),
        ("--unknown", "No such option"),
        ("stray", "unexpected extra argument"),
        ("--out /proc/none/run", "cannot write to /proc/none/run"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_two(
    argv: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert message in refused(capsys, *argv.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("lengths = ", "is not valid TOML"),
        ("lengths = 100", "lengths must be a list, got 100"),
        ("lengths = []", "lengths is an empty list"),
        ("lengths = [[1]]", "lengths takes whole numbers from 2"),
        ("lengths = [true]", "lengths takes whole numbers from 2"),
        ("mixers = [{}]", "unknown value {} for mixers"),
        ("backends = [[]]", "unknown backend []"),
        ("rounds = 'x'", "rounds must be a whole number"),
        ("budget_s = true", "budget_s must be a positive number of seconds, got True"),
        ("device = 3", "unknown device 3"),
        ("speed = 3", "unknown setting 'speed'; choose from lengths"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_a_bad_preset_file_is_one_line_and_exit_code_two(
    toml: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(toml)
    assert message in refused(capsys, "--preset", "mine.toml")


def test_a_backend_that_is_not_installed_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda package: None)
    message = refused(capsys, "--device", "cpu", "--backends", "numba")
    assert "backend 'numba' cannot run here: numba not installed; install with: pip install" in message


def test_a_folder_that_holds_something_else_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.sweep.main([*SMALL, "--out", "run", "--quiet"]) == 0
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    capsys.readouterr()
    assert "already holds a run; continue it with --resume" in refused(capsys, *SMALL, "--out", "run")
    assert "was begun with lengths" in refused(capsys, *SMALL, "--out", "run", "--resume", "--lengths", "99")
    with RunWriter.resume(tmp_path / "run"):
        assert "is in use by another process" in refused(capsys, *SMALL, "--out", "run", "--resume")
    meta = json.loads((tmp_path / "run" / "run.json").read_text())

    def change(**fields: Any) -> None:
        (tmp_path / "run" / "run.json").write_text(json.dumps({**meta, **fields}))

    change(machine=[])
    assert "was begun with processor unknown, and here is Some CPU" in refused(capsys, "--out", "run", "--resume")
    change(machine={**MACHINE, "cpu": {"model": "Other CPU"}})
    assert "was begun with processor Other CPU, and here is Some CPU" in refused(capsys, "--out", "run", "--resume")
    change(schema=SCHEMA + 1)
    assert "has schema 2, newer than this program's 1" in refused(capsys, "--out", "run", "--resume")
    change(kind="quality")
    assert "does not hold a sweep" in refused(capsys, "--out", "run", "--resume")
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(capsys, *SMALL, "--out", "file/run")
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before


def test_a_sweep_ends_with_records_table_and_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = [*SMALL, "--lengths", "1000,2000,4000", "--rounds", "2", "--out", "results/mine"]
    assert bench.sweep.main(argv) == 0
    printed = capsys.readouterr()
    run = load_run(tmp_path / "results" / "mine")
    assert [record.status for record in run.records] == ["ok"] * 6
    assert run.meta["spec"]["lengths"] == [1000, 2000, 4000]
    assert run.meta["spec"]["backends"] == ["sdpa"]
    assert run.meta["ended_at"] >= run.meta["started_at"]
    assert "4.00 ms" in printed.out  # the acting worker takes a microsecond a token
    assert "reports/mine.html" in printed.out
    assert "<html" in (tmp_path / "reports" / "mine.html").read_text()
    assert len(re.findall(r"^\[\d/6\] forward-attention", printed.err, re.MULTILINE)) == 6


def test_records_come_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.sweep.main([*SMALL, "--json", "--quiet", "--out", "mine"]) == 0
    printed = capsys.readouterr()
    assert [record["cell"]["mixer"] for record in json.loads(printed.out)] == ["attention"] * 3
    assert printed.err == ""


def test_cells_are_listed_and_nothing_is_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.sweep.main([*SMALL, "--list", "--lengths", "100,1000"]) == 0
    assert "forward-attention-sdpa-L1000-B1-" in capsys.readouterr().out
    assert bench.sweep.main([*SMALL, "--list", "--json", "--layers", "2", "--lengths", "100,1000"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert [each["cell"]["n_tokens"] for each in cells] == [100, 1000]
    assert cells[1]["cost"]["flops"] > 10 * cells[0]["cost"]["flops"]
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.sweep.main(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "100,300,1000,3000,5500,10000" in printed
    assert "[default: (mamba,attention)]" in printed


def test_a_full_disk_ends_with_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.records.writer.os.fsync", full)
    assert "No space left on device" in refused(capsys, *SMALL, "--quiet", "--out", "run")


@pytest.mark.parametrize("name", ["<b>&", "\N{PILE OF POO}", "a\nb", "\x1b[31m", "-", "\udc80", "x/../y", "[bold]"])
def test_hostile_names_of_runs_are_names(name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.sweep.main([*SMALL, "--quiet", "--out", f"results/{name}"]) == 0
    printed = capfd.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in printed)
    (report,) = (tmp_path / "reports").iterdir()
    assert "<b>&" not in report.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "reports"}
    assert bench.sweep.main([*SMALL, "--quiet", "--out", f"results/{'x' * 10_000}"]) == 2


def test_a_report_goes_beside_its_records_where_reports_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "reports").write_text("")
    assert bench.sweep.main([*SMALL, "--quiet", "--out", "run"]) == 0
    told = "warning: cannot write the report reports/run.html: Not a directory; it is run/report.html instead\n"
    assert capsys.readouterr().err == told.replace("Not a directory", os.strerror(errno.EEXIST))
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_a_report_that_nothing_takes_costs_no_records(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    (tmp_path / "run" / "report.html").mkdir(parents=True)
    assert bench.sweep.main([*SMALL, "--quiet", "--out", "run"]) == 2
    assert "; the records are safe in run" in capsys.readouterr().err
    assert len(load_run(tmp_path / "run").records) == 3


def test_a_run_continues_only_where_there_is_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in ("empty", "none"):
        for command in (bench.sweep, bench.quality, bench.profile, bench.gpu_check):
            rehearse = ["--rehearse"] if command is bench.gpu_check else []
            assert command.main(["--resume", "--out", out, *rehearse]) == 2
            assert capsys.readouterr().err == f"error: {out} is not a results folder: it has no run.json\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_nobody_reads_ends_no_sweep(stream: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: unread}
        done = subprocess.run([sys.executable, SCRIPT, *SMALL, "--out", "run"], cwd=tmp_path, text=True, **streams)
    assert done.returncode == 0
    assert "Traceback" not in (done.stdout or "") + (done.stderr or "")
    assert load_run(tmp_path / "run").meta["ended_at"] is not None
    assert (tmp_path / "reports" / "run.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_table_that_finds_no_room_costs_no_report(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, SCRIPT, *SMALL, "--quiet", "--out", "run"], cwd=tmp_path, stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"error: standard output cannot be written: {os.strerror(errno.ENOSPC)}\n"
    assert (tmp_path / "reports" / "run.html").exists()


@pytest.mark.parametrize(
    ("encoding", "median"), [("ascii", b"32.0 us"), ("latin-1", b"32.0 \xb5s"), ("utf-8", "32.0 µs".encode())]
)
def test_every_encoding_has_a_table_and_a_report(encoding: str, median: bytes, tmp_path: Path) -> None:
    posix = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # names of files are ascii as well
    done = subprocess.run(
        [sys.executable, SCRIPT, *SMALL, "--quiet", "--out", "résumé"], cwd=tmp_path, capture_output=True, check=False,
        env={**os.environ, **(posix if encoding == "ascii" else {"PYTHONIOENCODING": encoding})},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert median in done.stdout
    assert len(list((tmp_path / "reports").iterdir())) == 1


def test_work_beside_the_sweep_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter(range(0, 10**6, 1000))
    monkeypatch.setattr("bench.run.runner._busy_cpu_s", lambda: float(next(seconds)))
    assert bench.sweep.main([*SMALL, "--quiet", "--out", "run"]) == 0
    assert "warning: 3 of 3 cells ran beside other work" in capsys.readouterr().out


# -- hostile command lines ---------------------------------------------------------------------------------------------

FLAGS = ["--lengths", "--batch-sizes", "--layers", "--d-model", "--mixers", "--tasks", "--backends", "--dtype",
         "--execution", "--rounds", "--budget", "--timeout", "--threads", "--seed", "--preset"]  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(-5, 5000), max_size=4).map(lambda sizes: ",".join(map(str, sizes))),
    st.sampled_from(["mamba", "attention,mamba", "forward", "auto", "sdpa", "numba,sdpa", "float32", "eager", "smoke",
                     "default", "../../etc/passwd.toml", "\x1b[31m", "'\"<script>", "x" * 10_000, "-", "--", "--list",
                     "\N{PILE OF POO}", "\udc80"]),
)  # fmt: skip


@given(pairs=st.lists(st.tuples(st.sampled_from(FLAGS), VALUES), max_size=5), stray=st.lists(VALUES, max_size=1))
@settings(max_examples=300)
def test_no_command_line_ends_in_a_traceback(pairs: list[tuple[str, str]], stray: list[str]) -> None:
    argv = ["--device", "cpu", "--list", *(part for pair in pairs for part in pair), *stray]
    assert bench.sweep.main(argv) in (0, 2)


PLAIN = st.recursive(
    st.one_of(
        st.integers(-10, 10**6), st.booleans(), st.floats(), st.text(max_size=5), st.sampled_from(["mamba", "auto"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
SETTINGS = {
    "lengths": [10], "batch_sizes": [1], "layers": [1], "mixers": ["mamba"], "tasks": ["forward"], "backends": ["auto"],
    "d_model": [16], "dtype": ["float32"], "execution": ["eager"], "device": "cpu", "rounds": 1, "budget_s": 1.0,
    "timeout_s": 1.0, "threads": 1, "seed": 0,
}  # fmt: skip


@given(changes=st.dictionaries(st.sampled_from([*SETTINGS, "other"]), PLAIN, max_size=3))
@settings(max_examples=300)
def test_no_settings_end_in_anything_but_a_plan_error(changes: dict[str, Any]) -> None:
    try:
        sweep = Sweep.from_dict({**SETTINGS, **changes})
        if sweep.device == "cpu":
            assert sweep.resolved("cpu").cells()
    except bench.sweep.PlanError:
        pass  # a message for people; anything else is a traceback


# -- sweeps that are cut short -----------------------------------------------------------------------------------------


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *SMALL, *argv], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_keeps_all_records_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, "--lengths", ",".join(map(str, range(1000, 2000))), "--out", "run")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[3/"):
            break
    for _ in range(50):  # whoever stops a group and its leader, or is impatient, sends several
        process.send_signal(number)
        time.sleep(0.002)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    last = err.splitlines()[-1]
    assert last.startswith("error: interrupted; all finished records are in run; continue with: ")
    assert "Traceback" not in err
    run = load_run(tmp_path / "run")
    assert len(run.records) >= 3
    assert run.problems == []
    assert run.meta["sessions"][0]["ended_at"] is not None
    assert run.meta["ended_at"] is None
    again = last.partition("python -m bench.sweep ")[2].split()
    assert again == ["--resume", "--out", "run"]


def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    moment = random.Random(0)
    begin = ("--lengths", ",".join(map(str, range(1000, 1000 + 8 * KILLS))), "--out", "run")

    def go_on() -> subprocess.Popen[str]:
        return start(tmp_path, *begin, *(["--resume"] if (tmp_path / "run" / "run.json").exists() else []))

    finished: list[tuple[str, int]] = []
    for _ in range(KILLS):
        process = go_on()
        time.sleep(moment.uniform(0.1, 1.2))
        process.kill()
        _, err = process.communicate(timeout=300)
        told = re.findall(r"^\[\d+/\d+\] (\S+) round (\d+): ok", err, re.MULTILINE)
        if not (tmp_path / "run" / "run.json").exists():
            assert told == []
            continue
        run = load_run(tmp_path / "run")
        held = [(record.cell_id, record.round) for record in run.records]
        assert len(set(held)) == len(held)
        assert held[: len(finished)] == finished
        assert {(cell_id, int(round_)) for cell_id, round_ in told} <= set(held)
        assert len(run.problems) <= 1
        finished = held
    process = go_on()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    run = load_run(tmp_path / "run")
    wanted = {(cell.id, round_) for round_, cell in plan(Sweep.from_dict(run.meta["spec"]))}
    assert {(record.cell_id, record.round) for record in run.records} == wanted
    assert len(run.records) == len(wanted)
    assert run.problems == []
