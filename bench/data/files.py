"""Files as they come: packed or not, line by line, with what is odd in them counted and told."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

FEW = 10  # odd rows that never put the rest of a file in doubt, unless they are most of it
BLOCK = 1 << 20

Say = Callable[[str], None]  # is called with one line for people


class DataError(ValueError):
    """A data set that cannot be found, fetched or read; the message is one line for people."""


class Odd:
    """Rows of one file that are not as they should be: how many, and what is wrong with the first."""

    def __init__(self, path: Path, fate: str = "left out") -> None:
        self.path, self.fate = path, fate
        self.count, self.first = 0, ""

    def add(self, where: str, why: str, count: int = 1) -> None:
        self.first = self.first or f"{where}: {why}"
        self.count += count

    def tell(self, n_rows: int, say: Say) -> None:
        """Say how many of the file's ``n_rows`` are odd.

        Raises:
            DataError: more than a tenth of them; of a short file more than half.
        """
        if self.count > max(n_rows // 10, min(FEW, n_rows // 2)):
            raise DataError(f"{self.path} {self.first} (the first of {self.count} odd rows among {n_rows})")
        if self.count:
            say(f"{self.path.name}: {self.count} of {n_rows} rows {self.fate}, the first is {self.first}")


def table_path(folder: Path, name: str) -> Path:
    """``folder/name``, or its gzip-compressed form where only that exists."""
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() and not (folder / name).is_file() else folder / name


def open_unpacked(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where it is gzip-compressed, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def count_lines(path: Path) -> int:
    """Lines of a file, the last one with or without its end."""
    count, last = 0, b"\n"
    with open_unpacked(path) as file:
        while block := file.read(BLOCK):
            count, last = count + block.count(b"\n"), block[-1:]
    return count + (last != b"\n")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and object of each line that is not blank, or what is wrong with it.

    Raises:
        DataError: absent, or cannot be read to its end.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    line = 0
    try:
        with open_unpacked(path) as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    entry = json.loads(text.rstrip())
                except json.JSONDecodeError as error:
                    yield line, f"not JSON at column {error.colno}: {error.msg}"
                except (ValueError, RecursionError) as error:
                    yield line, f"not JSON: {error}"
                else:
                    yield line, entry if isinstance(entry, dict) else "not a JSON object"
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} beyond line {line}: {error}") from None
