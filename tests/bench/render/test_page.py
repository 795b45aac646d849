"""The page: what it says, that it is whole, self-contained and repeatable, and that no name breaks out of its text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import Record
from bench.records.store import Run
from bench.render import sections as sections_package
from bench.render.findings import Findings
from bench.render.page import render, sections, write_report
from bench.render.svg import inline

LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}
MEMORY = {"mamba": lambda n: 1e5 + 2000 * n, "attention": lambda n: 1e5 + 900 * n + 0.5 * n * n}
META = {"kind": "sweep", "argv": ["bench.sweep", "--lengths", "100,1000"], "machine": {"cpu": {"model": "A CPU"}}}
BASELINE = {"popularity": "baseline", "ease": "baseline"}
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Document(HTMLParser):
    """What a browser would make of the page, as far as the tests ask; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "script" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(planted_records):
    records = [
        record
        for task in ("forward", "train_step")
        for record in planted_records(LINEAR, memory=MEMORY, task=task, between=0.02, within=0.02)
    ]
    return Run("planted", META, records)


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


def page_of(*runs):
    return render(Findings.of(runs))


def test_the_answer_comes_first(page):
    text = Document(page).words
    answer = text[text.index("Answer", text.index("Run it yourself")) :]
    assert re.match(
        r"Answer Forward: attention is faster up to L\* = \d+ \(95 %: \d+ to \d+\), mamba from there on", answer
    )
    assert re.search(r"Time of a forward pass grows as L ?[12]\.\d\d \(.*?\) with attention and L ?[01]\.\d\d", answer)


def test_one_length_has_no_empty_growth(planted_records):
    document = Document(page_of(Run("r", META, planted_records(LINEAR, lengths=(1000,), between=0.02))))
    names = {a["id"] for a in document.all("section")}
    assert "Forward: mamba is faster than attention, by 2" in document.words
    assert names >= {"answer", "cells"}
    assert not names & {"scaling", "crossover"}


def test_one_round_is_said_of_one_round_alone(planted_records, without_number):
    """Also where one mixer gave no number, so that there is no ratio whose interval could say so."""
    for rounds in (1, 3):
        records = planted_records(LINEAR, memory=MEMORY, rounds=rounds, between=0.02, within=0.02)
        for each in (records, without_number(records, "error", mixer="attention")):
            text = Document(page_of(Run("r", META, each))).words
            assert ("One round only" in text) == (rounds == 1)


def test_the_page_needs_nothing_from_outside(page):
    text = page
    document = Document(text)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)  # name spaces of SVG are names, not addresses
    assert not [a for tag in ("link", "img", "iframe", "object") for a in document.all(tag)]
    assert all("src" not in attributes for attributes in document.all("script"))
    (policy,) = [a["content"] for a in document.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_the_same_records_give_the_same_bytes(run, page):
    assert page_of(run) == page


def test_ids_are_unique_and_links_lead_to_them(page):
    document = Document(page)
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in document.all("a")} | {a["href"][1:] for a in document.all("use")}
    assert targets <= set(ids)
    referred = {match for _, a in document.tags for v in a.values() for match in re.findall(r"url\(#(.*?)\)", v or "")}
    assert referred <= set(ids)


def test_tables_and_pictures_speak_to_a_screen_reader(page):
    document = Document(page)
    assert all(attributes.get("scope") in ("col", "row") for attributes in document.all("th"))
    assert len(document.all("caption")) == len(document.all("table")) > 0
    pictures = document.all("svg")
    assert pictures
    assert all(a["role"] in ("img", "group") and len(a["aria-label"] or "") > 40 for a in pictures)


def test_every_measured_point_says_what_it_is(page):
    document = Document(page)
    points = [a for a in document.all("use") if a.get("class") == "point"]
    n_cells = 2 * 2 * 5
    assert len(points) >= 2 * n_cells  # time and memory; ratios and L* come on top
    assert all(a["role"] == "img" for a in points)
    told = [a["aria-label"] for a in points]
    assert any("forward, mamba/numba, L 1,000, cpu, float32, B 8, 2 layers, d 64: 1.0" in each for each in told)


