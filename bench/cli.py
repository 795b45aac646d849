"""What all commands share: values and paths, tables, text that always arrives, reports, and one way of ending."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click
from rich.console import Console
from rich.table import Table

from bench.plan.setting import PlanError, Setting, shown
from bench.records.record import Record
from bench.records.store import Run, RunError, load_run, run_name
from bench.records.text import printable
from bench.run import places

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
ERROR_LENGTH = 600
REPORTS = Path("reports")

PIPED_WIDTH = 160  # a file has no width; tables should not be folded for one
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a process to end; not every system has all
PLAIN = {"µ": "u", "\N{MINUS SIGN}": "-", "≈": "~", "…": "...", "∞": "inf", "²": "^2"}  # where an encoding lacks them

out = Console(highlight=False, width=None if sys.stdout and sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False)


class Value(click.ParamType[Any]):
    """A value of a setting, or several with commas between them."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.name = {int: "1,2,3", float: "x,y,z"}.get(setting.kind, "a,b,c") if setting.many else setting.kind.__name__

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")] if self._setting.many else [value]
        if self._setting.many and parts == [""]:
            self.fail("is an empty list; give at least one value", param, ctx)
        if self._setting.many and "" in parts:
            self.fail(f"{ascii(value)[:80]} has an empty place between its commas", param, ctx)
        try:
            read = [self._setting.read(part) for part in parts]
            return self._setting.check(read if self._setting.many else read[0])
        except PlanError as error:
            self.fail(str(error), param, ctx)


class On(click.ParamType[str]):
    """A place, perhaps with where it is behind a colon."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name, colon, where = str(value).partition(":")
        if name not in places.NAMES or (colon and (name == places.LOCAL or not where)):
            self.fail(f"unknown place {shown(value)}; choose from {', '.join(places.NAMES)}", param, ctx)
        return str(value)


class PathType(click.Path):
    """A path. An empty one, such as an unset variable gives, would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; give a path", param, ctx)
        return super().convert(value, param, ctx)


def run(command: click.Command, argv: Sequence[str] | None = None, *, errors: tuple[type[Exception], ...] = ()) -> int:
    """Run a command and return its exit code.

    Args:
        command: what it returns is the exit code, None meaning 0.
        argv: arguments without the program's name; None where this process is there for the command alone: it takes
            the program's, and the process' streams and signals are the command's to the end.
        errors: exceptions whose message is written for people; printed as one line, exit code 2.
    """
    errors = (*errors, OSError)  # of a place that cannot be read or written, wherever nobody has said more about it
    if argv is not None:
        with _interruptible(to_the_end=False):
            return _answer(command, argv, errors)
    stdout, sys.stderr = _Stream.over(sys.stdout), _Stream.over(sys.stderr)
    sys.stdout = stdout
    with _interruptible(to_the_end=True):
        code = _answer(command, sys.argv[1:], errors)
        stdout.flush()
        if stdout.failure and not isinstance(stdout.failure, BrokenPipeError):  # `head` has seen enough; a disk is full
            complain(f"standard output cannot be written: {stdout.failure.strerror}")
            code = code or EXIT_BAD_INPUT
    return code


def _answer(command: click.Command, argv: Sequence[str], errors: tuple[type[Exception], ...]) -> int:
    try:
        code = command.main(
            args=list(argv), prog_name=f"python -m bench.{command.name}", standalone_mode=False,
            max_content_width=out.width,
        )  # fmt: skip
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


def print_table(rows: Iterable[Iterable[str]], columns: Sequence[str] = (), *, n_numbers: int = 0) -> None:
    """Print rows of marked-up text; the last ``n_numbers`` columns, or without names none, are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(columns))
    for i, column in enumerate(columns):
        number = i >= len(columns) - n_numbers
        table.add_column(column, overflow="ellipsis" if number else "fold", justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def conclude(folder: Path, show: Callable[[Run], None], *, as_json: bool) -> int:
    """Write the report of a run, then print what it holds: nothing that becomes of the text can cost the report.

    Returns:
        The exit code.

    Raises:
        RunError: the report cannot be written; the records are safe.
    """
    run = load_run(folder)
    report = publish([run], folder)
    if as_json:
        print(json.dumps([record.to_dict() for record in run.records], indent=1))
    else:
        show(run)
        for line in (f"records: {printable(str(folder))}", f"report:  {printable(str(report))}"):
            out.print(line, markup=False, soft_wrap=True)
    return exit_code(run.records)


def exit_code(records: Sequence[Record]) -> int:
    """1 where a cell ended in an error, or none gave a number; else 0."""
    statuses = {record.status for record in records}
    return EXIT_FAILED if "error" in statuses or (statuses and "ok" not in statuses) else 0


def publish(runs: Sequence[Run], folder: Path) -> Path:
    """Write one report of ``runs``: into ``reports/`` for a run in ``results/`` or here, else into ``folder``.

    Where ``reports/`` cannot be written to, it goes into ``folder`` too.

    Raises:
        RunError: it can be written into neither.
    """
    from bench.render.page import write_report

    path, own, failed = report_path(run_name(folder)), folder / "report.html", ""
    if folder.resolve().parent in (Path.cwd(), Path("results").resolve()):
        try:
            return write_report(runs, path)
        except OSError as error:
            failed = f"cannot write the report {path}: {error.strerror}"
    try:
        page = write_report(runs, own)
    except OSError as error:
        failed = failed or f"cannot write the report {own}: {error.strerror}"
        raise RunError(f"{failed}; the records are safe in {folder}") from None
    if failed:
        complain(f"{failed}; it is {own} instead", kind="warning")
    return page


def report_path(name: str) -> Path:
    """Where the report of that name goes, in characters that the file system takes."""
    encoding = sys.getfilesystemencoding()
    return REPORTS / f"{name}.html".encode(encoding, "plain").decode(encoding)


def complain(message: str, *, kind: str = "error") -> None:
    """One line on standard error, whatever the message holds."""
    line = printable(message)
    if len(line) > ERROR_LENGTH:
        line = f"{line[:ERROR_LENGTH]}..."
    print(f"{kind}: {line}", file=sys.stderr, flush=True)


class _Stream(io.TextIOWrapper):
    """Standard output or error: every character has a form, and what cannot be written is dropped, not raised.

    A run goes on when a terminal is closed or a pipe's reader leaves.

    Attributes:
        failure: the first that there was.
    """

    failure: OSError | None = None

    @classmethod
    def over(cls, stream: TextIO | None) -> _Stream:
        """In the place of a stream of the process; None where it was started without."""
        if not isinstance(stream, io.TextIOWrapper):
            return cls(open(os.devnull, "wb"), errors="plain")
        manner = {name: getattr(stream, name) for name in ("encoding", "line_buffering", "write_through")}
        return cls(stream.detach(), errors="plain", **manner)

    def write(self, text: str) -> int:
        try:
            super().write(text)
        except OSError as error:
            self.failure = self.failure or error
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = self.failure or error


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(char, "?") for char in error.object[error.start : error.end]), error.end


codecs.register_error("plain", _plain)


@contextlib.contextmanager
def _interruptible(*, to_the_end: bool) -> Iterator[None]:
    """The first signal that asks for an end is a KeyboardInterrupt; none disturbs what is done about it.

    Args:
        to_the_end: whether signals stay without effect afterwards, as the process has only to exit.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    numbers = [number for name in ENDING if (number := getattr(signal, name, None))]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup has SIGHUP ignored
    previous = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        asked = True
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if to_the_end else handler)
