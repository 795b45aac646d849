"""Compiled kernels without a home and a package to write to: files where folders should be, which stop root too."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftmamba.ops import cache

KERNEL = """
from numba import carray
def kernel(pointer):
    record = carray(pointer, 1)
    record[0].n_entered = record[0].answer + 1
"""


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Its folder of temporary files."""
    for name in ("home", "package/__pycache__", "chosen"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a file where a folder should be")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("TRITON_CACHE_DIR", "TRITON_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # what the code sets is undone as well
    cache.fallback.cache_clear()
    yield tmp_path / "tmp"
    cache.fallback.cache_clear()


def kernel(folder: Path) -> Any:
    path = folder / "package" / "kernels.py"
    path.write_text(KERNEL)
    spec = importlib.util.spec_from_file_location("kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


@pytest.mark.parametrize("chosen", ["", "chosen"])
def test_kernels_are_kept_among_temporary_files(chosen: str, container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    from numba.core import config

    from ftmamba.ops import simd

    monkeypatch.setattr(config, "CACHE_DIR", chosen and str(container.parent / chosen))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    function = kernel(container.parent)
    block = (ctypes.c_int64 * 3)(41, 0, 0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(simd.compile_entry(function, ["answer"]))(ctypes.addressof(block))
    assert list(block) == [41, 42, 0]
    folder = Path(simd.cache_folder(function))
    assert folder.is_relative_to(container)
    assert any(folder.iterdir())


def test_where_nothing_can_be_written_kernels_run_all_the_same(
    container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    from numba.core import config

    from ftmamba.ops import simd

    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr(tempfile, "tempdir", str(container.parent / "home"))
    function = kernel(container.parent)
    assert simd.cache_folder(function) is None
    assert simd.compile_entry(function, ["answer"])


def test_a_folder_of_others_is_not_trusted(container: Path) -> None:
    planted = container / f"ftmamba-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    found = cache.fallback()
    assert found is not None
    assert Path(found) != planted
    assert Path(found).stat().st_mode & 0o077 == 0


def test_triton_too(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.place_triton()
    assert Path(os.environ["TRITON_CACHE_DIR"]).is_relative_to(container)
    writable = container / "mine"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(writable))
    cache.place_triton()
    assert os.environ["TRITON_CACHE_DIR"] == str(writable)
