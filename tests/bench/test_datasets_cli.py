"""The command that lists, fetches, checks and shows data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import datasets
from bench.data import DATASETS, movielens_100k

TINY = "synthetic:users=30:items=20:columns=4:pairs=5"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTMAMBA_DATA", str(tmp_path / "cache"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = datasets.main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "--json")
    rows = {row["name"]: row["state"] for row in json.loads(out)}
    assert code == 0
    assert list(rows) == list(DATASETS)
    assert (rows["movielens-100k"], rows["hm"], rows["vaccine"]) == ("can be fetched", "supplied by you", "generated")
    assert "movielens-100k" in run(capsys, "list")[1]


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "show", "hm")[1]
    assert "licence: Kaggle" in out
    assert "put articles.csv, customers.csv and transactions_train.csv" in out
    facts = json.loads(run(capsys, "show", TINY, "--json")[1])
    assert (facts["users"], facts["items"], facts["interactions"]) == (30, 20, 150)
    assert facts["train"] + facts["validation"] + facts["test"] == 150


def test_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(run(capsys, "tokens", TINY, "--json")[1])
    columns = [token["column"] for token in answer["user"]]
    assert columns == ["number_0", "number_1", "group_0", "group_1", "user_id", "[CLS]"]
    cls = answer["user"][-1]
    assert cls["spread"] == pytest.approx(0, abs=1e-6)  # it is the same for every row
    assert all(token["norm"] > 0 for token in answer["user"])
    assert "6 tokens with [CLS]" in run(capsys, "tokens", TINY)[1]
    assert "5 tokens with [CLS]" in run(capsys, "tokens", TINY, "--no-ids")[1]


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "users.csv").write_text("user_id,age,gender,occupation,zip_code\n1,24,M,technician,85711\n")
    genres = movielens_100k.GENRES
    (folder / "items.csv").write_text(f"item_id,release_year,{','.join(genres)}\n1,1995{',0' * len(genres)}\n")
    ratings = folder / "ratings.csv"
    ratings.write_text("user_id,item_id,rating,timestamp\n1,1,5,874724710\n")
    code, _, err = run(capsys, "check", str(folder))
    assert code == 2
    assert "fits movielens-100k, movielens-1m; say which it is with --as NAME" in err
    ratings.write_text("user_id,item_id,rating,timestamp\n1,1,5,874724710\n1,1,4,1\n")
    code, _, err = run(capsys, "check", str(folder), "--as", "movielens-100k")
    assert code == 2
    assert "no positive interaction in the training split" in err
    ratings.write_text("user_id,item_id,rating,timestamp\n" + "1,1,5,874724710\n" * 3)
    code, _, err = run(capsys, "check", str(folder), "--as", "movielens-100k")
    assert code == 2
    assert f"{ratings} line 3: column user_id, item_id repeats 1, 1 (the first of 2 odd rows among 3)" in err
    (folder / "items.csv").unlink()
    assert "items.csv missing" in run(capsys, "check", str(folder), "--as", "movielens-100k")[2]
    assert "no positive interaction in the training split" in run(capsys, "check", str(folder))[2]
    assert "is not a folder" in run(capsys, "check", str(tmp_path / "absent"))[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "movielens"], "unknown data set 'movielens'; choose from movielens-100k"),
        (["fetch", "nothing"], "unknown data set 'nothing'"),
        (["fetch"], "Missing argument"),
        (["fetch", "hm"], "hm cannot be fetched; put articles.csv"),
        (["fetch", "vaccine"], "vaccine is generated"),
        (["tokens", "movielens-100k"], "python -m bench.datasets fetch movielens-100k"),
        (["tokens", TINY, "--d-model", "0"], "must be at least 1"),
        (["check", "x", "--as", "y"], "unknown data set 'y'"),
        (["lists"], "No such command"),
        (["show", "bad\nname\x1b[31m"], "unknown data set 'bad\\nname\\x1b[31m'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_tables_of_your_own_are_checked_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    code, _, err = run(capsys, "check", str(folder))
    assert code == 2
    assert "holds no data set known here and no tables of your own: users.csv, items.csv and interactions.csv" in err
    (folder / "interactions.csv").write_text(
        "user,item,date\na,x,2020-01-01\nb,x,2020-01-02\na,y,2020-01-03\nc,y,2020-02-01\n"
    )
    (folder / "users.csv").write_text("user,age,title\na,20,x\nb,30,x\nc,41.5,x\n")
    facts = json.loads(run(capsys, "check", str(folder), "--json")[1])
    assert (facts["name"], facts["users"], facts["items"]) == (f"csv:{folder}", 3, 2)
    assert (facts["user_numeric"], facts["user_tokens"], facts["item_tokens"]) == (["age"], 3, 2)
    assert facts["test_users_without_an_earlier_like"] == "100.0%"
    assert facts["test_likes_of_items_not_liked_before"] == "0.0%"
    assert "users.csv: left out title (one value in every row)" in facts["notes"]
    assert run(capsys, "describe", str(folder))[0] == 0
    assert run(capsys, "check", str(folder))[0] == 0
    code, _, err = run(capsys, "describe", str(folder))
    assert code == 2
    assert "is there already" in err
