"""The command as people meet it: what it refuses, what it keeps, how it ends."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from acting import ACTING, MACHINE
from hypothesis import given, settings
from hypothesis import strategies as st

import bench.profile
import bench.quality
import bench.sweep
from bench.plan import presets
from bench.plan.plan import Plan
from bench.plan.setting import PlanError
from bench.records.record import SCHEMA
from bench.records.store import load_run
from bench.records.writer import RunWriter
from bench.run import environment, session
from bench.run.runner import Runner
from ftmamba import backends

SCRIPT = Path(__file__).parent / "acting.py"
KILLS = int(os.environ.get("FTMAMBA_TEST_KILLS", "10"))
SMALL = ("--preset", "smoke", "--device", "cpu", "--mixers", "attention", "--tasks", "forward")


@pytest.fixture(autouse=True)
def acting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "probe", lambda **_: MACHINE)
    monkeypatch.setattr(session, "Runner", functools.partial(Runner, worker=ACTING))
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
        ("--mixers lstm", "unknown mixer 'lstm'; choose from mamba, attention"),
        ("--mixers mamba:d_stat=3", "mamba has no parameter 'd_stat'; choose from d_state"),
        ("--backends cudnn", "unknown backend 'cudnn'; choose for mamba: auto, numba"),
        ("--backends sdpa --mixers mamba", "unknown backend 'sdpa'; choose for mamba: auto"),
        ("--tasks fly", "'fly' for tasks; choose from block_forward"),
        ("--preset nope", "unknown preset 'nope'; choose from ablations-cpu, "),
        ("--preset nope.toml", "cannot read preset 'nope.toml': No such file"),
        ("--dtype float8", "'float8' for dtype; choose from float32"),
        ("--execution warp", "'warp' for execution; choose from eager"),
        ("--device tpu", "'tpu' for device; choose from cpu, cuda or auto"),
        ("--device cuda", "device cuda is not usable: this build of torch has no CUDA"),
        ("--lengths 1", "a table has at least 2 tokens"),
        ("--lengths 0", "lengths takes whole numbers from 1 "),
        ("--lengths -5", "got -5"),
        ("--lengths abc", "lengths takes whole numbers from 1 to 10,000,000, got 'abc'"),
        ("--lengths 1.5", "got '1.5'"),
        ("--lengths=", "is an empty list"),
        ("--lengths 100,,200", "empty place between its commas"),
        ("--lengths 99999999999999999999999", "lengths takes whole numbers from 1 to"),
        (f"--lengths {'9' * 5000}", "lengths takes whole numbers from 1 to"),
        (f"--lengths {','.join(map(str, range(2, 1000)))} --seed 1 --layers {','.join(map(str, range(1, 999)))}",
         "cells, more than 100,000"),
        ("--lengths", "requires an argument"),
        ("--batch-sizes 0", "batch_sizes takes whole numbers from 1 "),
        ("--batch-sizes auto", "batch_sizes"),
        ("--layers 0", "layers takes whole numbers from 1 "),
        ("--d-model -64", "d_model takes whole numbers from 1 "),
        ("--d-model 100 --heads own", "d_model 100 is not a multiple of n_heads 8"),
        ("--rounds 0", "rounds takes whole numbers from 1 to 10,000, got 0"),
        ("--rounds x", "rounds takes whole numbers from 1 to 10,000, got 'x'"),
        ("--budget 0", "budget_s takes numbers between 0 and"),
        ("--budget nan", "budget_s takes numbers between 0 and"),
        ("--timeout -1", "timeout_s takes numbers between 0 and"),
        ("--threads -1", "threads takes whole numbers from 0 "),
        ("--seed -1", "seeds takes whole numbers from 0 "),
        ("--paired-with bread", "unknown mixer 'bread'"),
        ("--datasets coupon", "datasets says nothing to forward, train_step; leave it out"),
        ("--seconds 0", "not in the range"),
        ("--retry", "--retry needs --resume"),
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
        ("lengths = []", "lengths is an empty list"),
        ("lengths = [[1]]", "lengths takes whole numbers from 1"),
        ("lengths = [true]", "lengths takes whole numbers from 1"),
        ("mixers = [{}]", "mixers takes names, got {}"),
        ("backends = [[]]", "backends takes names, got []"),
        ("rounds = 'x'", "rounds takes whole numbers"),
        ("budget_s = true", "budget_s takes numbers between 0 and 10,000,000.0, got True"),
        ("device = 3", "device takes names, got 3"),
        ("speed = 3", "unknown setting 'speed'; choose from tasks"),
        ("extends = 'nope'", "unknown preset 'nope'"),
        ("extends = 3", "extends takes the name of a preset"),
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
    assert f"has schema {SCHEMA + 1}, newer than this program's {SCHEMA}" in refused(capsys, "--out", "run", "--resume")
    change(spec=None)
    assert "does not hold a run that can be continued" in refused(capsys, "--out", "run", "--resume")
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
    assert run.meta["spec"]["backends"] == ["attention/numba"]
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
    out = capsys.readouterr().out
    assert "forward-attention-numba-L1000-B1-" in out
    assert out.splitlines()[0].split()[:2] == ["cell", "n_tokens"]
    assert "2 cells, 1 round, device cpu, about " in out
    assert "all: cpu, float32, B 1, 1 layer, d 32" in out
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


def test_a_run_may_get_more_rounds_and_another_timeout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.sweep.main([*SMALL, "--quiet", "--out", "run"]) == 0
    assert bench.sweep.main(["--quiet", "--resume", "--out", "run", "--rounds", "3", "--timeout", "77"]) == 0
    run = load_run(tmp_path / "run")
    assert len(run.records) == 9
    assert (run.meta["spec"]["rounds"], run.meta["spec"]["timeout_s"], len(run.meta["sessions"])) == (3, 77.0, 2)
    capsys.readouterr()
    assert "was begun with rounds 3, not 2" in refused(capsys, "--resume", "--out", "run", "--rounds", "2")


def test_a_session_ends_when_its_time_is_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.sweep.main([*SMALL, "--quiet", "--out", "run", "--seconds", "0.001"]) == 130
    assert "time is up; all finished records are in run; continue with: python -m bench.sweep --resume" in (
        capsys.readouterr().err
    )
    assert load_run(tmp_path / "run").meta["ended_at"] is None
    assert bench.sweep.main(["--quiet", "--resume", "--out", "run"]) == 0
    assert len(load_run(tmp_path / "run").records) == 3


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
        for command in (bench.sweep, bench.quality, bench.profile):
            assert command.main(["--resume", "--out", out]) == 2
            assert capsys.readouterr().err == f"error: {out} is not a results folder: it has no run.json\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_nobody_reads_ends_no_sweep(stream: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: unread}
        done = subprocess.run(
            [sys.executable, SCRIPT, "sweep", *SMALL, "--out", "run"], cwd=tmp_path, text=True, **streams
        )
    assert done.returncode == 0
    assert "Traceback" not in (done.stdout or "") + (done.stderr or "")
    assert load_run(tmp_path / "run").meta["ended_at"] is not None
    assert (tmp_path / "reports" / "run.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_table_that_finds_no_room_costs_no_report(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, SCRIPT, "sweep", *SMALL, "--quiet", "--out", "run"], cwd=tmp_path, stdout=full,
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
        [sys.executable, SCRIPT, "sweep", *SMALL, "--quiet", "--out", "résumé"], cwd=tmp_path,
        capture_output=True, check=False,
        env={**os.environ, **(posix if encoding == "ascii" else {"PYTHONIOENCODING": encoding})},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert median in done.stdout
    assert len(list((tmp_path / "reports").iterdir())) == 1


def test_work_beside_the_sweep_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter(range(0, 10**6, 1000))
    monkeypatch.setattr("bench.run.attempt.busy_cpu_s", lambda: float(next(seconds)))
    assert bench.sweep.main([*SMALL, "--quiet", "--out", "run"]) == 0
    assert "Warning: 3 of 3 readings ran beside other work" in capsys.readouterr().out


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
SETTINGS = {**presets.load("default"), "lengths": [10], "device": "cpu"}


@given(changes=st.dictionaries(st.sampled_from([*SETTINGS, "other"]), PLAIN, max_size=3))
@settings(max_examples=300)
def test_no_settings_end_in_anything_but_a_plan_error(changes: dict[str, Any]) -> None:
    try:
        plan = Plan({**SETTINGS, **changes})
        if plan.device == "cpu":
            assert plan.resolved("cpu").cells()
    except PlanError:
        pass  # a message for people; anything else is a traceback
