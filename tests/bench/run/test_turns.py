"""Turns: their order, children that fail in every way, the code that each side runs, and commits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.plan.cell import Cell
from bench.records.store import RunError
from bench.run import turns
from bench.run.provenance import ROOT
from bench.run.turns import SideError, Version, commit, in_turns, rounds_of

CELLS = [Cell(task="forward", mixer="mean", backend="torch", n_tokens=n, batch_size=1, n_layers=1, d_model=8)
         for n in (4, 5)]  # fmt: skip
WORKER = """
import os, sys, time
import ftmamba
from bench.run.turns import serve

def ready(job):
    if job["do"] == "raise":
        raise MemoryError("all of it")
    if job["do"] == "exit":
        sys.exit("last words")
    notes = {"at": ftmamba.__file__, "waiting": os.environ.get("OMP_WAIT_POLICY", "")}
    return lambda: time.sleep(job["s"]), "cpu", notes

serve(ready)
"""
PLAN = {"rounds": 3, "budget_s": 0.01, "timeout_s": 60.0}
SLEEP = {"do": "sleep", "s": 0.002}


class Acting:
    """A side whose iterations take what it says, without a child."""

    def __init__(self, name, seconds, told):
        self.name, self._seconds, self._told = name, seconds, told

    def tell(self, message):
        self._told.append((self.name, message["n"]))
        self._n = message["n"]

    def answer(self):
        return {"seconds": [self._seconds] * self._n}


@pytest.fixture
def versions(tmp_path):
    (tmp_path / "acting_turns.py").write_text(WORKER)
    shutil.copytree(ROOT / "ftmamba", tmp_path / "ftmamba", ignore=shutil.ignore_patterns("__pycache__"))
    return Version("mine", tmp_path, "acting_turns"), Version("other", tmp_path, "acting_turns")


def test_turns_go_a_b_b_a_in_blocks_of_equal_time():
    told: list[tuple[str, int]] = []
    samples = in_turns([Acting("a", 0.001, told), Acting("b", 0.005, told)], 0.05, first=1)
    names = "".join(name for name, _ in told)
    assert names == ("baab" + "abba") * (len(names) // 8) + "baab" * (len(names) // 4 % 2)
    assert set(told[2:]) == {("a", 15), ("b", 3)}
    assert sum(samples["wall_s"]) + sum(samples["paired_wall_s"]) >= 0.1
    assert set(samples["wall_s"]) == {0.001}
    assert set(samples["paired_wall_s"]) == {0.005}


def test_each_side_runs_the_core_of_its_folder(versions):
    """And cells that are told are not run again; the ratio is that of the planted sleep."""
    jobs = [(cell, {**SLEEP, "s": 0.004}, SLEEP) for cell in CELLS]
    here = Version("here", worker="acting_turns", folder=versions[0].folder)
    records = list(rounds_of(jobs, (here, versions[1]), PLAN, 1, "r", lambda found: {CELLS[0].id}))
    assert [record.round for record in records] == [0, 0, 1, 2]
    assert {record.cell_id for record in records[2:]} == {CELLS[0].id}
    for record in records:
        assert record.status == "ok"
        assert Path(record.notes["at"]).is_relative_to(versions[1].folder)
        assert record.notes["paired_with"] == "other"
        assert min(record.samples["wall_s"]) >= 0.004 > min(record.samples["paired_wall_s"]) >= 0.002


@pytest.mark.parametrize(
    ("does", "status", "reason"),
    [("raise", "oom", "other: MemoryError: all of it"),
     ("exit", "error", "other: ended without an answer; last output: last words")],
)  # fmt: skip
def test_a_side_that_fails_is_told_and_others_go_on(versions, does, status, reason):
    jobs = [(CELLS[0], SLEEP, {**SLEEP, "do": does}), (CELLS[1], SLEEP, SLEEP)]
    records = list(rounds_of(jobs, versions, {**PLAN, "rounds": 1}, 1, "r", lambda found: ()))
    told = {record.cell_id: record for record in records}
    assert (told[CELLS[0].id].status, told[CELLS[0].id].reason) == (status, reason)
    assert told[CELLS[0].id].notes["failed"] == "other"
    assert told[CELLS[1].id].status == "ok"


@pytest.mark.parametrize(("cores", "waiting"), [(0.0, ""), (1.0, "passive")])
def test_threads_do_not_spin_beside_other_work(versions, monkeypatch, cores, waiting):
    clock = iter([0.0, cores * turns.LOOK_S])
    monkeypatch.setattr(turns, "busy_cpu_s", lambda: next(clock))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    (record,) = rounds_of([(CELLS[0], SLEEP, SLEEP)], versions, {**PLAN, "rounds": 1}, 1, "r", lambda found: ())
    assert record.notes["waiting"] == waiting
    assert record.env == {"threads": 1, "other_busy_cores": cores}


def test_a_side_that_hangs_is_a_timeout(tmp_path):
    (tmp_path / "hanging.py").write_text("import time; time.sleep(60)")
    with turns.Side(Version("mine", tmp_path, "hanging"), 1, 0.2, passive=False) as side:
        with pytest.raises(SideError, match=r"mine: gave no answer within 0\.2 s") as told:
            side.answer()
        assert told.value.status == "timeout"


def test_a_side_that_has_died_is_an_error(versions):
    with turns.Side(versions[0], 1, 5.0, passive=True) as side:
        side._process.kill()
        side._process.wait()
        side.tell({"n": 1})
        with pytest.raises(SideError, match="mine: ended without an answer"):
            side.answer()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Two commits: without a model core, and with one."""

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments],
                       check=True, capture_output=True)  # fmt: skip

    git("init")
    git("commit", "--allow-empty", "-m", "nothing")
    git("tag", "nothing")
    (tmp_path / "ftmamba").mkdir()
    (tmp_path / "ftmamba" / "a.py").write_text("old")
    git("add", "ftmamba")
    git("commit", "-m", "core")
    (tmp_path / "ftmamba" / "a.py").write_text("new")
    monkeypatch.setattr(turns, "ROOT", tmp_path)


def test_a_commit_is_there_for_a_while(repository):
    with commit("HEAD") as version:
        assert (version.folder / "ftmamba" / "a.py").read_text() == "old"
        assert version.name.startswith("commit ")
    assert not version.folder.exists()


@pytest.mark.parametrize("ref", ["nothing", "no-such", "--help", "", "a\0b", "HEAD:ftmamba"])
def test_what_is_no_commit_with_a_core_is_refused(repository, ref):
    with pytest.raises(RunError, match="is no commit of"), commit(ref):
        pass