def test_a_section_without_data_is_absent(page):
    names = {a["id"] for a in Document(page).all("section")}
    assert "gaps" not in names
    assert "winners" not in names
    assert names >= {"answer", "scaling", "crossover", "cells", "environment", "method", "reproduce"}


def test_gaps_are_told_with_their_reasons(run, without_number):
    records = without_number(run.records, "oom", mixer="attention", n_tokens=10000)
    text = Document(page_of(replace(run, records=records, problems=["line 9: not a record"]))).words
    assert "12 of 60 attempts gave no number" not in text
    assert "6 of 60 attempts gave no number: 6 ran out of memory (oom)." in text
    assert "planted oom" in text
    assert "only mamba ran" in text
    assert "line 9: not a record" in text


def test_several_settings_get_a_map_of_winners(run, planted_records):
    more = planted_records(LINEAR, memory=MEMORY, batch_size=64)
    names = {a["id"] for a in Document(page_of(replace(run, records=run.records + more))).all("section")}
    assert "winners" in names


def test_runs_stand_side_by_side_and_are_never_mixed(run):
    slower = [replace(record, samples={"wall_s": [10 * x for x in record.samples["wall_s"]]}) for record in run.records]
    findings = Findings.of([run, replace(run, records=slower)])
    assert "planted (2)" in Document(render(findings)).words
    assert {cell.run for cell in findings.summary.cells} == {"planted", "planted (2)"}


def test_cells_in_two_runs_stand_side_by_side(run):
    slower = replace(
        run,
        name="slower",
        records=[replace(r, samples={"wall_s": [2 * x for x in r.samples["wall_s"]]}) for r in run.records],
    )
    text = Document(page_of(run, slower)).words
    assert "slower / planted" in text
    assert re.search(r"forward, mamba/numba, L 100 \S+ [mµn]?s \S+ [mµn]?s 2\.00 \(", text)


def test_two_settings_of_a_mixer_compare_like_two_mixers(planted_records):
    usual = planted_records({"attention": LINEAR["attention"]})
    other = planted_records({"attention": LINEAR["mamba"]}, params={"n_heads": 2})
    text = Document(page_of(Run("r", META, usual + other))).words
    assert "Forward: attention is faster up to L* = 500 (95 %: 500), attention(n_heads=2) from there on" in text
    assert "attention(n_heads=2)/sdpa" in text
    assert "attention(n_heads=8)" not in text


def test_a_number_without_verification_is_marked(planted_records):
    doubtful = {"verify": "not compared: it has no reference"}
    planted = planted_records(LINEAR)
    records = [replace(r, notes=doubtful) if r.cell["mixer"] == "mamba" else r for r in planted]
    text = Document(page_of(Run("r", META, records))).words
    assert re.search(r"mamba from there on, by \S+ at L = 10,000 \(not verified: mamba/numba\)\.", text)
    assert re.search(r"forward mamba/numba \(not verified\) 100 \S+ µs", text)
    assert "attention/sdpa (not verified)" not in text
    assert "not verified" not in Document(page_of(Run("r", META, planted))).words


def test_work_of_others_is_told_above_the_answer(planted_records):
    records = [replace(r, env={"other_busy_cores": 1.5 if r.round == 0 else 0.01}) for r in planted_records(LINEAR)]
    text = Document(page_of(Run("r", META, records))).words
    assert text.index("Warning: 10 of 30 readings ran beside other work, on up to 1.5 cores") < text.index("Forward:")
    quiet = [replace(record, env={"other_busy_cores": 0.01}) for record in records]
    assert "Warning" not in Document(page_of(Run("r", META, quiet))).words


