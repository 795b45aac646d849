"""What the README tells people to type is understood, and what it points at is there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`(python -m bench[^`]*)`", TEXT)
TYPED = [each for kind, block in BLOCKS if kind == "console" for each in block.splitlines() if "python -m" in each]
COMMANDS = list(dict.fromkeys([*TYPED, *INLINE]))
STANDING_FOR_OTHERS = {"results/NAME/", "reports/NAME.html", "results/BEFORE", "results/AFTER"}


def understand(command: click.Command, arguments: list[str]) -> None:
    """Parse arguments as the command would, down to the command of a group, and run nothing."""
    context = command.make_context(str(command.name), list(arguments))
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        understand(found, rest)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    words = shlex.split(line, comments=True)
    start = words.index("-m")
    module, arguments = words[start + 1], words[start + 2 :]
    found = importlib.import_module(module)
    if module == "bench":  # the list of commands, or one by its name
        assert not arguments or arguments[0] in importlib.import_module("bench.__main__").names()
        return
    understand(getattr(found, module.rpartition(".")[2]), arguments)


def test_the_readme_has_commands_and_strays_are_refused() -> None:
    assert len(COMMANDS) > 20
    with pytest.raises(click.UsageError):
        test_every_command_is_understood("python -m bench.sweep --no-such-flag")
    with pytest.raises(click.UsageError):
        test_every_command_is_understood("python -m bench.datasets fetsh movielens-100k")


def test_what_it_points_at_is_there() -> None:
    named = set(re.findall(r"(?:results|reports|docs)/[\w.+/-]*[\w/]", TEXT)) - STANDING_FOR_OTHERS
    named -= {each for each in named if each.rstrip("/") == "results/gpu"}  # what `make gpu` will write
    assert len(named) > 8
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []


def test_its_way_to_pandas_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [block for kind, block in BLOCKS if kind == "python" and "to_pandas" in block]
    monkeypatch.chdir(ROOT)
    scope: dict[str, object] = {}
    exec(program, scope)
    frame = scope["frame"]
    assert len(frame) == len((ROOT / "results/cpu-sweep/records.jsonl").read_text().splitlines())  # type: ignore[arg-type]
    assert set(frame["mixer"]) == {"mamba", "attention"}  # type: ignore[index]
    assert frame["wall_s"].between(1e-5, 10).all()  # type: ignore[index]
