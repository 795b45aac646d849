"""What the files and columns of your own tables are: inferred, shown, and corrected in ``dataset.toml``.

``python -m bench.datasets describe FOLDER`` writes what was inferred as a draft. A key that the file leaves out is
inferred; one that it gives is taken at its word.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.data.files import DataError
from bench.data.infer import kind_of, raw_table
from bench.data.tables import Column

FILE = "dataset.toml"
SIDES = ("users", "items")
KINDS = {"number": "numeric", "time": "times", "group": "categorical", "left out": "left_out"}
NAMES = {
    "user": ("user_id", "user", "userid", "uid", "customer_id", "household_id", "session_id", "visitor_id"),
    "item": ("item_id", "item", "itemid", "iid", "product_id", "article_id", "movie_id", "track_id", "video_id"),
    "time": ("timestamp", "time", "date", "datetime", "ts", "t_dat", "created_at"),
    "label": ("label", "rating", "liked", "click", "clicked", "is_click", "score"),
}


@dataclass(frozen=True)
class Format:
    """How a folder's files are written.

    Attributes:
        about: for people.
        endings: of file names.
        stems: of the tables' names, first choice first; empty where the ending tells the table.
    """

    about: str
    endings: dict[str, tuple[str, ...]]
    stems: dict[str, tuple[str, ...]] = field(default_factory=dict)


_STEMS = {"users": ("users", "user"), "items": ("items", "item"),
          "interactions": ("interactions", "events", "ratings", "transactions")}  # fmt: skip
FORMATS = {
    "csv": Format(
        "users.csv, items.csv and interactions.csv (.tsv and .gz too), or interactions.csv alone",
        dict.fromkeys(_STEMS, (".csv", ".tsv", ".csv.gz", ".tsv.gz")), _STEMS,
    ),
    "parquet": Format(
        "users.parquet, items.parquet and interactions.parquet, or interactions.parquet alone",
        dict.fromkeys(_STEMS, (".parquet",)), _STEMS,
    ),
    "recbole": Format(
        "RecBole's atomic files NAME.inter, NAME.user and NAME.item, or NAME.inter alone",
        {"users": (".user",), "items": (".item",), "interactions": (".inter",)},
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Side:
    """The table of users, or of items.

    Attributes:
        file: empty where there is none; the ids are then those of the interactions.
        key: column of ids.
        numeric, times, categorical: columns that become tokens.
        left_out: columns that do not.
    """

    file: str = ""
    key: str = ""
    numeric: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, Column]:
        kinds = ((self.numeric, "float"), (self.times, "date"), (self.categorical, "text"))
        features = {name: Column(cast(Any, kind), optional=True) for names, kind in kinds for name in names}
        return {self.key: Column("text"), **features}


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """The table of who met what.

    Attributes:
        file: of it.
        user, item: columns of ids.
        time: column of seconds (or milli-, micro-, nanoseconds) or of dates; empty where there is none.
        label: column that tells how it was liked; empty where every row is a positive.
        liked_from: label from which on a row is a positive.
        dated: whether the times are dates.
    """

    file: str
    user: str
    item: str
    time: str = ""
    label: str = ""
    liked_from: float = 0.0
    dated: bool = False

    @property
    def columns(self) -> dict[str, Column]:
        found = {self.user: Column("text"), self.item: Column("text")}
        found |= {self.time: Column("date" if self.dated else "float")} if self.time else {}
        return found | ({self.label: Column("float")} if self.label else {})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The three tables; ``notes`` says for people what was left out, and why."""

    users: Side
    items: Side
    interactions: Interactions
    notes: tuple[str, ...] = ()

    def to_toml(self) -> str:
        """The draft of ``dataset.toml``."""
        lines = ["# What the columns are; correct what is wrong. A key that is taken out is inferred again."]
        for name in (*SIDES, "interactions"):
            lines += ["", f"[{name}]"]
            for key, value in vars(getattr(self, name)).items():
                lines.append(f"{key} = {json.dumps(list(value) if isinstance(value, tuple) else value)}")
        return "\n".join(lines) + "\n"