def test_a_section_is_one_file(run, tmp_path, monkeypatch):
    source = (
        "from bench.render.blocks import Prose, Section\nORDER = 15\nTERMINAL = True\n"
        "def build(findings):\n    return Section('toy', 'A toy', [Prose(f'{len(findings.summary.cells)} cells')])\n"
    )
    (tmp_path / "toy_section.py").write_text(source)
    monkeypatch.setattr(sections_package, "__path__", [*sections_package.__path__, str(tmp_path)])
    names = [section.name for section in sections(Findings.of([run]))]
    assert names[:2] == ["answer", "toy"]
    assert [each.name for each in sections(Findings.of([run]), terminal=True)][1] == "toy"
    assert "20 cells" in Document(page_of(run)).words


def test_several_depths_are_drawn(run, planted_records):
    deeper = planted_records({m: lambda n, c=c: 3 * c(n) for m, c in LINEAR.items()}, memory=MEMORY, n_layers=6)
    document = Document(page_of(replace(run, records=run.records + deeper)))
    assert "depth" in {a["id"] for a in document.all("section")}
    assert "against the number of layers at L = 10,000" in document.words


def test_ranking_quality_is_told_with_its_baselines(tmp_path):
    rng = np.random.default_rng(0)
    users = rng.uniform(0, 0.2, 200)
    records = []
    for model, mean, seeds in (("mamba", 0.3, 2), ("attention", 0.1, 2), ("popularity", 0.05, 1), ("ease", 0.08, 1)):
        for seed in range(seeds):
            cell = {
                "task": "rank_quality",
                "dataset": "toy<b>",
                BASELINE.get(model, "mixer"): model,
                "protocol": "full",
                "seed": seed,
            }
            values = mean + users + rng.normal(0, 0.02, 200)
            columns = {"user": np.arange(200).astype(str), "ndcg@10": values, "recall@5": values}
            table = pd.DataFrame({**columns, "n_before": np.arange(200) % 2})
            write_per_user(per_user_path(tmp_path, f"{model}-{seed}"), table)
            curve = {"step": [1.0, 2.0], "validation_ndcg@10": [0.1, 0.2]} if model not in BASELINE else {}
            took = {"train_wall_s": 10.0 * mean, "train_steps_per_s": 4.0, "peak_memory_bytes": 2**20} if curve else {}
            records.append(
                Record(run="q", cell_id=f"{model}-{seed}", round=0, cell=cell, status="ok", samples=curve, values=took)
            )
    document = Document(page_of(Run("q", {}, records, folder=tmp_path)))
    text = document.words
    assert "Mamba or attention?" in text
    assert "Ranking on toy<b>: mamba ranks better than attention, by 0.2" in text
    assert "mamba better attention NDCG@10 0.2" in text
    assert "toy<b> can tell models apart: the best collaborative baseline, ease, is 0.0" in text
    assert "NDCG@10, warm NDCG@10, cold" in text
    assert "popularity" in text
    assert re.search(r"NDCG@10 against training time", text)
    assert "Learning curves, training steps" in text
    assert "Learning curves, seconds of training" in text
    assert {"quality", "answer"} <= {a["id"] for a in document.all("section")}
    assert "scaling" not in {a["id"] for a in document.all("section")}


def test_two_protocols_of_one_data_set_are_two_answers(tmp_path):
    rng = np.random.default_rng(0)
    runs = []
    for protocol, n_users, means in (("full", 300, (0.3, 0.1)), ("paper", 100, (0.1, 0.3))):
        users, records = rng.uniform(0, 0.2, n_users), []
        for model, mean in zip(("mamba", "attention"), means, strict=True):
            for seed in range(2):
                cell = {"task": "rank_quality", "dataset": "toy", "mixer": model, "protocol": protocol, "seed": seed}
                values = mean + users + rng.normal(0, 0.02, n_users)
                table = pd.DataFrame({"user": np.arange(n_users).astype(str), "ndcg@10": values})
                write_per_user(per_user_path(tmp_path / protocol, f"{model}-{seed}"), table)
                records.append(Record(run=protocol, cell_id=f"{model}-{seed}", round=0, cell=cell, status="ok"))
        runs.append(Run(protocol, {}, records, folder=tmp_path / protocol))
    text = Document(page_of(*runs)).words
    assert "Ranking on toy: mamba ranks better than attention" in text
    assert "Ranking on toy, paper protocol: attention ranks better than mamba" in text


