"""All commands: what each is for, and an example."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import click

from bench import cli

EXAMPLE = "python -m bench."


def commands() -> list[tuple[str, str]]:
    """The first line and the first example in the docstring of every command, read without importing it."""
    found = []
    for path in sorted(Path(__file__).parent.glob("*.py")):
        lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or "").splitlines()
        examples = [line.strip() for line in lines if line.strip().startswith(EXAMPLE)]
        if examples:
            found.append((lines[0], examples[0]))
    return found


@click.command("__main__", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1)
def show(arguments: tuple[str, ...]) -> None:
    if arguments == ("--version",):
        cli.out.print(f"bench of ftmamba {version()}", markup=False)
        return
    if arguments not in ((), ("--help",), ("-h",)):
        raise click.UsageError(
            f"unknown argument {arguments[0]!r}; commands are {', '.join(names())}, as in: {commands()[0][1]}"
        )
    for about, example in commands():
        cli.out.print(f"{about}\n    {example}\n", markup=False, soft_wrap=True)
    cli.out.print(
        "Every command has --help; installed, `bench sweep` is the same as `python -m bench.sweep`.", markup=False
    )


def names() -> list[str]:
    """Of all commands."""
    return [example.split()[2].removeprefix("bench.") for _, example in commands()]


def version() -> str:
    """Of the installed project, or of the checkout."""
    try:
        return metadata.version("ftmamba")
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command by its name: ``bench sweep``, ``python -m bench sweep``."""
    given = sys.argv[1:] if argv is None else [*argv]
    if not given or given[0] not in names():
        return cli.run(show, argv)
    command = importlib.import_module(f"bench.{given[0]}").main
    if argv is not None:
        return int(command(given[1:]))
    del sys.argv[1]  # what a run keeps as its command line is that of python -m bench.NAME
    return int(command())


if __name__ == "__main__":
    sys.exit(main())
