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
from bench.plan.plan import Plan
from bench.records.record import Record
from bench.records.store import load_run
from bench.records.writer import RunWriter
from bench.run.attempt import verdict
from bench.run.child import Outcome
from bench.run.runner import Runner, missing, planned
from bench.run.session import Conduct

ACTING = (sys.executable, str(Path(__file__).parent / "acting_worker.py"))
MACHINE: dict[str, Any] = {"gpus": [], "threads": {"torch": 2}}
CONDUCT = Conduct(command="bench.sweep", argv=[])


def plan_of(*lengths: int, **changes: Any) -> Plan:
    settings = {**presets.load("smoke"), "lengths": lengths, "mixers": ["attention"], "tasks": ["forward"]}
    return Plan({**settings, **changes}).resolved("cpu")


def run(plan: Plan, folder: Path, worker: tuple[str, ...] = ACTING, **conduct: Any) -> dict[int, Record]:
    with RunWriter.create(folder, {}) as writer:
        run_into(writer, plan, worker, **conduct)
    return {record.cell["n_tokens"]: record for record in load_run(folder).records}


def run_into(writer: RunWriter, plan: Plan, worker: tuple[str, ...] = ACTING, **conduct: Any) -> list[Record]:
    found: list[Record] = []
    runner = Runner(plan, MACHINE, writer, replace(CONDUCT, **conduct), worker=worker)
    assert runner.run(missing(plan, writer.records), lambda record, seconds: found.append(record))
    return found


def act(name: str, tmp_path: Path, **settings: Any) -> Record:
    found = run(plan_of(LENGTH_OF[name], 1000, **settings), tmp_path, skip_ahead=False)
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
    record = run(plan_of(1000, timeout_s=2.0), tmp_path, hanging)[1000]
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
    plan = plan_of(fatal, 5000, batch_sizes=[1, 2], rounds=2, seeds=[2])
    with RunWriter.create(tmp_path, {}) as writer:
        records = run_into(writer, plan)
    assert len(records) == 8
    first = next(n for n, each in enumerate(records) if each.status == "oom")
    larger = [each for each in records[first + 1 :] if each.cell["batch_size"] >= records[first].cell["batch_size"]]
    assert larger
    assert {each.status for each in larger} == {"skipped"}
    assert {each.notes["censored_by"] for each in larger} == {"memory"}
    assert f"oom at n_tokens {fatal}" in larger[0].reason


def test_skipping_ahead_can_be_turned_off(tmp_path: Path) -> None:
    found = run(plan_of(LENGTH_OF["raise_memory_error"], 5000, 6000), tmp_path, skip_ahead=False)
    assert sorted(record.status for record in found.values()) == ["ok", "ok", "oom"]


def test_a_cell_that_cannot_fit_is_not_tried(tmp_path: Path) -> None:
    record = run(plan_of(1_000_000, batch_sizes=[1_000_000]), tmp_path)[1_000_000]
    assert record.status == "skipped"
    assert "GiB by arithmetic" in record.reason
    assert record.notes["censored_by"] == "memory"


def test_each_round_is_one_pass_in_an_order_of_its_own() -> None:
    plan = plan_of(*range(100, 110), rounds=3)
    order = planned(plan)
    rounds = [[cell.id for round_, cell in order if round_ == wanted] for wanted in range(3)]
    assert [round_ for round_, _ in order] == [0] * 10 + [1] * 10 + [2] * 10
    assert {tuple(sorted(ids)) for ids in rounds} == {tuple(sorted(cell.id for cell in plan.cells()))}
    assert len({tuple(ids) for ids in rounds}) == 3
    assert order == planned(plan)
    assert order != planned(plan.but(seeds=[1]))


def test_a_process_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("bench.run.child.subprocess.Popen", full)
    record = run(plan_of(1000), tmp_path)[1000]
    assert (record.status, record.reason) == (
        "error",
        "no process could be started: Resource temporarily unavailable",
    )