def test_an_empty_run_and_one_that_only_failed_have_a_page(run, without_number):
    assert "Results" in Document(page_of(Run("empty", {}, []))).words
    failed = without_number(run.records, "error")
    assert (
        "60 of 60 attempts gave no number: 60 failed (error)." in Document(page_of(replace(run, records=failed))).words
    )


HOSTILE = [
    "<script>alert(1)</script>",
    "</title></style></script><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "{{ 7 * 7 }} {% raw %} $x^2$ \\frac",
    "\x00\x01\x1b[31m\x85\u202e\ud800\ufffe",
    "emoji 🐍 日本語 עברית",
    "x" * 10_000,
    "../../../etc/passwd",
    "&lt;b&gt; &amp; ]]> <!-- -->",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_shown_as_text(run, page, without_number, name):
    plain = Document(page)
    records = [
        replace(
            record,
            cell={**record.cell, "mixer": record.cell["mixer"] + name, "backend": name, "dtype": name, name: name},
            run=name,
            env={name: name},
        )
        for record in without_number(run.records, "oom", n_tokens=10000)
    ]
    records = [replace(record, reason=name if record.reason else "") for record in records]
    meta = {
        **META,
        name: name,
        "machine": {name: [name], "cpu": {"model": name}},
        "argv": [name],
        "git": {"commit": name},
    }
    text = page_of(Run(name, meta, records, problems=[name]))
    text.encode()
    document = Document(text)
    assert {tag for tag, _ in document.tags} <= {tag for tag, _ in plain.tags} | {"dd", "li", "pre", "code"}
    assert len(document.all("script")) == 1
    assert not [key for _, attributes in document.tags for key in attributes if key.startswith("on")]
    assert len(text) < 3_000_000
    if name.isprintable() and len(name) < 100 and "^" not in name:
        assert " ".join(name.split()) in document.words


def test_the_file_is_written_whole_or_not_at_all(run, tmp_path, monkeypatch):
    path = write_report([run], tmp_path / "new" / "page.html")
    before = path.read_text()
    monkeypatch.setattr("bench.render.page.in_order", lambda: [SimpleNamespace(build=lambda findings: 1 / 0)])
    with pytest.raises(ZeroDivisionError):
        write_report([run], path)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_a_thousand_cells_are_a_small_page(planted_records):
    records = [
        record
        for batch_size in (1, 2, 4, 8, 16)
        for n_layers in (1, 2, 4, 8, 12)
        for task in ("forward", "train_step")
        for record in planted_records(
            LINEAR, memory=MEMORY, rounds=2, n_samples=20, between=0.02, batch_size=batch_size, n_layers=n_layers,
            task=task, lengths=(100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200),
        )
    ]  # fmt: skip
    text = page_of(Run("many", META, records))
    assert len(text.encode()) < 2_000_000


def test_a_very_long_table_is_cut_and_says_so(run, monkeypatch):
    monkeypatch.setattr("bench.render.page.MOST_TABLE_CELLS", 60)
    text = Document(page_of(run)).words
    assert "The first 5 of 20 rows; python -m bench.report --assets writes them all." in text


def test_a_picture_keeps_its_fallback_colours_outside_the_page(run):
    from bench.render.plots import scaling_plot

    findings = Findings.of([run])
    figure = scaling_plot([findings.summary.scalings[0]], findings.styles, name="x", title="x", limits={})
    text = inline(figure, "p-")
    assert "var(--colour-1, #c24e00)" in text
    assert 'id="p-points-0"' in text
