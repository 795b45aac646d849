"""All commands: what each is for, and an example."""

from __future__ import annotations

import ast
import sys
from functools import partial
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
    if arguments not in ((), ("--help",), ("-h",)):
        raise click.UsageError(
            f"unknown argument {arguments[0]!r}; each command is a module, as in: {commands()[0][1]}"
        )
    for about, example in commands():
        cli.out.print(f"{about}\n    {example}\n", markup=False, soft_wrap=True)
    cli.out.print("Every command has --help.", markup=False)


main = partial(cli.run, show)

if __name__ == "__main__":
    sys.exit(main())
