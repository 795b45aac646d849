"""Where a run comes from: what was typed, which code, which machine, when. The contents of ``run.json``."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = (":(exclude)results", ":(exclude)reports")  # a run rewrites its report, which changes no code


def utc_now() -> str:
    """This moment, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.cache
def machine_name() -> str:
    """Eight hex digits that are the same for every process of a machine, and tell nothing of its name."""
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            own = Path(path).read_text().strip()
        except OSError:
            continue
        if own:
            break
    else:
        own = ""
    return hashlib.sha256(f"{own}/{platform.node()}".encode()).hexdigest()[:8]


def code_id(root: Path = ROOT) -> str:
    """Eight hex digits of a hash over the project's own source."""
    digest = hashlib.sha256()
    for path in sorted(each for package in ("ftmamba", "bench") for each in (root / package).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def run_meta(
    command: str, name: str, argv: Sequence[str], spec: dict[str, Any], machine: dict[str, Any]
) -> dict[str, Any]:
    """``run.json`` at the start of a run; ``ended_at`` is set at its end.

    Args:
        command: that made it, such as ``bench.sweep``.
        name: of the run; its folder's name.
        argv: the command line after ``python -m``.
        spec: the resolved settings.
        machine: facts from ``bench.run.environment.probe``.
    """
    return {
        "command": command,
        "name": name,
        "argv": list(argv),
        "spec": spec,
        "git": git_state(),
        "machine": machine,
        "started_at": utc_now(),
        "ended_at": None,
        "sessions": [],
    }


def git_state(root: Path = ROOT) -> dict[str, Any] | None:
    """Commit of the project's checkout and whether tracked files differ from it, outputs aside; None outside git."""
    commit = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    if commit is None:
        return None
    top, sha = commit.splitlines()
    if Path(top).resolve() != root:  # an installed copy that happens to lie inside somebody's checkout
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *OUTPUTS)
    return {"commit": sha, "dirty": bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, errors="surrogateescape", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
