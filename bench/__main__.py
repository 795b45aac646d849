"""All commands: what each is for, and an example."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

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


def main() -> int:
    if sys.argv[1:] not in ([], ["--help"], ["-h"]):
        cli.complain(f"unknown argument {sys.argv[1]!r}; each command is a module, as in: {commands()[0][1]}")
        return cli.EXIT_BAD_INPUT
    for about, example in commands():
        cli.out.print(f"{about}\n    {example}\n", markup=False, soft_wrap=True)
    cli.out.print("Every command has --help.", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
