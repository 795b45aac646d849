"""LFM-1b: listening events of Last.fm's users, whole or in part (Schedl, ICMR 2016, doi 10.1145/2911996.2912004).

The file is supplied by the user. Items are the artists, of whom there are a hundredth as many as tracks.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import Adapter, DataSet
from bench.data.event_logs import data_set
from bench.data.files import table_path
from bench.data.tables import INT, TextTable

FILE = "LFM-1b_LEs.txt"
LOG = TextTable(
    dict.fromkeys(("user_id", "artist_id", "album_id", "track_id", "timestamp"), INT), separator="\t", header=False,
    quoted=False,
)  # fmt: skip


def load(folder: Path) -> DataSet:
    """The log as a data set of histories.

    Raises:
        DataError: the file is missing or not as its format says; names line and column.
    """
    notes: list[str] = []
    heard = LOG.read(table_path(folder, FILE), notes.append)
    return data_set(ADAPTER.name, heard.rename(columns={"artist_id": "item_id", "timestamp": "time"}), notes)


ADAPTER = Adapter(
    name="lfm-1b",
    about="what Last.fm's users listened to, artists as items, as histories (a file supplied by you)",
    licence="see its homepage",
    homepage="http://www.cp.jku.at/datasets/LFM-1b/",
    files={FILE: None},
    load=load,
    supply=FILE,
)
