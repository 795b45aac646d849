"""Writing a results folder: one writer at a time, one line a record, and what was written stays."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from bench.records.record import SCHEMA, Record
from bench.records.store import (
    NEEDS_POSIX,
    RECORDS_FILE,
    RUN_FILE,
    RunError,
    parse_records,
    read_meta,
    run_name,
    upgraded,
)


class RunWriter:
    """An open results folder. Use as a context manager; the folder is locked until it closes.

    Attributes:
        folder: the results folder; its name is the run's name.
        meta: contents of ``run.json``; change it through ``update_meta``.
        records: what the folder already held when it was opened.
        problems: one line for each line of ``records.jsonl`` that could not be used.
    """

    def __init__(self, folder: Path, descriptor: int, meta: dict[str, Any], content: bytes) -> None:
        self.folder = folder
        self.meta = upgraded(folder, meta) if meta else meta
        self._descriptor = descriptor
        self.records, self.problems = parse_records(content, str(folder / RECORDS_FILE), meta)

    @property
    def name(self) -> str:
        return run_name(self.folder)

    @classmethod
    def create(cls, folder: Path, meta: dict[str, Any]) -> RunWriter:
        """Begin a run in a new folder, or in one that holds no run yet.

        Args:
            folder: made where absent, with its parents.
            meta: for ``run.json``; the schema version is added.

        Raises:
            RunError: the folder holds a run, is in use, or cannot be written.
        """
        descriptor, content = _open_locked(folder)
        try:
            if content or (folder / RUN_FILE).exists():
                raise RunError(f"{folder} already holds a run; continue it with --resume or choose another --out")
            writer = cls(folder, descriptor, {}, content)
            writer.update_meta(schema=SCHEMA, **meta)
        except BaseException:
            os.close(descriptor)
            raise
        return writer

    @classmethod
    def resume(cls, folder: Path) -> RunWriter:
        """Continue the run in ``folder``, first without its torn last line and the lines that repeat another.

        Raises:
            RunError: no run there, in use, a schema that this program cannot follow, or not writable.
        """
        meta = read_meta(folder)
        descriptor, content = _open_locked(folder)
        try:
            writer = cls(folder, descriptor, meta, content)
            tidy = _tidied(content)
            if tidy != content:
                _replace(folder / RECORDS_FILE, tidy)
                writer._descriptor, _ = _open_locked(folder)
                os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return writer

    def append(self, record: Record) -> None:
        """Write one record; when this returns, it is on the disk.

        Raises:
            RunError: disk full or gone; all earlier records are intact.
        """
        line = json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, line)
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise RunError(
                f"cannot write {self.folder / RECORDS_FILE}: {error.strerror}; all earlier records are safe there"
            ) from None

    def update_meta(self, **fields: Any) -> None:
        """Set fields of ``run.json``; the file is replaced whole, so that no reader sees half of it.

        Raises:
            RunError: disk full or folder not writable; the earlier contents are intact.
        """
        self.meta = {**self.meta, **fields}
        _replace(self.folder / RUN_FILE, json.dumps(self.meta, indent=1, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)  # gives the lock back too

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_locked(folder: Path) -> tuple[int, bytes]:
    try:
        import fcntl
    except ModuleNotFoundError:
        raise RunError(NEEDS_POSIX) from None
    path = folder / RECORDS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (OSError, ValueError) as error:
        raise RunError(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}") from None
    try:
        # On the records themselves, so that no stale lock file can be left behind by a killed process.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise BlockingIOError(errno.EWOULDBLOCK, "replaced meanwhile by the process that uses it")
        content = path.read_bytes()
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise RunError(f"{folder} is in use by another process; wait for it or choose another --out") from None
        raise RunError(f"cannot use {path}: {error.strerror}") from None
    return descriptor, content


def _tidied(content: bytes) -> bytes:
    """What a reader can use: no line twice, and the last one whole or not at all."""
    *lines, last = content.split(b"\n")
    try:
        json.loads(last)
        lines.append(last)  # whole, but for the end of the line
    except (ValueError, RecursionError):
        pass
    return b"".join(line + b"\n" for line in dict.fromkeys(lines))


def _replace(path: Path, data: bytes) -> None:
    """The file is replaced whole, so that no reader sees half of it."""
    new = path.with_name(f".{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
