"""bench.history: the planted step is found at its run and on its machine alone, and told on page and terminal."""

from __future__ import annotations

import json

import pytest

from bench.analysis.compare import compare
from bench.analysis.past import pasts
from bench.history import main
from bench.records.store import RECORDS_FILE, RUN_FILE, Run, load_run

# name, day, machine, factor on the time of mamba
RUNS = (("a", 1, "one", 1.0), ("b", 2, "two", 3.0), ("c", 3, "one", 1.0), ("d", 4, "one", 1.5), ("e", 5, "two", 3.0))


@pytest.fixture
def folders(planted_records, tmp_path):
    for i, (name, day, machine, factor) in enumerate(RUNS):
        (tmp_path / name).mkdir()
        meta = {"schema": 1, "started_at": f"2026-01-0{day}T00:00:00Z", "git": {"commit": f"{name}123456789f"}}
        meta["machine"] = {"cpu": {"model": machine, "cores": 4}}
        (tmp_path / name / RUN_FILE).write_text(json.dumps(meta))
        costs = {"mamba": lambda n, f=factor: f * 1e-6 * n, "attention": lambda n: 2e-6 * n}
        records = planted_records(costs, lengths=(100, 1000), between=0.003, seed=i)
        if name == "c":  # attention was not run then
            records = [record for record in records if record.cell["mixer"] == "mamba"]
        (tmp_path / name / RECORDS_FILE).write_text("".join(json.dumps(each.to_dict()) + "\n" for each in records))
    return [tmp_path / name for name, *_ in RUNS[::-1]]  # order on the command line says nothing


def test_a_step_stands_at_its_run(folders):
    found = pasts([load_run(folder) for folder in folders], compare)
    assert len(found) == 8  # 4 cells on 2 machines
    steps = {(past.machine, past.cell["mixer"]): [each.run for each in past.steps] for past in found}
    assert steps == {("one, 4 cores", "mamba"): ["d"], ("one, 4 cores", "attention"): [],
                     ("two, 4 cores", "mamba"): [], ("two, 4 cores", "attention"): []}  # fmt: skip
    runs = {(past.machine, past.cell["mixer"]): [each.run for each in past.readings] for past in found}
    assert runs["one, 4 cores", "mamba"] == ["a", "c", "d"]
    attention = next(past for past in found if past.cell["mixer"] == "attention" and "one" in past.machine)
    assert [each.change and each.change.verdict for each in attention.readings] == [None, "same"]
    assert found[0].steps[0].change.ratio.value == pytest.approx(1.5, rel=0.02)


def test_another_setting_is_no_step(planted_records):
    runs = [
        Run(name, {"started_at": name}, planted_records({"mamba": lambda n, f=f: f * n}, lengths=(100,), heap=heap))
        for name, f, heap in (("1", 1e-6, "kept"), ("2", 2e-6, "system"))
    ]
    assert [len(past.readings) for past in pasts(runs, compare)] == [1, 1]


def test_the_page_and_the_terminal_tell_it(folders, tmp_path, capsys):
    page = tmp_path / "out" / "page.html"
    assert main([*map(str, folders), "--out", str(page)]) == 0
    told = capsys.readouterr().out
    assert "slower at d12345678, 1.5x" in told
    assert "of c12345678" in told
    text = page.read_text()
    assert "slower at d12345678, 1.5x" in text
    assert "What changed over time?" in text


def test_bad_input_is_one_line(folders, tmp_path, capsys):
    for wrong in (["--metric", "speed"], ["--metric", "ndcg@10"], ["--out", "x.txt"]):
        assert main([str(folders[0]), *wrong]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()[-1]) > 20
