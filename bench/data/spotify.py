"""Spotify songs (TidyTuesday, 21 January 2020): 28,356 tracks with audio features on 471 playlists.

``spotify``: a playlist is a user, its tracks are what it likes; a share of them is held out. There are no times. The
playlist's genre stays off the tracks, where it would name the playlist. The audio means of a playlist are those of its
training tracks.

``spotify:users=simulated``: as in the paper (arXiv 2409.17165), listeners with a taste vector over the audio features
like tracks by its fit; both answers are drawn, and the best ranking is known (baseline ``oracle``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.data import download
from bench.data.dataset import TRAIN, Adapter, DataSet, Source, Table, choice, interactions, split_within_user
from bench.data.files import Odd, Say, table_path
from bench.data.simulated import draw
from bench.data.tables import FLAG, FLOAT, INT, TEXT, TextTable

FILE = "spotify_songs.csv"
URL = "https://raw.githubusercontent.com/rfordatascience/tidytuesday/main/data/2020/2020-01-21/spotify_songs.csv"
AUDIO = (
    "danceability", "energy", "loudness", "speechiness", "acousticness", "instrumentalness", "liveness", "valence",
    "tempo", "duration_ms",
)  # fmt: skip
TRACK_NUMBERS = (*AUDIO, "track_popularity", "release_year")
TRACK_GROUPS = ("key", "mode")

PLAYLIST = ("playlist_id", "playlist_genre", "playlist_subgenre")
LAYOUT = TextTable(
    {**dict.fromkeys((*PLAYLIST, "track_id", "track_album_release_date"), TEXT), "track_popularity": INT,
     **dict.fromkeys(AUDIO, FLOAT), "key": INT, "mode": FLAG},
    missing=("NA",),
)  # fmt: skip

N_LISTENERS = 1000
TRACKS_HEARD = 160  # of each simulated listener: 160,000 pairs, as many as in the paper
SHARPNESS = 3.0
HOUR_S = 3600


def adapter_of(settings: str) -> Adapter:
    """``users=playlists`` or ``users=simulated``.

    Raises:
        DataError: another setting.
    """
    simulated = choice(settings, "spotify", "users", ("playlists", "simulated")) == "simulated"
    name = f"spotify:{settings}" if settings else "spotify"
    return Adapter(
        name=name,
        about="28,356 tracks with audio features on 471 playlists (or heard by listeners with spotify:users=simulated)",
        licence="MIT (TidyTuesday); the values come from Spotify's Web API, whose terms are its own",
        homepage="https://github.com/rfordatascience/tidytuesday/tree/main/data/2020/2020-01-21",
        files={FILE: None},
        load=lambda folder: (_listeners if simulated else _playlists)(folder, name),
        sources=(Source(about="the TidyTuesday repository", fetch=from_tidytuesday),),
        simulated=simulated,
    )


def _read(folder: Path, say: Say) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows, and the tracks: one row each, the first that names it."""
    path = table_path(folder, FILE)
    rows = LAYOUT.read(path, say)
    year = rows["track_album_release_date"].str.extract(r"^(\d{4})(?:-\d{2}){0,2}$", expand=False)
    odd = Odd(path, "have a value that counts as missing")
    for value in rows["track_album_release_date"][year.isna()]:
        odd.add("column track_album_release_date", f"has {value!r}, which is not a date")
    odd.tell(len(rows), say)
    rows["release_year"] = year.astype("float64")
    tracks = rows.drop_duplicates("track_id", ignore_index=True)
    return rows, tracks[["track_id", *TRACK_NUMBERS, *TRACK_GROUPS]]


def _playlists(folder: Path, name: str) -> DataSet:
    notes: list[str] = []
    rows, tracks = _read(folder, notes.append)
    users = rows.drop_duplicates("playlist_id", ignore_index=True)[list(PLAYLIST)]
    user = pd.Index(users["playlist_id"]).get_indexer(rows["playlist_id"])
    item = pd.Index(tracks["track_id"]).get_indexer(rows["track_id"])
    pairs = np.unique(np.stack([user, item], axis=1).astype(np.int64), axis=0)  # a playlist under two genres once
    user, item = pairs[:, 0], pairs[:, 1]
    split = split_within_user(user, (0.1, 0.2))
    training = split == TRAIN
    audio = tracks[list(AUDIO)].iloc[item[training]].groupby(user[training]).mean().reindex(range(len(users)))
    means = {f"mean_{column}": audio[column].to_numpy() for column in AUDIO}
    return DataSet(
        name=name,
        users=Table(
            frame=users.assign(**means), key="playlist_id", numeric=tuple(means),
            categorical=PLAYLIST[1:],
        ),
        items=_track_table(tracks),
        interactions=interactions(user, item, 0, True, split),
        split_rule="at random within each playlist: 10 % validate, 20 % test",
        notes=tuple(notes),
    )  # fmt: skip


def _listeners(folder: Path, name: str) -> DataSet:
    notes: list[str] = []
    _, tracks = _read(folder, notes.append)
    random = np.random.default_rng(0)
    audio = tracks[list(AUDIO)].to_numpy(np.float64)
    content = (audio - audio.mean(axis=0)) / audio.std(axis=0)
    content = np.clip(content, -3, 3) / len(AUDIO) ** 0.5
    taste = random.standard_normal((N_LISTENERS, len(AUDIO)))
    answers = taste + 0.3 * random.standard_normal(taste.shape)  # what listeners say of their taste
    users = pd.DataFrame({"listener": np.arange(N_LISTENERS)})
    users = users.assign(**{f"likes_{column}": answers[:, i] for i, column in enumerate(AUDIO)})
    fame = (tracks["track_popularity"].to_numpy(np.float64) - 50) / 50
    return draw(
        random, (SHARPNESS * taste, content), (np.full(N_LISTENERS, -1.0), fame),
        each=TRACKS_HEARD, moments=365 * 24, moment_s=HOUR_S,
        name=name,
        users=Table(frame=users, key="listener", numeric=tuple(f"likes_{column}" for column in AUDIO)),
        items=_track_table(tracks),
        notes=tuple(notes),
    )  # fmt: skip


def _track_table(tracks: pd.DataFrame) -> Table:
    return Table(frame=tracks, key="track_id", numeric=TRACK_NUMBERS, categorical=TRACK_GROUPS)


def from_tidytuesday(folder: Path, say: Say) -> None:
    download.by_url(URL, folder / FILE, say)


ADAPTER = adapter_of("")
