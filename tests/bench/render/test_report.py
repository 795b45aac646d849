"""The command: its files, and one clear line with exit code 2 for bad input."""

from __future__ import annotations

import csv
import json
import re

import pytest

from bench.records.store import RECORDS_FILE, RUN_FILE
from bench.render.assets import numbers_of, tex
from bench.render.blocks import Column, Table, TableCell
from bench.report import main

LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}


@pytest.fixture
def results(planted_records, tmp_path):
    folder = tmp_path / "results" / "planted"
    folder.mkdir(parents=True)
    (folder / RUN_FILE).write_text(json.dumps({"schema": 1, "name": "planted", "argv": ["bench.sweep"]}))
    lines = [json.dumps(record.to_dict()) for record in planted_records(LINEAR)]
    (folder / RECORDS_FILE).write_text("\n".join(lines) + "\n")
    return folder


def test_the_page_goes_to_reports_by_default(results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(results)]) == 0
    assert (tmp_path / "reports" / "planted.html").read_text().startswith("<!doctype html>")
    assert "reports/planted.html" in capsys.readouterr().out


def test_assets_hold_every_table_and_picture(results, tmp_path):
    assert main([str(results), "--out", str(tmp_path / "page.html"), "--assets"]) == 0
    files = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"answer.csv", "cells.csv", "crossovers.csv", "exponents.csv"} <= files
    pictures = {name for name in files if name.endswith(".svg")}
    assert pictures
    assert {name.replace(".svg", kind) for name in pictures for kind in (".png", ".pdf")} <= files
    assert {name.replace(".csv", ".tex") for name in files if name.endswith(".csv")} <= files
    rows = list(csv.DictReader((tmp_path / "page" / "cells.csv").open()))
    assert len(rows) == 2 * 5
    (row,) = [each for each in rows if each["mixer"].startswith("attention") and each["L"] == "10000"]
    assert float(row["median"]) == pytest.approx(2e-9 * 1e8)  # seconds, as planted
    assert (row["median unit"], float(row["median low"])) == ("s", pytest.approx(0.2))


def test_a_column_is_as_wide_as_that_of_a_paper(results, tmp_path):
    assert main([str(results), "--out", str(tmp_path / "page.html"), "--assets"]) == 0
    pages = [path.read_bytes() for path in (tmp_path / "page").glob("*.pdf")]
    widths = {re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", page)[1] for page in pages}
    assert [float(width) / 72 for width in widths] == [pytest.approx(3.35)]


def test_numbers_and_signs_of_a_table_for_papers():
    """A thousand loses its comma, a measured value its unit's prefix; what has no number says why."""
    cells = {"a": TableCell("1.5 ms", 0.0015, low=0.001, high=0.002, unit="s"), "b": TableCell("oom")}
    name = Column("mixer", lambda x: f"\N{BLACK CIRCLE} {x}_1")
    columns = [name, Column("L", lambda _: "1,000"), Column("time", cells.get, numeric=True)]
    table = Table("t", "50 % & more", columns, ["a", "b"])
    assert list(numbers_of(table)) == [
        ["mixer", "L", "time", "time low", "time high", "time unit"],
        ["a_1", "1000", "0.0015", "0.001", "0.002", "s"],
        ["b_1", "1000", "oom", "", "", ""],
    ]
    lines = tex(table).splitlines()
    assert lines[1] == r"\begin{tabular}{llr}"
    assert lines[5] == r"a\_1 & 1,000 & 1.5 ms \\"


def test_the_index_lists_the_pages(results, tmp_path):
    for name in ("one", "two"):
        assert main([str(results), "--out", str(tmp_path / f"{name}.html"), "--index"]) == 0
    text = (tmp_path / "index.html").read_text()
    assert 'href="one.html"' in text
    assert 'href="two.html"' in text
    assert "attention is faster up to L* = 500" in text
    assert text.count("data:image/svg+xml;base64,") == 2


def test_two_folders_make_one_page(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(results), str(results)]) == 0
    assert (tmp_path / "reports" / "planted+planted.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument"),
        (["nowhere"], "nowhere is not a results folder"),
        (["{results}", "--out", "page.txt"], "does not end in .html"),
        (["{results}", "--out", "{results}/run.json/page.html"], "cannot write"),
        (["{results}", "--colour"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(results, tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main([argument.format(results=results) for argument in arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert told in errors
    assert "\n" not in errors


def test_a_newer_schema_is_refused(results, capsys):
    (results / RUN_FILE).write_text(json.dumps({"schema": 99}))
    assert main([str(results)]) == 2
    assert "schema 99" in capsys.readouterr().err