def inspect(folder: Path, kind: str) -> Layout:
    """What the folder's tables are, by ``dataset.toml`` where it says it, inferred where it does not.

    Raises:
        DataError: no folder, a table or a column is not found, or ``dataset.toml`` is wrong.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {kind} takes a folder with {FORMATS[kind].about}")
    given = _read_toml(folder / FILE)
    files = {name: given[name].pop("file", None) or find_file(folder, kind, name) for name in given}
    if not files["interactions"]:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise DataError(f"{folder} has no table of interactions; {kind} takes {FORMATS[kind].about}; found {held}")
    tables = {name: raw_table(folder / file) for name, file in files.items() if file}
    met = _interactions(folder / files["interactions"], tables["interactions"], given["interactions"])
    notes: list[str] = []
    sides = [
        _side(folder / files[name], tables[name], key, given[name], notes) if files[name] else Side(key=key)
        for name, key in zip(SIDES, (met.user, met.item), strict=True)
    ]
    ignored = [name for name in tables["interactions"] if name not in met.columns]
    if ignored:
        notes.append(f"{met.file}: columns without a meaning here: {', '.join(map(str, ignored))}")
    return Layout(users=sides[0], items=sides[1], interactions=met, notes=tuple(notes))


def find_file(folder: Path, kind: str, table: str) -> str:
    """The name of a table's file, empty where there is none.

    Raises:
        DataError: there are two.
    """
    endings, stems = FORMATS[kind].endings[table], FORMATS[kind].stems.get(table, ())
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name.endswith(endings))
    for stem in stems:
        own = [name for name in names if name.partition(".")[0].lower() == stem]
        if own:
            names = own
            break
    else:
        names = [] if stems else names
    if len(names) > 1:
        raise DataError(f"{folder} has {' and '.join(names)} for {table}; name one in {FILE}: [{table}] file = ...")
    return names[0] if names else ""


def _read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """Each table's keys that are given.

    Raises:
        DataError: not TOML, or with a key that means nothing here.
    """
    found: dict[str, Any] = {}
    if path.is_file():
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from None
    tables = {**dict.fromkeys(SIDES, Side), "interactions": Interactions}
    for name, keys in found.items():
        known = {each.name: each.type for each in fields(tables[name])} if name in tables else {}
        if name not in tables or not isinstance(keys, dict):
            raise DataError(f"{path}: {name} is none of [users], [items], [interactions]")
        for key, value in keys.items():
            if key not in known:
                raise DataError(f"{path} [{name}]: unknown key {key}; choose from {', '.join(known)}")
            kind = str(known[key])
            is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
            fits = {"str": isinstance(value, str), "bool": isinstance(value, bool), "float": _is_number(value)}
            if not fits.get(kind, is_list):
                raise DataError(f"{path} [{name}]: {key} has {value!r:.80}, expected {_TOML.get(kind, 'names in []')}")
            keys[key] = tuple(value) if isinstance(value, list) else value
    return {name: dict(found.get(name, {})) for name in tables}


_TOML = {"str": "a name", "bool": "true or false", "float": "a number"}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interactions(path: Path, table: pd.DataFrame, given: dict[str, Any]) -> Interactions:
    """The columns of the interactions.

    Raises:
        DataError: no column of users or of items.
    """
    found: dict[str, Any] = {"file": path.name, **given}
    for name, guesses in NAMES.items():
        if name not in found:
            lowered = {str(column).lower(): str(column) for column in reversed(table.columns)}
            found[name] = next((lowered[each] for each in guesses if each in lowered), "")
        if found[name] and found[name] not in table:
            raise DataError(f"{path} has no column {found[name]} for {name}; found {_listed(table)}")
        if not found[name] and name in ("user", "item"):
            raise DataError(
                f"{path} has no column {', '.join(guesses)}; found {_listed(table)}; "
                f"say which it is in {path.parent / FILE}: [interactions] {name} = ..."
            )
    if found["time"]:
        kind = kind_of(table[found["time"]])[0]
        found.setdefault("dated", kind == "time")
    if found["label"] and "liked_from" not in found:
        found["liked_from"] = _liked_from(path, table[found["label"]])
    return Interactions(**found)


def _liked_from(path: Path, labels: pd.Series[Any]) -> float:
    """The smallest label above the middle of its scale: 1 of 0 and 1, 4 of 1 to 5."""
    values = pd.to_numeric(labels, errors="coerce").dropna()
    if values.empty:
        raise DataError(f"{path}: column {labels.name} has no number, but is to tell what was liked")
    above = values[values > (values.min() + values.max()) / 2]
    return float(above.min() if len(above) else values.max())


def _side(path: Path, table: pd.DataFrame, id_name: str, given: dict[str, Any], notes: list[str]) -> Side:
    """The columns of the users or of the items.

    Raises:
        DataError: no column of ids, or one that is named is not there.
    """
    key = given.get("key") or next((str(name) for name in table if str(name).lower() == id_name.lower()), "")
    if key not in table:
        wish = key or id_name
        raise DataError(f"{path} has no column {wish}; found {_listed(table)}; say which it is with key in {FILE}")
    named = {name for column in ("numeric", "times", "categorical", "left_out") for name in given.get(column, ())}
    absent = sorted(named - set(table.columns))
    if absent:
        raise DataError(f"{path} has no column {', '.join(absent)}, which {FILE} names; found {_listed(table)}")
    columns: dict[str, list[str]] = {name: list(given.get(name, ())) for name in KINDS.values()}
    reasons = []
    for name in table.columns:
        if name != key and name not in named:
            kind, why = kind_of(table[name])
            columns[KINDS[kind]].append(name)
            reasons += [f"{name} ({why})"] if kind == "left out" else []
    if reasons:
        notes.append(f"{path.name}: left out {', '.join(reasons)}")
    return Side(file=path.name, key=key, **{name: tuple(values) for name, values in columns.items()})


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns))[:400]
