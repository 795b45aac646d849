"""Writing results folders: one writer, nothing doubled, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import writer as writer_module
from bench.records.record import SCHEMA, Record
from bench.records.store import RunError, load_run
from bench.records.writer import RunWriter


def record(n: int) -> Record:
    return Record(run="r", cell_id=f"cell-{n}", round=0, cell={"n_tokens": n}, status="skipped", reason="why")


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with RunWriter.create(folder, {"kind": "sweep"}) as writer:
        writer.append(record(1))
        writer.append(record(2))
        writer.update_meta(ended_at="now")
    run = load_run(folder)
    assert run.records == [record(1), record(2)]
    assert run.meta == {"schema": SCHEMA, "kind": "sweep", "ended_at": "now"}


def test_a_folder_that_holds_a_run_is_not_begun_again(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(record(1))
    with pytest.raises(RunError, match="already holds a run; continue it with --resume"):
        RunWriter.create(tmp_path, {})
    assert load_run(tmp_path).records == [record(1)]


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from bench.records.writer import RunWriter; from bench.records.store import RunError\n"
        "try: RunWriter.resume(pathlib.Path(sys.argv[1]))\n"
        "except RunError as error: print(error)"
    )
    with RunWriter.create(tmp_path, {}):
        other = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
        assert "is in use by another process" in other.stdout
    other = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert other.stdout == ""


def test_a_torn_last_line_is_cut_off_before_more_is_written(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(record(1))
        writer.append(record(2))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with RunWriter.resume(tmp_path) as writer:
        assert writer.records == [record(1)]
        assert len(writer.problems) == 1
        writer.append(record(3))
    run = load_run(tmp_path)
    assert run.records == [record(1), record(3)]
    assert run.problems == []


def test_a_record_without_its_line_end_is_kept(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(record(1))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with RunWriter.resume(tmp_path) as writer:
        writer.append(record(2))
    assert load_run(tmp_path).records == [record(1), record(2)]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_then_full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(record(1))
        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "_write_all", half_then_full)
            with pytest.raises(RunError, match=r"No space left on device; all earlier records are safe"):
                writer.append(record(2))
        writer.append(record(3))
    run = load_run(tmp_path)
    assert run.records == [record(1), record(3)]
    assert run.problems == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_meta_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, {"kind": "sweep"}) as writer:
        (tmp_path / ".run.json.new").symlink_to("/dev/full")
        with pytest.raises(RunError, match="No space left on device"):
            writer.update_meta(ended_at="now")
    assert json.loads((tmp_path / "run.json").read_text()) == {"schema": SCHEMA, "kind": "sweep"}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write to .*file/run: Not a directory"):
        RunWriter.create(tmp_path / "file" / "run", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        RunWriter.create(tmp_path / "run", {})


def test_numbers_that_are_none_never_reach_the_file(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, {}) as writer:
        bad = Record(run="r", cell_id="c", round=0, cell={}, status="ok", samples={"wall_s": [float("nan")]})
        with pytest.raises(ValueError, match="not JSON compliant"):
            writer.append(bad)
    assert load_run(tmp_path).records == []


def test_a_line_that_repeats_another_is_gone_after_resuming(tmp_path: Path) -> None:
    """One with other readings stays: nothing that was measured is thrown away."""
    with RunWriter.create(tmp_path, {}) as writer:
        writer.append(record(1))
        writer.append(record(2))
    path = tmp_path / "records.jsonl"
    one, two = path.read_bytes().splitlines(keepends=True)
    other = one.replace(b'"why"', b'"another"')
    path.write_bytes(one + two + one + other + two)
    with RunWriter.resume(tmp_path) as writer:
        assert len(writer.problems) == 3
        with pytest.raises(RunError, match="in use"):
            RunWriter.resume(tmp_path)
        writer.append(record(3))
    first, second, third, _ = path.read_bytes().splitlines(keepends=True)
    assert (first, second, third) == (one, two, other)
    assert load_run(tmp_path).records == [record(1), record(2), record(3)]
