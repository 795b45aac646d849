"""Ranking on many data sets: picture, table and sentences say what was planted; data sets say their test."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.analysis.forest import forests
from bench.analysis.quality import quality_of
from bench.records.per_user import per_user_path, write_per_user
from bench.records.record import Record
from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.forest import forest_plot, sentences
from bench.render.page import sections, summary_line, title
from bench.render.quality_plots import curves_plot

TOWERS = {"mamba": 0.35, "attention": 0.3, "popularity": 0.2, "ease": 0.25, "random": 0.01}
MIXERS = ("mamba", "attention")


def run_of(folder, means, datasets=("a", "b", "c", "d"), **values):
    """Users of one data set are alike; the last of the data sets has no difference between its models."""
    records, rng = [], np.random.default_rng(0)
    for dataset in datasets:
        users = rng.uniform(-0.1, 0.1, 150)
        for model, mean in means.items():
            mean = 0.3 if dataset == datasets[-1] and model in MIXERS else mean
            cell = {"task": "rank_quality", "dataset": dataset, "mixer" if model in MIXERS else "baseline": model}
            values_of = mean + users + rng.normal(0, 0.02, 150)
            table = pd.DataFrame({"user": np.arange(150).astype(str), "ndcg@10": values_of})
            write_per_user(per_user_path(folder, f"{dataset}-{model}"), table)
            notes = {"split": f"rule of {dataset}", "candidates": "observed" if dataset == "b" else "catalogue"}
            records.append(
                Record(run="r", cell_id=f"{dataset}-{model}", round=0, cell={**cell, "seed": 0}, status="ok",
                       values=values, notes=notes)
            )  # fmt: skip
    return Run("r", {}, records, folder=folder)


def test_everything_is_held_against_attention(tmp_path):
    found = [*forests(quality_of(run_of(tmp_path, TOWERS)))]
    assert [each.reference.name for each in found] == ["attention"] * 4
    assert [[model.name for model, _ in each.rows] for each in found] == [["mamba"]] * 4
    assert [[model.name for model, _ in each.lines] for each in found] == [["popularity", "ease"]] * 4
    mamba, (popularity, ease) = found[0].rows[0][1], found[0].lines
    assert (mamba.first, mamba.second, mamba.verdict) == ("mamba", "attention", "better")
    assert mamba.difference.value == pytest.approx(0.05, abs=0.01)
    assert mamba.difference.low < mamba.difference.value < mamba.difference.high
    assert popularity[1].difference.value == pytest.approx(-0.1, abs=0.01)
    assert (ease[1].first, ease[1].verdict) == ("ease", "worse")
    assert found[3].rows[0][1].verdict == "no difference found"


def test_many_data_sets_are_one_sentence_a_model(tmp_path):
    (told,) = sentences([*forests(quality_of(run_of(tmp_path, TOWERS)))])
    assert re.match(r"Ranking, mamba against attention in NDCG@10: better on a \(by 0\.0[45]\d\), b ", told)
    assert re.search(r"\); no difference found on d, where \d\.\d% of the score would have shown\.$", told)


def test_the_picture_has_a_point_a_model_at_its_share(tmp_path):
    findings = Findings.of([run_of(tmp_path, TOWERS)])
    found = [*forests(findings.quality)]
    figure = forest_plot(found, findings.styles, name="x")
    points = [each for each in figure.canvas.axes[0].collections if each.get_gid() in figure.hints]
    shares = [each.rows[0][1].difference.value / each.score for each in found]
    assert [each.get_offsets()[0][0] for each in points] == pytest.approx(shares)
    assert figure.hints["forest-0-7"][0].startswith("a: mamba minus attention 0.0")


def test_what_lies_beyond_the_edge_is_an_arrow_there(tmp_path):
    findings = Findings.of([run_of(tmp_path, {"mamba": 0.9, "attention": 0.3})])
    figure = forest_plot([*forests(findings.quality)], findings.styles, name="x")
    ax = figure.canvas.axes[0]
    assert max(x for each in ax.collections for x, _ in each.get_offsets()) == 0.6
    assert ax.get_xlim()[1] < 0.7
    assert "mamba minus attention 0.6" in figure.alt


def test_baselines_alone_have_an_answer_and_a_title(tmp_path):
    findings = Findings.of([run_of(tmp_path, {name: mean for name, mean in TOWERS.items() if name not in MIXERS})])
    found = [*forests(findings.quality)]
    assert [[model.name for model, _ in each.rows] for each in found] == [["ease"]] * 4  # chance is no rival
    assert found[0].rows[0][1].verdict == "better"
    assert title(findings) == "What must a model beat?"
    assert "a can tell models apart: the best collaborative baseline, ease" in summary_line(findings)
    answer = sections(findings)[0]
    assert answer.name == "answer"
    assert {block.template for block in answer.blocks} >= {"bullets", "table", "figures"}


def test_a_data_set_says_what_its_test_is(tmp_path):
    values = {"users_evaluated": 150, "users_without_positives": 10, "users_new": 30, "catalogue_items": 1234}
    findings = Findings.of([run_of(tmp_path, TOWERS, ("a", "b"), **values)])
    section = next(each for each in sections(findings) if each.name == "quality")
    table = next(block for block in section.blocks if getattr(block, "name", "") == "data-sets")
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0] == ["a", "rule of a", "all 1,234 items", "160", "150", "20%"]
    assert rows[1][2] == "of 1,234 items those that the user answered on"


def test_learning_curves_in_seconds_are_steps_over_the_rate(tmp_path):
    run = run_of(tmp_path, TOWERS, ("a",), train_steps_per_s=4.0)
    curve = {"step": [100.0, 200.0], "validation_ndcg@10": [0.1, 0.2]}
    run = replace(run, records=[replace(each, samples=curve) for each in run.records if "mixer" in each.cell])
    findings = Findings.of([run])
    figure = curves_plot(findings.quality.models, findings.styles, name="x", rate="train_steps_per_s")
    assert [list(line.get_xdata()) for line in figure.canvas.axes[0].lines] == [[25.0, 50.0]] * 2
    assert curves_plot(findings.quality.models, findings.styles, name="x", rate="absent") is None
