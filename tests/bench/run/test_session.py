"""A session that is cut short, whatever command began it: what was measured stays, and the rest is run later."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.plan.plan import Plan
from bench.records.store import load_run
from bench.run import session
from bench.run.runner import planned

SCRIPT = Path(__file__).parents[1] / "acting.py"
KILLS = int(os.environ.get("FTMAMBA_TEST_KILLS", "10"))
MANY = ",".join(map(str, range(1000, 1000 + 8 * KILLS)))
FEWER = ",".join(map(str, range(1000, 1000 + 3 * KILLS)))
TINY = "synthetic:users=20:items=10:columns=2:pairs=5"
COMMANDS = {
    "sweep": ("--preset", "smoke", "--mixers", "attention", "--tasks", "forward", "--lengths", MANY),
    "quality": ("--dataset", TINY, "--mixers", "attention", "--baselines", "random", "--seeds", FEWER),
    "profile": ("--mixers", "attention", "--lengths", FEWER),
}


def heed() -> None:
    """Take signals as in a terminal: jobs in the background are begun without SIGINT, those of nohup without SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(folder: Path, command: str) -> subprocess.Popen[str]:
    """Begin the run in ``folder``, or continue it where there is one."""
    resume = ["--resume"] if (folder / "run" / "run.json").exists() else []
    begin = [] if resume else [*COMMANDS[command], "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), command, *begin, "--out", "run", *resume], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "FTMAMBA_DATA": str(folder / "data")},
        preexec_fn=heed,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_keeps_all_records_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, "sweep")
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


@pytest.mark.parametrize("command", COMMANDS)
def test_kills_at_random_moments_lose_and_double_nothing(command: str, tmp_path: Path) -> None:
    moment = random.Random(command)
    finished: list[tuple[str, int]] = []
    for _ in range(KILLS if command == "sweep" else KILLS // 2):
        process = start(tmp_path, command)
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
    process = start(tmp_path, command)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    run = load_run(tmp_path / "run")
    wanted = {(cell.id, round_) for round_, cell in planned(Plan(run.meta["spec"]))}
    assert {(record.cell_id, record.round) for record in run.records} == wanted
    assert len(run.records) == len(wanted)
    assert run.problems == []


@pytest.mark.parametrize(("taken_s", "told"), [(0.6, "busy, others take 1.2 cores"), (0.05, "")])
def test_a_busy_machine_is_told_so_before_a_run(
    naps: None, monkeypatch: pytest.MonkeyPatch, taken_s: float, told: str
) -> None:
    readings = iter([100.0, 100.0 + taken_s])
    monkeypatch.setattr(session, "busy_cpu_s", lambda: next(readings))
    assert session.disturbance("cpu") == told
