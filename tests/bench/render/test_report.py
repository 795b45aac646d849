"""The command: its files, and one clear line with exit code 2 for bad input."""

from __future__ import annotations

import json

import pytest

from bench.records.store import RECORDS_FILE, RUN_FILE
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
    assert {name.replace(".svg", ".png") for name in pictures} <= files
    lines = (tmp_path / "page" / "cells.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5
    assert lines[0].startswith("task,mixer,L,median")


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
