"""Whatever a cell does to its process ends as that cell's record, and the sweep goes on."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from acting_worker import LENGTH_OF

from bench.plan import presets
from bench.plan.sweep import Sweep
from bench.records.record import Record
from bench.records.store import load_run
from bench.records.writer import RunWriter
from bench.run.child import Outcome
from bench.run.runner import Runner, missing, plan, verdict

ACTING = (sys.executable, str(Path(__file__).parent / "acting_worker.py"))
MACHINE: dict[str, Any] = {"gpus": []}


def sweep_of(*lengths: int, **changes: Any) -> Sweep:
    settings = {**presets.load("smoke"), "lengths": lengths, "mixers": ["attention"], "tasks": ["forward"]}
    return Sweep.from_dict({**settings, **changes}).resolved("cpu", threads=2)


def run(sweep: Sweep, folder: Path, worker: tuple[str, ...] = ACTING, **settings: Any) -> dict[int, Record]:
    with RunWriter.create(folder, {}) as writer:
        Runner(sweep, MACHINE, writer, worker=worker, **settings).run(lambda record, seconds: None)
    return {record.cell["n_tokens"]: record for record in load_run(folder).records}


def act(name: str, tmp_path: Path, **settings: Any) -> Record:
    found = run(sweep_of(LENGTH_OF[name], 1000, **settings), tmp_path, skip_ahead=False)
    assert found[1000].status == "ok"
    return found[LENGTH_OF[name]]


@pytest.mark.parametrize(
    ("name", "status", "reason", "censored_by"),
    [
        ("raise_error", "error", "RuntimeError: first line second line", None),
        ("raise_memory_error", "oom", "MemoryError", "memory"),
        ("raise_torch_out_of_memory", "oom", "can't allocate memory", "memory"),
        ("run_into_the_memory_limit", "oom", "MemoryError", "memory"),
        ("kill_itself", "error", "ended by signal SIGKILL", None),
        ("fault", "error", "ended by signal SIGSEGV", None),
        ("flood_and_die", "error", "exited with code 7 and no result", None),
        ("answer_half", "error", "exited with code 0 and no result", None),
        ("not_a_number", "error", "ValueError: Out of range float values are not JSON compliant", None),
    ],
)
def test_a_failing_child_becomes_a_status_with_a_reason(
    name: str, status: str, reason: str, censored_by: str | None, tmp_path: Path
) -> None:
    record = act(name, tmp_path)
    assert record.status == status
    assert reason in record.reason
    assert record.notes.get("censored_by") == censored_by
    assert record.reason.isprintable()
    assert len(record.reason) < 700
    assert record.values["flops"]


def test_a_flood_of_output_neither_blocks_nor_spoils_a_result(tmp_path: Path) -> None:
    assert act("flood", tmp_path).status == "ok"


def test_a_hanging_child_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    hanging = ("sh", "-c", "sleep 600 & echo grandchild $!; wait")  # a shell is there at once, busy machine or not
    record = run(sweep_of(1000, timeout_s=2.0), tmp_path, hanging)[1000]
    assert record.status == "timeout"
    assert record.reason.startswith("did not end within 2 s; last output: grandchild ")
    assert record.notes["censored_by"] == "time"
    grandchild = int(record.reason.rpartition("grandchild ")[2])
    deadline = time.monotonic() + 60  # a tenth of what it wants to sleep
    while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the hanging child's own child is still there"
        time.sleep(0.02)


def test_a_child_killed_while_memory_was_short_ran_out_of_memory() -> None:
    killed = Outcome(
        reply=None, exit_code=-9, timed_out=False, tail="", wall_s=1.0, cpu_s=1.0, peak_rss_bytes=95
    )  # fmt: skip
    assert verdict(killed, 1.0, starved=False, free_bytes=1000)["status"] == "error"
    assert verdict(killed, 1.0, starved=True, free_bytes=1000)["status"] == "oom"
    assert verdict(killed, 1.0, starved=False, free_bytes=100)["status"] == "oom"
    aborted = replace(killed, exit_code=-6, tail="terminate called after throwing 'std::bad_alloc'")
    assert verdict(aborted, 1.0, starved=False, free_bytes=1000)["status"] == "oom"
    gone = replace(killed, exit_code=None, timed_out=True)
    assert verdict(gone, 1.0, starved=False, free_bytes=1000)["status"] == "timeout"


def test_larger_cells_are_left_out_after_one_ran_out_of_memory(tmp_path: Path) -> None:
    fatal = LENGTH_OF["raise_memory_error"]
    sweep = sweep_of(fatal, 5000, batch_sizes=[1, 2], rounds=2, seed=2)
    found = {}
    with RunWriter.create(tmp_path, {}) as writer:
        Runner(sweep, MACHINE, writer, worker=ACTING).run(
            lambda record, seconds: found.setdefault((record.round, record.cell_id), record)
        )
    records = list(found.values())
    assert len(records) == 8
    first = next(n for n, each in enumerate(records) if each.status == "oom")
    larger = [each for each in records[first + 1 :] if each.cell["batch_size"] >= records[first].cell["batch_size"]]
    assert larger
    assert {each.status for each in larger} == {"skipped"}
    assert {each.notes["censored_by"] for each in larger} == {"memory"}
    assert f"oom at n_tokens {fatal}" in larger[0].reason


def test_skipping_ahead_can_be_turned_off(tmp_path: Path) -> None:
    found = run(sweep_of(LENGTH_OF["raise_memory_error"], 5000, 6000), tmp_path, skip_ahead=False)
    assert sorted(record.status for record in found.values()) == ["ok", "ok", "oom"]


def test_a_cell_that_cannot_fit_is_not_tried(tmp_path: Path) -> None:
    record = run(sweep_of(1_000_000, batch_sizes=[1_000_000]), tmp_path)[1_000_000]
    assert record.status == "skipped"
    assert "GiB by arithmetic" in record.reason
    assert record.notes["censored_by"] == "memory"


def test_each_round_is_one_pass_in_an_order_of_its_own() -> None:
    sweep = sweep_of(*range(100, 110), rounds=3)
    order = plan(sweep)
    rounds = [[cell.id for round_, cell in order if round_ == wanted] for wanted in range(3)]
    assert [round_ for round_, _ in order] == [0] * 10 + [1] * 10 + [2] * 10
    assert {tuple(sorted(ids)) for ids in rounds} == {tuple(sorted(cell.id for cell in sweep.cells()))}
    assert len({tuple(ids) for ids in rounds}) == 3
    assert order == plan(sweep)
    assert order != plan(replace(sweep, seed=1))


def test_a_process_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("bench.run.child.subprocess.Popen", full)
    record = run(sweep_of(1000), tmp_path)[1000]
    assert (record.status, record.reason) == (
        "error",
        "no process could be started: Resource temporarily unavailable",
    )


def test_records_of_other_cells_foretell_nothing(tmp_path: Path) -> None:
    sweep = sweep_of(1000)
    stranger = Record(run="r", cell_id=sweep.cells()[0].id, round=7, cell={"n_tokens": 1}, status="oom", reason="why")
    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(stranger)
    ran = []
    with RunWriter.resume(tmp_path) as writer:
        Runner(sweep, MACHINE, writer, worker=ACTING).run(lambda record, seconds: ran.append(record.status))
    assert ran == ["ok"]


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    sweep = sweep_of(100, 200, 300, rounds=2)
    found = run(sweep, tmp_path)
    assert len(found) == 3
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:5]))
    ran = []
    with RunWriter.resume(tmp_path) as writer:
        assert len(missing(sweep, writer.records)) == 2
        Runner(sweep, MACHINE, writer, worker=ACTING).run(lambda record, seconds: ran.append(record.cell_id))
    assert len(ran) == 2
    records = load_run(tmp_path).records
    assert {(each.round, each.cell_id) for each in records} == {(n, cell.id) for n, cell in plan(sweep)}


def test_a_record_tells_the_state_of_the_machine(tmp_path: Path) -> None:
    env = run(sweep_of(1000), tmp_path)[1000].env
    assert env["threads"] == 2
    assert 0 < env["overhead_s"] <= env["process_s"]
    assert env["other_busy_cores"] >= 0
    assert env["load_average"] >= 0
