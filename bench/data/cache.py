"""Where data sets lie on this machine, and how they get there: fetched beside, verified, then moved in one step."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from bench.data.dataset import Adapter, DataSet
from bench.data.files import DataError, Say, table_path

SOURCE_FILE = "source.json"


def root() -> Path:
    """The folder that holds one folder a data set: ``FTMAMBA_DATA``, or the user's cache folder."""
    chosen = os.environ.get("FTMAMBA_DATA")
    return Path(chosen) if chosen else platformdirs.user_cache_path("ftmamba") / "data"


def home(adapter: Adapter) -> Path:
    """The data set's folder in the cache; settings after a colon in the name change what is read, not what is kept."""
    return root() / adapter.name.partition(":")[0]


def locate(adapter: Adapter, data: Path | None = None) -> Path:
    """The data set's folder: ``data`` where given, else the one in the cache.

    Raises:
        DataError: it is not there; says how to get it.
    """
    folder = home(adapter) if data is None else data
    absent = missing(adapter, folder)
    if not absent:
        return folder
    if data is not None:
        raise DataError(f"{data} does not hold {adapter.name}: {', '.join(absent)} missing")
    if adapter.sources:
        raise DataError(f"{adapter.name} is not here yet; get it with: python -m bench.datasets fetch {adapter.name}")
    raise DataError(f"{adapter.name} must be supplied by you: {adapter.supply} in {folder}, or give --data FOLDER")


def is_cached(adapter: Adapter) -> bool:
    return not missing(adapter, home(adapter))


def missing(adapter: Adapter, folder: Path) -> list[str]:
    """Its files that a folder does not hold."""
    return [name for name in adapter.files if not table_path(folder, name).is_file()]


def load(adapter: Adapter, data: Path | None = None) -> DataSet:
    """Read the data set from ``data`` or the cache.

    Raises:
        DataError: not there, damaged, or not as its format says.
    """
    return adapter.load(locate(adapter, data))


def fetch(adapter: Adapter, say: Say, *, again: bool = False) -> Path:
    """Get the data set from the first source that answers, verify it, and move it into the cache.

    Args:
        adapter: of the data set.
        say: is called with one line for people whenever something happens.
        again: fetch even when it is there.

    Returns:
        The data set's folder.

    Raises:
        DataError: nothing can be fetched, no source answered, or what came is not what was expected.
    """
    target = home(adapter)
    if not adapter.files:
        raise DataError(f"{adapter.name} is generated, there is nothing to fetch")
    if is_cached(adapter) and not again:
        try:
            verify(adapter, target)
        except DataError as error:
            say(f"{error}; fetching it again")
        else:
            say(f"{adapter.name} is already in {target}")
            return target
    if not adapter.sources:
        raise DataError(f"{adapter.name} cannot be fetched; put {adapter.supply} into {target}")
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in adapter.sources:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
                ready = Path(scratch) / target.name
                ready.mkdir()
                say(f"{adapter.name} from {source.about}")
                try:
                    source.fetch(ready, say)
                    verify(adapter, ready)
                    if None in adapter.files.values():  # nothing pins what came but that it can be read
                        adapter.load(ready)
                except DataError as error:
                    say(f"  {error}")
                    failures.append(f"{source.about}: {error}")
                    continue
                _note_source(ready, source.about)
                _move(ready, target, Path(scratch) / "old")
                say(f"{adapter.name} is in {target}")
                return target
    except OSError as error:
        raise DataError(
            f"cannot write {target.parent}: {error.strerror or error}; FTMAMBA_DATA can name another folder"
        ) from None
    raise DataError(f"no source of {adapter.name} could be used: {'; '.join(failures)}")


def verify(adapter: Adapter, folder: Path) -> None:
    """Compare the files with their checksums.

    Raises:
        DataError: a file is missing or not the one that was published.
    """
    for name, expected in adapter.files.items():
        path = table_path(folder, name)
        if not path.is_file():
            raise DataError(f"{path} is missing")
        if expected is not None and (found := sha256(path)) != expected:
            raise DataError(f"{path} is damaged: sha256 {found[:12]}..., expected {expected[:12]}...")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_source(folder: Path, about: str) -> None:
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    note = {"source": about, "fetched_at": datetime.now(UTC).isoformat(timespec="seconds"), "sha256": files}
    (folder / SOURCE_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _move(ready: Path, target: Path, old: Path) -> None:
    """A folder cannot be replaced in one step; the old one steps aside first and is put back if the move fails."""
    if target.exists():
        target.rename(old)
    try:
        ready.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
