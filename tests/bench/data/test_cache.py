"""Fetching: sources in turn, verified, moved in one step; nothing half-done is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from bench.data import cache
from bench.data.dataset import Adapter, Source
from bench.data.files import DataError

GOOD = b"good"


def source(content: bytes | None, about: str = "somewhere") -> Source:
    def fetch(folder: Path, say: Callable[[str], None]) -> None:
        (folder / "half").write_bytes(b"x")
        if content is None:
            raise DataError("out of reach")
        (folder / "half").rename(folder / "a.csv")
        (folder / "a.csv").write_bytes(content)

    return Source(about=about, fetch=fetch)


def adapter_with(*sources: Source) -> Adapter:
    return Adapter(
        name="things", about="", licence="", homepage="", files={"a.csv": sha256(GOOD).hexdigest()},
        load=lambda folder: pytest.fail("not read here"), sources=sources, supply="a.csv",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTMAMBA_DATA", str(tmp_path / "cache"))


def said(adapter: Adapter, **options: bool) -> list[str]:
    lines: list[str] = []
    cache.fetch(adapter, lines.append, **options)
    return lines


def test_the_first_source_that_answers_is_taken() -> None:
    lines = said(adapter_with(source(None, "first"), source(b"damaged", "second"), source(GOOD, "third")))
    folder = cache.root() / "things"
    assert (folder / "a.csv").read_bytes() == GOOD
    assert '"source": "third"' in (folder / cache.SOURCE_FILE).read_text()
    assert any("out of reach" in line for line in lines)
    assert any("is damaged" in line for line in lines)
    assert [path.name for path in cache.root().iterdir()] == ["things"]


def test_no_source_leaves_nothing_and_tells_every_reason() -> None:
    with pytest.raises(DataError, match=r"first: out of reach; second: .* is damaged: sha256"):
        said(adapter_with(source(None, "first"), source(b"damaged", "second")))
    assert list(cache.root().iterdir()) == []


def test_what_is_there_is_kept_unless_damaged_or_asked_for() -> None:
    said(adapter_with(source(GOOD)))
    assert "already" in said(adapter_with(source(None)))[0]
    (cache.root() / "things" / "a.csv").write_bytes(b"rotten")
    said(adapter_with(source(GOOD)))
    assert (cache.root() / "things" / "a.csv").read_bytes() == GOOD
    with pytest.raises(DataError, match="out of reach"):
        said(adapter_with(source(None)), again=True)
    assert (cache.root() / "things" / "a.csv").read_bytes() == GOOD


def test_a_folder_that_cannot_be_written() -> None:
    cache.root().parent.mkdir(parents=True, exist_ok=True)
    cache.root().write_bytes(b"a file stands where the folder should")
    with pytest.raises(DataError, match="cannot write"):
        said(adapter_with(source(GOOD)))


def test_locate_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"python -m bench\.datasets fetch things"):
        cache.locate(adapter_with(source(GOOD)))
    with pytest.raises(DataError, match=r"must be supplied by you: a\.csv"):
        cache.locate(adapter_with())
    with pytest.raises(DataError, match=r"does not hold things: a\.csv missing"):
        cache.locate(adapter_with(), tmp_path)
    with pytest.raises(DataError, match=r"put a\.csv into"):
        said(adapter_with())
    with pytest.raises(DataError, match="generated"):
        said(replace(adapter_with(), files={}))
