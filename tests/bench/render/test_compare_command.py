"""The command: tables, JSON, exit codes, files of pytest-benchmark."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from acting import MACHINE

import bench.compare
from bench.compare import main
from bench.records.record import Record
from bench.records.store import RECORDS_FILE, RUN_FILE, load_run

COSTS = {"mamba": lambda n: 1e-6 * n}
BENCHMARKS = """
import pytest

now = 0.0

def clock():
    global now
    now += 1e-9
    return now

def wait(seconds):
    global now
    now += seconds

@pytest.mark.parametrize("n_tokens", [10, 20])
@pytest.mark.benchmark(timer=clock)
def test_wait(benchmark, n_tokens):
    benchmark.extra_info.update(mixer="mamba", backend="numba", batch_size=4, peak_memory_bytes=123)
    benchmark.pedantic(wait, args=(n_tokens * FACTOR,), rounds=8)
"""


@pytest.fixture
def write_run(planted_records, tmp_path):
    def write(name, factor=1.0, **options):
        folder = tmp_path / name
        folder.mkdir()
        (folder / RUN_FILE).write_text(json.dumps({"schema": 1, "machine": {"cpu": {"model": name}}}))
        records = planted_records({"mamba": lambda n: factor * 1e-6 * n}, **{"between": 0.002, **options})
        (folder / RECORDS_FILE).write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
        return str(folder)

    return write


def test_table_and_differences(write_run, capsys):
    assert main([write_run("old"), write_run("new", 1.2, seed=1)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "differs: machine cpu model: old -> new"
    assert out.count(" slower ") == 5
    assert "time, new against old: 5 slower" in out


def test_fail_over(write_run, capsys):
    old, new = write_run("old"), write_run("new", 1.2, seed=1)
    assert main([old, new, "--fail-over", "5%"]) == 1
    assert "regression: forward-mamba-numba-L100-B8" in capsys.readouterr().err
    assert main([old, new, "--fail-over", "30%"]) == 0
    assert main([new, old, "--fail-over", "5%"]) == 0


def test_a_gate_fails_on_a_cell_that_was_lost(write_run, capsys):
    old, new = write_run("old", lengths=(100, 300, 1000)), write_run("new", lengths=(100, 1000))
    assert main([old, new, "--fail-over", "50%"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "L300-" in line
    assert main([new, old, "--fail-over", "50%"]) == 0


@pytest.mark.parametrize("lengths", [(), (30,)], ids=["empty", "nothing in common"])
def test_a_gate_that_cannot_compare_is_an_error(write_run, capsys, lengths):
    old, new = write_run("old", lengths=(100, 300)), write_run("new", lengths=lengths)
    assert main([old, new, "--fail-over", "50%"]) == main([new, old, "--fail-over", "50%"]) == 2
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "error: no cell has a number in both runs"
    ] * 2


def test_json(write_run, capsys):
    assert main([write_run("old"), write_run("new", 1.2, seed=1), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["counts"] == {"slower": 5}
    assert all(cell["ratio_low"] < 1.2 * 1.01 and cell["ratio_high"] > 1.2 * 0.99 for cell in data["cells"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{run}"], "Missing argument"),
        (["{run}", "nowhere"], "not a results folder"),
        (["{run}", "{run}/run.json"], "not a JSON file of pytest-benchmark"),
        (["{run}", "{run}", "--fail-over", "five"], "not a percentage"),
        (["{run}", "{run}", "--fail-over", "-5%"], "not a percentage"),
        (["{run}", "{run}", "--fail-over", "nan%"], "not a percentage"),
        (["{run}", "{run}", "--metric", "speed"], "speed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(write_run, capsys, arguments, told):
    run = write_run("old")
    assert main([argument.format(run=run) for argument in arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert told in errors
    assert "\n" not in errors


@pytest.mark.parametrize(
    "hostile", ["9" * 401, "1e400", "NaN", "-1", "1e-320", "true", "[]", "{}", '"x"', "null", "[" * 90 + "]" * 90]
)
@pytest.mark.parametrize("place", ["n_tokens", "data", "median", "fullname", "count", "params"])
def test_hostile_values_in_a_file_of_pytest_benchmark(tmp_path, capsys, place, hostile):
    """One line or a table, never a traceback."""
    one = {"n_tokens": 10, "data": 2.0, "median": 2.0, "fullname": "f", "count": 2, "params": {}}
    one[place] = "HOSTILE"
    stats = {"data": [1.0, one["data"]], "median": one["median"]}
    told = {"mixer": "mamba", "n_tokens": one["n_tokens"]}
    benchmark = {"name": "f", "fullname": one["fullname"], "params": one["params"], "extra_info": told, "stats": stats}
    content = {"benchmarks": [benchmark], "machine_info": {"cpu": {"count": one["count"]}}}
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content).replace('"HOSTILE"', hostile))
    assert main([str(path), str(path)]) in (0, 2)
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_files_of_pytest_benchmark(tmp_path, capsys):
    """Real files, from the plugin itself."""
    for name, factor in (("before", 1e-4), ("after", 2e-4)):
        test = tmp_path / "test_wait.py"
        test.write_text(f"FACTOR = {factor}\n{BENCHMARKS}")
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test), f"--rootdir={tmp_path}",
             f"--benchmark-json={tmp_path / name}.json"],
            cwd=tmp_path, check=True, capture_output=True, timeout=600,
        )  # fmt: skip
    arguments = [str(tmp_path / "before.json"), str(tmp_path / "after.json")]
    assert main([*arguments, "--fail-over", "10%"]) == 1
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [cell["verdict"] for cell in data["cells"]] == ["slower", "slower"]
    assert data["single_round"]
    cell = data["cells"][0]["cell"]
    assert (cell["mixer"], cell["backend"], cell["batch_size"]) == ("mamba", "numba", 4)
    assert {each["cell"]["n_tokens"] for each in data["cells"]} == {10, 20}


@pytest.fixture
def in_turns(tmp_path, monkeypatch):
    """A command that measures in turns, on a known machine, with planted ratios in the place of children."""
    jobs_seen = []

    def rounds_of(jobs, versions, plan, threads, run, undecided):
        jobs_seen.extend(jobs)
        records = []
        for round_ in range(plan["rounds"]):
            for i, (cell, *_) in enumerate(jobs):
                found = {"status": "ok", "samples": {"wall_s": [1.06 + round_ / 1e3] * 3, "paired_wall_s": [1.0] * 3}}
                if i == 0 and plan["timeout_s"] == 1:
                    found = {"status": "timeout", "reason": "this tree: gave no answer", "notes": {"failed": "mine"}}
                records.append(Record(run=run, cell_id=cell.id, round=round_, cell=dict(cell), **found))
                yield records[-1]
            if not undecided(records):
                return

    monkeypatch.setattr(bench.compare.environment, "probe", lambda **_: MACHINE)
    monkeypatch.setattr(bench.compare.turns, "rounds_of", rounds_of)
    return lambda *arguments: (main(["--out", str(tmp_path / "out"), "--quiet", *arguments]), jobs_seen)


def test_two_backends_in_turns(in_turns, tmp_path, capsys):
    code, jobs = in_turns("--base-backend", "reference", "--device", "cpu", "--fail-over", "5%", "--json")
    told = capsys.readouterr()
    data = json.loads(told.out)
    assert code == 1
    assert told.err.count("regression: ") == 8
    assert data["counts"] == {"slower": 8}
    assert (data["before"], data["cells"][0]["p"]) == ("backend reference", 2 / 2**8)
    assert all(1.06 <= cell["ratio_low"] <= cell["ratio_high"] <= 1.07 for cell in data["cells"])
    assert {(mine["cell"]["backend"], other["cell"]["backend"]) for _, mine, other in jobs} == {("numba", "reference")}
    run = load_run(tmp_path / "out")
    assert (run.meta["command"], run.meta["base"]) == ("bench.compare", "backend reference")
    assert {record.round for record in run.records} == set(range(8))
    assert main(["--base-backend", "reference", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2  # is taken


def test_a_cell_without_a_number_in_turns_fails_a_gate(in_turns, tmp_path, capsys):
    settings = ["--base-backend", "reference", "--device", "cpu", "--timeout-s", "1", "--fail-over", "9%"]
    assert in_turns(*settings)[0] == 1
    assert "lost (timeout: this tree: gave no answer)" in capsys.readouterr().err
    alone = ["--out", str(tmp_path / "alone"), "--lengths", "7", "--tasks", "forward", "--mixers", "mamba"]
    assert in_turns(*settings, *alone)[0] == 2
    assert "error: no cell has a number on both sides: this tree: gave no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--base no-such-commit", "'no-such-commit' is no commit of"),
        ("--base HEAD --rounds 7", "rounds takes at least 8 here"),
        ("--base HEAD --preset gpu-ops", "op: no step that could be timed in turns"),
        ("--base HEAD --metric peak_memory_bytes", "compare times"),
        ("--base HEAD {run} {run}", "take no results"),
        ("--base HEAD --base-backend numba", "one of them"),
        ("--base-backend nonsense", "no cell has a mixer with another backend 'nonsense'"),
        ("--lengths 5", "Missing argument"),
        ("{run} {run} --lengths 5", "belong to --base"),
    ],
)
def test_bad_input_of_turns_is_one_line_and_exit_code_2(in_turns, write_run, capsys, tmp_path, arguments, told):
    run = write_run("old")
    given = arguments.format(run=run).split()
    assert (main(given) if run in given or "--base" not in arguments else in_turns(*given)[0]) == 2
    errors = capsys.readouterr().err.strip()
    assert told in errors
    assert "\n" not in errors
    assert not (tmp_path / "out").exists()
