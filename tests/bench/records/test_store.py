"""Reading results folders: what is whole is used, what is damaged is named, what is too new is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.records.per_user import sidecar_of
from bench.records.record import SCHEMA, Record
from bench.records.store import RunError, load_run
from bench.render.findings import Findings
from bench.render.page import render


def record(n: int, *, round_: int = 0) -> Record:
    return Record(
        run="r", cell_id=f"cell-{n}", round=round_, cell={"n_tokens": n}, status="ok", samples={"wall_s": [0.1, 0.2]}
    )


def line(n: int, **changes: object) -> str:
    return json.dumps({**record(n).to_dict(), **changes})


def write_run(folder: Path, *lines: str, end: str = "\n", schema: object = SCHEMA) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"schema": schema, "kind": "sweep"}))
    (folder / "records.jsonl").write_text("\n".join(lines) + end)
    return folder


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "mine", line(1), line(2)))
    assert run.name == "mine"
    assert run.meta["kind"] == "sweep"
    assert run.records == [record(1), record(2)]
    assert run.problems == []


def test_a_torn_last_line_is_named_and_left_out(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, line(1), line(2)[:50], end=""))
    assert run.records == [record(1)]
    assert len(run.problems) == 1
    assert "line 2: a torn last line" in run.problems[0]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path, line(1), line(2), end="")).records == [record(1), record(2)]


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[]",
        "{}",
        "12",
        '{"schema": 1}',
        line(9, surprise=1),
        line(9, samples=[1]),
        line(9, samples={"wall_s": 3}),
        line(9, status="fine"),
        line(9, reason="why"),
        line(9, cell_id=7),
        "[" * 100_000,
        "\x00\x00",
    ],
)
def test_garbage_in_the_middle_is_named_by_line_and_the_rest_is_used(tmp_path: Path, garbage: str) -> None:
    run = load_run(write_run(tmp_path, line(1), garbage, line(2)))
    assert run.records == [record(1), record(2)]
    assert len(run.problems) == 1
    assert "line 2: not a record" in run.problems[0]


def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path, line(1))
    with open(folder / "records.jsonl", "ab") as file:
        file.write(b"\xff\xfe\n" + line(2).encode() + b"\n")
    run = load_run(folder)
    assert [each.cell_id for each in run.records] == ["cell-1", "cell-2"]
    assert "line 2" in run.problems[0]


def test_the_second_of_two_equal_records_is_left_out(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, line(1), line(1), line(1, round=1)))
    assert [(each.cell_id, each.round) for each in run.records] == [("cell-1", 0), ("cell-1", 1)]
    assert "line 2: repeats round 0 of cell-1" in run.problems[0]


def test_what_is_no_results_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a results folder: it has no run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(RunError, match="not a JSON object"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("schema", "message"), [(SCHEMA + 1, "newer than this program's"), (0, "no migration"), ("x", "no schema version")]
)
def test_a_run_of_another_schema_is_refused(tmp_path: Path, schema: object, message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_run(write_run(tmp_path, line(1), schema=schema))


def test_a_record_of_a_newer_schema_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"line 2 has schema {SCHEMA + 1}, newer"):
        load_run(write_run(tmp_path, line(1), line(2, schema=SCHEMA + 1)))


@pytest.mark.parametrize("schema", [1, SCHEMA])
def test_a_mixer_that_a_record_names_is_not_imported(
    schema: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results come from anywhere; only what a person names on the command line is imported."""
    (tmp_path / "planted_mixer.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    mixer = "planted_mixer:Spec"
    cell = {
        "task": "forward",
        "mixer": mixer,
        "backend": "b",
        "n_tokens": 9,
        "batch_size": 1,
        "n_layers": 1,
        "d_model": 8,
    }
    found = Record(run="run", cell_id="c", round=0, cell=cell, status="ok", samples={"wall_s": [1.0]}, schema=schema)
    run = load_run(write_run(tmp_path / "run", json.dumps(found.to_dict()), schema=schema))
    assert run.problems == []
    assert mixer in render(Findings.of([run]))


def test_committed_records_of_schema_1_load_with_ids_of_their_own() -> None:
    """What was measured stays comparable, and runs that differ in what changes times no longer share ids."""
    root = Path(__file__).resolve().parents[3] / "results"
    ids = {}
    for folder in ("cpu-sweep", "cpu-peers", "cpu-peers-system", "cpu-profile", "study-cpu", "study-paper"):
        run = load_run(root / folder)
        assert run.problems == []
        ids[folder] = {record.cell_id for record in run.records}
        assert ids[folder] == {cell.id for cell in Plan(run.meta["spec"]).cells()}
        for record in run.records:  # with axes that came later, so that a comparison finds the cells of new runs
            assert json.dumps(dict(Cell(**record.cell)), sort_keys=True) == json.dumps(record.cell, sort_keys=True)
    assert not ids["cpu-peers"] & ids["cpu-peers-system"]
    table = sidecar_of(root / "study-cpu", load_run(root / "study-cpu").records[0])
    assert table.exists()
