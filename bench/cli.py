"""What all commands share: comma lists, one-line errors with exit code 2, a clean Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import click
from rich.console import Console

from bench.records.text import printable

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
ERROR_LENGTH = 600

PIPED_WIDTH = 160  # a file has no width; tables should not be folded for one

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


class CommaList(click.ParamType[list[Any]]):
    """``a,b,c`` as a list of names."""

    name = "a,b,c"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if parts == [""]:
            self.fail("is an empty list; give at least one value", param, ctx)
        if "" in parts:
            self.fail(f"{ascii(value)[:80]} has an empty place between its commas", param, ctx)
        return [self.convert_part(part, param, ctx) for part in parts]

    def convert_part(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return part


class IntList(CommaList):
    """``1,2,3`` as a list of whole numbers."""

    name = "1,2,3"

    def convert_part(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(part)
        except ValueError:
            self.fail(f"{ascii(part)[:80]} is not a whole number", param, ctx)


def run(command: click.Command, argv: Sequence[str], *, errors: tuple[type[Exception], ...] = ()) -> int:
    """Run a command and return its exit code.

    Args:
        command: what it returns is the exit code, None meaning 0.
        argv: arguments without the program's name.
        errors: exceptions whose message is written for people; printed as one line, exit code 2.
    """
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = command.main(args=list(argv), prog_name=f"python -m bench.{command.name}", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        complain(error.format_message())
        return EXIT_BAD_INPUT
    except errors as error:
        complain(str(error))
        return EXIT_BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)


def complain(message: str) -> None:
    """One line on standard error, whatever the message holds."""
    line = printable(message)
    if len(line) > ERROR_LENGTH:
        line = f"{line[:ERROR_LENGTH]}..."
    print(f"error: {line}", file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