def test_records_of_other_cells_foretell_nothing(tmp_path: Path) -> None:
    plan = plan_of(1000)
    stranger = Record(run="r", cell_id=plan.cells()[0].id, round=7, cell={"n_tokens": 1}, status="oom", reason="why")
    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(stranger)
    with RunWriter.resume(tmp_path) as writer:
        assert [record.status for record in run_into(writer, plan)] == ["ok"]


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    plan = plan_of(100, 200, 300, rounds=2)
    found = run(plan, tmp_path)
    assert len(found) == 3
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:5]))
    with RunWriter.resume(tmp_path) as writer:
        assert len(missing(plan, writer.records)) == 2
        assert len(run_into(writer, plan)) == 2
    records = load_run(tmp_path).records
    assert {(each.round, each.cell_id) for each in records} == {(n, cell.id) for n, cell in planned(plan)}


def test_a_record_tells_the_state_of_the_machine(tmp_path: Path) -> None:
    env = run(plan_of(1000), tmp_path)[1000].env
    assert env["threads"] == 2
    assert 0 < env["overhead_s"] <= env["process_s"]
    assert env["other_busy_cores"] >= 0
    assert env["load_average"] >= 0


def test_cells_share_a_process_on_request(tmp_path: Path) -> None:
    found = run(plan_of(100, 200, 300, 400, cells_per_process=3), tmp_path)
    assert {record.samples["wall_s"][0] for record in found.values()} == {1e-4, 2e-4, 3e-4, 4e-4}
    assert sorted(record.env.get("shared_process", False) for record in found.values()) == [False, True, True, True]


@pytest.mark.parametrize("name", ["raise_error", "kill_itself", "answer_half"])
def test_a_cell_that_ends_a_shared_process_costs_no_other(name: str, tmp_path: Path) -> None:
    fatal = LENGTH_OF[name]
    plan = plan_of(100, fatal, 200, 300, cells_per_process=4, order="given")
    found = run(plan, tmp_path, skip_ahead=False)
    assert {n for n, record in found.items() if record.status != "ok"} == {fatal}
    assert found[fatal].status == "error"
    assert found[300].samples["wall_s"] == [3e-4] * 3


def test_no_cell_is_begun_after_the_deadline(tmp_path: Path) -> None:
    plan = plan_of(100, 200)
    with RunWriter.create(tmp_path, {}) as writer:
        runner = Runner(plan, MACHINE, writer, CONDUCT, worker=ACTING)
        ran: list[Record] = []
        assert not runner.run(missing(plan, []), lambda record, seconds: ran.append(record), time.monotonic() - 1)
        assert ran == []


def test_as_many_points_as_are_due_are_run_whatever_the_time(tmp_path: Path) -> None:
    plan = plan_of(100, 200, 300, order="given")
    with RunWriter.create(tmp_path, {}) as writer:
        runner = Runner(plan, MACHINE, writer, replace(CONDUCT, at_least=2), worker=ACTING)
        ran: list[Record] = []
        assert not runner.run(missing(plan, []), lambda record, seconds: ran.append(record), time.monotonic() - 1)
        assert [record.cell["n_tokens"] for record in ran] == [100, 200]


def test_what_ended_in_an_error_is_run_again_on_request(tmp_path: Path) -> None:
    plan = plan_of(100, 200)
    with RunWriter.create(tmp_path, {}) as writer:
        for cell, status in zip(plan.cells(), ("error", "timeout"), strict=True):
            writer.append(
                Record(run="r", cell_id=cell.id, round=0, cell=dict(cell), status=status, reason="planted")  # type: ignore[arg-type]
            )
    with RunWriter.resume(tmp_path) as writer:
        assert missing(plan, writer.records) == []
        (again,) = missing(plan, writer.records, retry=True)
        runner = Runner(plan, MACHINE, writer, CONDUCT, worker=ACTING)
        assert runner.run([again], lambda record, seconds: None)
    run_ = load_run(tmp_path)
    assert [(record.cell["n_tokens"], record.status) for record in run_.records] == [(100, "ok"), (200, "timeout")]
    assert run_.problems == []
