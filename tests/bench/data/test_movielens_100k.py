"""MovieLens 100K: both sources, in small, must become the same stored tables; what is wrong with these is told."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.data import adapter, cache, movielens_100k
from bench.data.dataset import TEST, TRAIN
from bench.data.files import DataError
from bench.records.migrations import PROTOCOLS

USERS = ["1|24|M|technician|85711", "2|53|F|other|94043", "3|30|M|writer|V0R2M"]
# As published: latin-1, a film without a date, one whose year is followed by something, one with two years.
ITEMS = [
    "1|Toy Story (1995)|01-Jan-1995||http://x?Toy%20Story|" + "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0",
    "2|unknown||||" + "1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0",
    "3|Land Before Time III (1995) (V)|01-Jan-1995||u|" + "0|0|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0",
    "4|Mis\xe9rables, Les (1998)|01-Jan-1998||u|" + "0|0|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0",
]
RATINGS = ["2\t1\t5\t889237270", "1\t1\t5\t874724710", "1\t3\t3\t874724711", "3\t4\t4\t874724712", "1\t2\t4\t874724713"]
RECBOLE = {
    "user": ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    + [line.replace("|", "\t") for line in USERS],
    "item": [
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        "1\tToy Story\t1995\tAnimation Children's Comedy",
        "2\tunkonwn\tunkonwn\tunknown",
        "3\tLand Before Time III (1995)\tV\tAnimation Children's",
        "4\tMis\xe9rables, Les\t1998\tDrama",
    ],
    "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *RATINGS],
}


def grouplens_zip(path: Path, users: list[str] = USERS, items: list[str] = ITEMS, ratings: list[str] = RATINGS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in (("u.user", users), ("u.item", items), ("u.data", ratings)):
            archive.writestr(f"ml-100k/{name}", "\n".join([*lines, ""]).encode("latin-1"))
    return path


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(name="from_grouplens")
def _from_grouplens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    archive = grouplens_zip(tmp_path / "ml-100k.zip")
    monkeypatch.setattr(movielens_100k, "URL", archive.as_uri())
    monkeypatch.setattr(movielens_100k, "MD5", None)
    folder = tmp_path / "grouplens"
    folder.mkdir()
    movielens_100k.from_grouplens(folder, lambda line: None)
    return folder


def test_both_sources_give_the_same_bytes(
    from_grouplens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_wheel(requirement: str, members: dict[str, str], folder: Path, say: object) -> None:
        for member, name in members.items():
            (folder / name).write_text("\n".join([*RECBOLE[member.rpartition(".")[2]], ""]), encoding="utf-8")

    monkeypatch.setattr(movielens_100k.download, "from_wheel", from_wheel)
    folder = tmp_path / "recbole"
    folder.mkdir()
    movielens_100k.from_recbole(folder, lambda line: None)
    assert stored(folder) == stored(from_grouplens)
    assert sorted(stored(folder)) == ["items.csv", "ratings.csv", "users.csv"]


def test_loaded(from_grouplens: Path) -> None:
    data = movielens_100k.load(from_grouplens)
    assert data.items.frame["release_year"].isna().tolist() == [False, True, False, False]
    assert data.items.frame["release_year"].tolist()[2:] == [1995, 1998]
    assert data.items.frame["Animation"].tolist() == [1, 0, 1, 0]
    assert data.users.frame["zip_region"].tolist() == ["8", "9", "V"]
    liked = {(int(u), int(i)) for u, i in zip(*data.positives(TRAIN, 1), strict=True)}
    assert liked == {(0, 0), (2, 3), (0, 1)}  # a rating of 3 is not liked
    assert [part.tolist() for part in data.positives(TEST)] == [[1], [0]]


def test_warm_is_the_same_with_each_users_rows_shared_out(tmp_path: Path) -> None:
    """Ten users with twenty ratings each, hour by hour: by time the last users are the test, warm a share of each."""
    users = [f"{i}|24|M|technician|85711" for i in range(1, 11)]
    items = [f"{i}|Film {i} (1990)||||" + "|".join(["1"] + ["0"] * 18) for i in range(1, 21)]
    ratings = [f"{user}\t{item}\t5\t{889237269 + 3600 * (20 * user + item - 180)}"
               for user in range(1, 11) for item in range(1, 21)]  # fmt: skip
    archive = grouplens_zip(tmp_path / "ml-100k.zip", users, items, ratings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(movielens_100k, "URL", archive.as_uri())
        patch.setattr(movielens_100k, "MD5", None)
        movielens_100k.from_grouplens(tmp_path, lambda line: None)
    by_time, warm = movielens_100k.load(tmp_path), adapter("movielens-100k:split=warm").load(tmp_path)
    assert [PROTOCOLS[each.name] for each in (by_time, warm)] == [by_time.split_rule, warm.split_rule]
    columns = ["user", "item", "time", "label"]
    assert by_time.interactions[columns].equals(warm.interactions[columns])
    assert set(by_time.positives(TEST)[0]) == {8, 9}
    assert np.bincount(warm.positives(TEST)[0]).tolist() == [4] * 10
    assert np.bincount(warm.positives(TRAIN)[0]).tolist() == [14] * 10
    assert "not leak-free" in warm.split_rule
    assert "cold start" in by_time.split_rule
    assert adapter("movielens-100k:split=time").load(tmp_path).interactions.equals(by_time.interactions)


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("ratings.csv", "889237270", "soon", "ratings.csv line 6: column timestamp has 'soon'"),
        ("ratings.csv", "1,1,5", "1,1,6", "ratings.csv line 2: column rating has '6'; expected one of 1, 2, 3, 4, 5"),
        ("ratings.csv", "3,4,4", "9,4,4", "ratings.csv line 4: column user_id has 9, which is in no other table"),
        ("ratings.csv", "3,4,4", "3,9,4", "ratings.csv line 4: column item_id has 9, which is in no other table"),
        ("ratings.csv", "1,3,3", "1,1,3", "ratings.csv line 3: column user_id, item_id repeats 1, 1"),
        ("users.csv", "2,53", "1,53", "users.csv line 3: column user_id repeats 1"),
        ("users.csv", "53,F", "53,X", "users.csv line 3: column gender has 'X'; expected one of F, M"),
        ("users.csv", ",53,", ",,", "users.csv line 3: column age is missing a value"),
        ("items.csv", "Western", "Eastern", "items.csv line 1: no column Western"),
    ],
)
def test_damaged_tables(from_grouplens: Path, name: str, old: str, new: str, expected: str) -> None:
    path = from_grouplens / name
    path.write_text(path.read_text().replace(old, new, 1))
    if "no column" in expected:
        with pytest.raises(DataError, match=expected):
            movielens_100k.load(from_grouplens)
        return
    told = movielens_100k.load(from_grouplens).notes[0]
    assert told.startswith(f"{name}: 1 of ")
    assert f"rows left out, the first is {expected.removeprefix(f'{name} ')}" in told


def test_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = grouplens_zip(tmp_path / "ml-100k.zip")
    monkeypatch.setattr(movielens_100k, "URL", archive.as_uri())
    with pytest.raises(DataError, match=f"is damaged: md5 .*, expected {movielens_100k.MD5}"):
        movielens_100k.from_grouplens(tmp_path, lambda line: None)


def test_stored_tables_are_pinned(from_grouplens: Path) -> None:
    with pytest.raises(DataError, match="is damaged: sha256"):
        cache.verify(movielens_100k.ADAPTER, from_grouplens)


def test_every_rating_is_an_event_and_likes_are_to_be_predicted(from_grouplens: Path) -> None:
    data = movielens_100k.load(from_grouplens, histories=True)
    assert data.events is not None
    assert data.events.frame.to_dict("list") == {
        "user": [0, 0, 0, 1, 2], "item": [0, 2, 1, 0, 3], "rating": ["5", "3", "4", "5", "4"],
        "time": [874724710, 874724711, 874724713, 889237270, 874724712],
    }  # fmt: skip
    assert data.events.target.tolist() == [True, False, True, True, True]
    assert data.name == adapter("movielens-100k:events").name
