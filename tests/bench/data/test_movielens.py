"""What MovieLens' data sets share: years, genres, and stored tables that are the same whatever the source's order."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.data import movielens
from bench.data.dataset import TEST
from bench.data.files import DataError
from bench.data.tables import INT, TEXT, TextTable

GENRES = ("Drama", "War")
USERS = TextTable({"user_id": INT, "zip_code": TEXT}, key=("user_id",))
PEOPLE = pd.DataFrame({"user_id": [2, 1], "zip_code": ["90210", "T8H1N"]})
FILMS = pd.DataFrame({"item_id": [9, 5], "release_year": [1995.0, None], "Drama": [1, 0], "War": [0, 0]})
RATINGS = pd.DataFrame(
    {"user_id": [1, 2, 2, 1], "item_id": [5, 5, 9, 9], "rating": [3, 4, 5, 4], "timestamp": [40, 10, 20, 30]}
)


def stored(folder: Path, rows: slice = slice(None)) -> dict[str, str]:
    """The tables written from their rows in an order, and what is then in the folder."""
    (folder / "raw").write_text("")
    movielens.store(folder, PEOPLE[rows], FILMS[rows], RATINGS[rows], ["raw"])
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_stored_tables_do_not_depend_on_the_order_of_the_source(tmp_path: Path) -> None:
    found = stored(tmp_path)
    assert found == {
        "users.csv": "user_id,zip_code\n1,T8H1N\n2,90210\n",
        "items.csv": "item_id,release_year,Drama,War\n5,,0,0\n9,1995,1,0\n",
        "ratings.csv": "user_id,item_id,rating,timestamp\n2,5,4,10\n2,9,5,20\n1,9,4,30\n1,5,3,40\n",
    }
    assert stored(tmp_path, slice(None, None, -1)) == found


def test_ratings_from_four_on_are_liked_and_the_region_is_a_column(tmp_path: Path) -> None:
    stored(tmp_path)
    data = movielens.load(tmp_path, "toy", USERS, GENRES, categorical=(), train_until=30)
    assert data.users.frame["zip_region"].tolist() == ["T", "9"]
    assert data.users.categorical == ("zip_region",)
    assert data.items.frame["release_year"].isna().tolist() == [True, False]
    rows = data.interactions
    assert rows[["user", "item", "label"]].to_numpy().tolist() == [[1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 0, 0]]
    assert (rows["split"] == TEST).tolist() == [False, False, False, True]


def test_a_rating_of_an_unknown_film_is_left_out_and_told(tmp_path: Path) -> None:
    stored(tmp_path)
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("1,77,5,50\n")
    data = movielens.load(tmp_path, "toy", USERS, GENRES, categorical=(), train_until=30)
    assert len(data.interactions) == 4
    assert "line 6" in data.notes[0]
    assert "77" in data.notes[0]


def test_years_are_the_last_four_digits_in_parentheses() -> None:
    titles = pd.Series(["Toy Story (1995)", "Se7en (Seven) (1995)", "2001 (1968) (V)", "unknown", "Odd (19) (1990s)"])
    years = movielens.year(titles)
    assert years[:3].tolist() == [1995, 1995, 1968]
    assert years[3:].isna().all()


def test_genres_become_flags_and_unknown_ones_are_named() -> None:
    words = pd.Series([["War"], [], ["Drama", "War"]])
    assert movielens.flags(Path("u.item"), words, GENRES) == {"Drama": [0, 0, 1], "War": [1, 0, 1]}
    with pytest.raises(DataError, match=r"u\.item has genres that MovieLens does not know: Noir, Sad"):
        movielens.flags(Path("u.item"), pd.Series([["Sad", "War"], ["Noir"]]), GENRES)
