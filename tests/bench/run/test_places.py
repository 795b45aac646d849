"""Cells on many workers: what is lost is run again, nothing is written twice, and no two of them share a processor."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.plan import presets
from bench.plan.plan import Plan
from bench.records.record import Record
from bench.records.store import Run, by_kind, load_run
from bench.records.writer import RunWriter
from bench.run import provenance
from bench.run.environment import MachineError
from bench.run.fleet import Fleet, units_of
from bench.run.places import Berth, Place, look_around, open_place, remote, slots_of
from bench.run.runner import missing, planned
from bench.run.session import Conduct

SCRIPT = Path(__file__).parents[1] / "acting.py"
ACTING = (sys.executable, str(Path(__file__).parent / "acting_worker.py"))
FACTS: dict[str, Any] = {
    "cpu": {"model": "Some CPU"}, "gpus": [], "torch": {"version": "2.9"}, "threads": {"torch": 1},
}  # fmt: skip
WAIT_S = 300.0


def plan_of(*lengths: int, **changes: Any) -> Plan:
    own = {"lengths": lengths, "mixers": ["attention", "mamba"], "tasks": ["forward"], **changes}
    return Plan({**presets.load("smoke"), **own}).resolved("cpu")


class Nearby(Place):
    """Workers that are function calls here, and are lost when asked to be.

    Args:
        looks: what each worker sees.
        losses: by number of the call.
    """

    def __init__(self, looks: list[dict[str, Any]], losses: set[int] = frozenset(), machines: Any = None) -> None:  # type: ignore[assignment]
        self.looks, self.losses, self.machines = looks, losses, machines or {}
        self.berths = [Berth(str(n), len(each["cpus"]), 0, 4) for n, each in enumerate(looks)]
        self.called: list[tuple[Berth, str, dict[str, Any]]] = []
        self.todo: list[int] = []
        self.gone: set[str] = set()

    def submit(self, berth: Berth, what: str, request: dict[str, Any], n_cpus: int) -> int:
        self.called.append((berth, what, request))
        self.todo.append(len(self.called) - 1)
        return self.todo[-1]

    def wait(self, timeout_s: float) -> list[tuple[int, dict[str, Any] | str]]:
        number = self.todo.pop(0)
        berth, what, request = self.called[number]
        look = self.looks[int(berth.key)]
        if number in self.losses or berth.key in self.gone:
            return [(number, "killed")]
        if what == "look":
            return [(number, look)]
        if what == "probe":
            return [(number, self.machines.get(look["machine"], FACTS))]
        reply = remote.run(json.loads(json.dumps(request)))
        for answer in reply["answers"]:
            answer["env"]["machine"] = look["machine"]
        return [(number, reply)]

    def renewed(self, berth: Berth) -> Berth | None:
        return None if berth.key in self.gone else berth

    def close(self) -> None:
        pass


def look(machine: str, *cpus: int) -> dict[str, Any]:
    return {"machine": machine, "cpus": list(cpus), "code": provenance.code_id()}


def run_on(place: Nearby, plan: Plan, folder: Path, *, unlike: bool = False) -> list[Record]:
    machines, slots = look_around(place, plan, unlike=unlike)
    conduct = Conduct(command="bench.sweep", argv=[])
    with RunWriter.create(folder, {}) as writer:
        fleet = Fleet(plan, FACTS, writer, conduct, worker=ACTING, place=place, machines=machines, slots=slots)
        assert fleet.run(missing(plan, []), lambda record, seconds: None)
    return load_run(folder).records


def test_a_point_with_all_its_mixers_is_one_unit() -> None:
    plan = plan_of(100, 200, rounds=2)
    units = units_of(planned(plan))
    assert sorted(len(unit) for unit in units) == [2] * 4
    assert all({cell.mixer for _, cell in unit} == {"attention", "mamba"} for unit in units)
    assert all(len({(round_, cell.n_tokens) for round_, cell in unit}) == 1 for unit in units)


def test_no_two_slots_share_a_processor() -> None:
    berths = [Berth("a", 4, 0, 4), Berth("b", 4, 0, 4), Berth("c", 4, 2, 4)]
    seen = {"a": look("one", 0, 1, 2, 3), "b": look("one", 0, 1, 2, 3), "c": look("two", 4, 5, 6, 7)}
    found = slots_of(berths, seen, timed=False, device="cpu", threads=1)
    assert sorted((slot.machine, *slot.cpus) for slot in found) == [
        *(("one", cpu) for cpu in range(4)), *(("two", cpu) for cpu in range(4, 8)),
    ]  # fmt: skip
    timed = slots_of(berths, seen, timed=True, device="cpu", threads=1)
    assert [(slot.berth.key, slot.cpus) for slot in timed] == [("a", (0, 1, 2, 3)), ("c", (4, 5, 6, 7))]
    on_gpus = slots_of(berths, seen, timed=True, device="cuda", threads=0)
    assert [(slot.berth.key, slot.cpus) for slot in on_gpus] == [("c", (4, 5)), ("c", (6, 7))]


def test_many_workers_give_the_records_of_one(tmp_path: Path) -> None:
    plan = plan_of(100, 200, 300, rounds=2)
    place = Nearby([look("one", 0), look("two", 0)])
    records = run_on(place, plan, tmp_path)
    assert {(each.round, each.cell_id) for each in records} == {(n, cell.id) for n, cell in planned(plan)}
    assert all(each.status == "ok" and each.samples["wall_s"][0] == each.cell["n_tokens"] / 1e6 for each in records)
    machine_of: dict[tuple[int, int], set[str]] = {}
    for each in records:
        machine_of.setdefault((each.round, each.cell["n_tokens"]), set()).add(each.env["machine"])
    assert all(len(names) == 1 for names in machine_of.values())
    assert set.union(*machine_of.values()) == {"one", "two"}


def test_a_cell_whose_worker_is_lost_runs_again_twice(tmp_path: Path) -> None:
    lost = {2, 3}  # after a look and a probe
    assert {each.status for each in run_on(Nearby([look("one", 0)], lost), plan_of(100), tmp_path / "a")} == {"ok"}
    records = run_on(Nearby([look("one", 0)], {*lost, 4}), plan_of(100), tmp_path / "b")
    assert sorted((each.status, each.reason) for each in records) == [
        ("error", "worker lost 3 times: killed"), ("ok", ""),
    ]  # fmt: skip


def test_what_a_lost_machine_had_begun_runs_on_another(tmp_path: Path) -> None:
    place = Nearby([look("one", 0), look("two", 0)])
    submit = place.submit

    def submit_and_go(berth: Berth, what: str, request: dict[str, Any], n_cpus: int) -> int:
        if len(place.called) == 8:
            place.gone.add("1")
        return submit(berth, what, request, n_cpus)

    place.submit = submit_and_go  # type: ignore[method-assign]
    plan = plan_of(100, 200, 300, 400)
    records = run_on(place, plan, tmp_path)
    assert {each.cell_id for each in records} == {cell.id for cell in plan.cells()}
    assert {each.status for each in records} == {"ok"}


def test_without_any_worker_left_a_run_ends_in_one_line(tmp_path: Path) -> None:
    place = Nearby([look("one", 0)])
    place.renewed = lambda berth: None  # type: ignore[method-assign]
    place.losses = {3}
    with pytest.raises(MachineError, match="no worker is left; all finished records are safe"):
        run_on(place, plan_of(100), tmp_path)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1


def test_machines_that_are_not_alike_are_refused_or_kept_apart(tmp_path: Path) -> None:
    other = {**FACTS, "cpu": {"model": "Other CPU"}}
    place = Nearby([look("one", 0), look("two", 0)], machines={"two": other})
    plan = plan_of(100, 200, 300, rounds=3)
    with pytest.raises(MachineError, match=r"machines are not alike: processor Some CPU.*Other CPU"):
        look_around(place, plan, unlike=False)
    place = Nearby([look("one", 0), look("two", 0)], machines={"two": other})
    records = run_on(place, plan, tmp_path, unlike=True)
    parts = by_kind(load_run(tmp_path))
    assert [part.meta["machine"]["cpu"]["model"] for part in parts] == ["Some CPU", "Other CPU"]
    assert sum(len(part.records) for part in parts) == len(records) == 18
    assert all(len({each.env["machine"] for each in part.records}) == 1 for part in parts)
    of_cell = [{each.env["machine"] for each in records if each.cell_id == cell.id} for cell in plan.cells()]
    assert all(len(names) == 1 for names in of_cell)  # all rounds of a cell on one kind


def test_a_run_on_machines_that_are_alike_is_one() -> None:
    run = Run("r", {"machines": {"a": {"kind": "k"}, "b": {"kind": "k"}}}, [])
    assert by_kind(run) == [run]


def test_a_worker_with_another_version_is_refused() -> None:
    place = Nearby([look("one", 0), {**look("two", 0), "code": "00000000"}])
    with pytest.raises(MachineError, match="1 of 2 workers have another version of this project"):
        look_around(place, plan_of(100), unlike=False)


@pytest.mark.parametrize(("on", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_is_told(
    on: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=f"install it: pip install '?{module}"):
        open_place(on, tmp_path, plan_of(100), 1)


# -- the engines themselves --------------------------------------------------------------------------------------------

# Of a worker's command line. Ray's own agents are "ray::" something too, and a node goes with them.
MARK = {"ray": "ray::call", "slurm": "submitit.core._submit"}
ENGINE = {"ray": "ray", "slurm": "submitit"}
QUALITY = ("quality", "--dataset", "synthetic:users=20:items=10:columns=2:pairs=5", "--mixers", "attention,mamba",
           "--baselines", "none", "--threads", "1", "--device", "cpu")  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of Ray on this machine, each with a processor to give."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.add_node(**small)
    yield made
    made.shutdown()


def start(folder: Path, on: str, n_seeds: int) -> subprocess.Popen[str]:
    resume = (folder / "run" / "run.json").exists()
    seeds = ["--seeds", ",".join(map(str, range(n_seeds)))]
    begun = [QUALITY[0], "--resume"] if resume else [*QUALITY, *seeds]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *begun, "--out", "run", "--on", on, "--workers", "2"], cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "FTMAMBA_DATA": str(folder / "data")},
    )  # fmt: skip


def held(folder: Path) -> int:
    path = folder / "run" / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_more(folder: Path, process: subprocess.Popen[str], n: int) -> bool:
    """Whether a record more than ``n`` comes before the driver ends."""
    deadline = time.monotonic() + WAIT_S
    while held(folder) <= n:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)
    return True


def workers(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def check_whole(folder: Path, n_seeds: int) -> list[Record]:
    run = load_run(folder / "run")
    wanted = {(cell.id, round_) for round_, cell in planned(Plan(run.meta["spec"]))}
    assert len(wanted) == 2 * n_seeds
    assert len((folder / "run" / "records.jsonl").read_text().splitlines()) == len(run.records) == len(wanted)
    assert {(each.cell_id, each.round) for each in run.records} == wanted
    assert {each.status for each in run.records} == {"ok"}
    assert run.problems == []
    return run.records


@pytest.mark.parametrize(
    ("worker_kills", "driver_kills"), [pytest.param(20, 5, marks=pytest.mark.slow), (2, 1)], ids=["many", "few"]
)
@pytest.mark.parametrize("place", ["ray", "slurm"])
def test_kills_of_workers_and_drivers_lose_and_double_nothing(
    place: str, worker_kills: int, driver_kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip(ENGINE[place])
    on = f"ray:{request.getfixturevalue('cluster').address}" if place == "ray" else "slurm:local"
    n_seeds, chance = 4 + worker_kills + 2 * driver_kills, random.Random(place)
    moments = ["worker"] * worker_kills + ["driver"] * driver_kills
    chance.shuffle(moments)
    process = start(tmp_path, on, n_seeds)
    for moment in moments:
        assert wait_for_more(tmp_path, process, held(tmp_path)), process.communicate()[1]
        if moment == "driver":
            process.kill()
            process.communicate()
            process = start(tmp_path, on, n_seeds)
            continue
        deadline = time.monotonic() + WAIT_S
        while not (alive := workers(MARK[place])):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        chance.choice(alive).kill()
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    records = check_whole(tmp_path, n_seeds)
    if len(os.sched_getaffinity(0)) > 1:
        assert len({tuple(each.env["affinity"]) for each in records}) == 2
    assert {len(each.env["affinity"]) for each in records} == {1}
    assert not (tmp_path / "run" / "slurm").exists()


def test_a_node_that_is_taken_away_midway_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    process = start(tmp_path, f"ray:{cluster.address}", 6)
    assert wait_for_more(tmp_path, process, 1), process.communicate()[1]
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    check_whole(tmp_path, 6)


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_an_interrupt_ends_workers_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "slurm:local", 50)
    assert wait_for_more(tmp_path, process, 1), process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "interrupted; all finished records are in run; continue with: " in err.splitlines()[-1]
    assert "Traceback" not in err
    deadline = time.monotonic() + WAIT_S
    while any(str(tmp_path) in " ".join(each.cmdline()) for each in workers(MARK["slurm"])):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.05)
