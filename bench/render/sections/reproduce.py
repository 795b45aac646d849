"""The commands that made the runs and this page."""

from __future__ import annotations

import shlex
from typing import Any

from bench.render.blocks import Block, Code, Prose, Section
from bench.render.findings import Findings

ORDER = 140


def build(findings: Findings) -> Section | None:
    blocks: list[Block] = []
    for run in findings.runs:
        command = command_of(run.meta)
        if command:
            blocks += [Prose(f"{run.name}{_code(run.meta)}:"), Code(command)]
    names = " ".join(shlex.quote(f"results/{run.name}") for run in findings.runs)
    blocks += [Prose("This page, from the records:"), Code(f"python -m bench.report {names}")]
    return Section("reproduce", "Run it yourself", blocks)


def command_of(meta: dict[str, Any]) -> str:
    """The command line that made a run, as one would type it."""
    argv = meta.get("argv")
    if not isinstance(argv, list) or not argv:
        return ""
    words = [str(word) for word in argv]
    return shlex.join(words if words[0].startswith("python") else ["python", "-m", *words])


def _code(meta: dict[str, Any]) -> str:
    git = meta.get("git")
    if not isinstance(git, dict) or not git.get("commit"):
        return ""
    changed = ", with uncommitted changes" if git.get("dirty") else ""
    return f", at commit {str(git['commit'])[:12]}{changed}"
