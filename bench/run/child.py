"""One child process: a request goes in, replies come out, and whatever happens in between stays in the child."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from bench.records.store import NEEDS_POSIX, RunError

TAIL_BYTES = 4096  # of the child's output, kept to explain a failure
LISTEN_S = 0.05  # between two looks for a reply
KILL_WAIT_S = 10.0  # a process that a driver holds may not die even by SIGKILL; the sweep goes on without it


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        reply: its last answer; None when it gave no complete one, or when somebody listened.
        exit_code: negative for the signal that ended it; None when it could not even be killed.
        timed_out: whether it was ended for taking too long.
        tail: the end of what it printed.
        wall_s: from start to end.
        cpu_s: processor time, its threads and children included.
        peak_rss_bytes: largest resident set.
    """

    reply: dict[str, Any] | None
    exit_code: int | None
    timed_out: bool
    tail: str
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int


def run_child(
    argv: Sequence[str],
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    on_reply: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Run ``argv`` to its end, or to ``timeout_s``.

    The request is JSON on the child's standard input. A reply is a line of JSON in the file whose descriptor number is
    the last argument: not standard output, which libraries write to as they please. The child leads a process group of
    its own, which is killed as a whole, on a timeout as on Ctrl-C.

    Args:
        argv: the command.
        request: fit for JSON.
        timeout_s: after which the child is ended; where somebody listens, after the last reply.
        on_reply: told of each reply as it comes. Looking for them costs the parent some time, beside the child's work.

    Raises:
        RunError: not a POSIX system.
        OSError: no process could be started.
    """
    if not hasattr(os, "wait4"):
        raise RunError(NEEDS_POSIX)
    started = time.monotonic()
    with tempfile.TemporaryFile() as reply_file:
        descriptor = reply_file.fileno()
        process = subprocess.Popen(
            [*argv, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        tail = _Tail(process.stdout)
        end = _End(process)
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
            timed_out = not (_listen(end, descriptor, timeout_s, on_reply) if on_reply else end.wait(timeout_s))
        finally:
            kill_group(process.pid)
            end.wait(KILL_WAIT_S)
        wall_s = time.monotonic() - started
        replies = [] if on_reply else _replies(descriptor, 0)[0]
        return Outcome(
            reply=replies[-1] if replies else None,
            exit_code=end.exit_code,
            timed_out=timed_out,
            tail=tail.text(),
            wall_s=wall_s,
            cpu_s=end.cpu_s,
            peak_rss_bytes=end.peak_rss_bytes,
        )


def kill_group(pid: int) -> None:
    """End a child and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _End:
    """Waits for a process in a thread of its own, so that the parent can sleep and still give up."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.exit_code: int | None = None
        self.cpu_s = 0.0
        self.peak_rss_bytes = 0
        self._process = process
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            _, status, usage = os.wait4(self._process.pid, 0)
        except ChildProcessError:  # whoever started us has children's ends ignored
            return
        self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.peak_rss_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def wait(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


class _Tail:
    """Reads all that a child prints and keeps the end of it, so that a flood neither blocks nor fills anything."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept = b""
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream, contextlib.suppress(OSError, ValueError):
            while block := os.read(self._stream.fileno(), 65536):
                self._kept = (self._kept + block)[-TAIL_BYTES:]

    def text(self) -> str:
        self._thread.join(1.0)  # a process that left the group may hold the pipe open for ever
        return self._kept.decode(errors="replace")


def _listen(end: _End, descriptor: int, timeout_s: float, on_reply: Callable[[dict[str, Any]], None]) -> bool:
    """Tell of replies until the child has ended; False where the next one takes longer than ``timeout_s``."""
    at, deadline = 0, time.monotonic() + timeout_s
    while True:
        ended = end.wait(LISTEN_S)
        replies, at = _replies(descriptor, at)
        for reply in replies:
            on_reply(reply)
            deadline = time.monotonic() + timeout_s
        if ended or time.monotonic() > deadline:
            return ended


def _replies(descriptor: int, at: int) -> tuple[list[dict[str, Any]], int]:
    """Complete replies from byte ``at`` on, and where the next one begins; the child's own place is not moved."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size - at, at)
    lines = content[: content.rfind(b"\n") + 1]
    return [reply for line in lines.splitlines() if (reply := _parsed(line)) is not None], at + len(lines)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def guard_child(*, memory_limit_bytes: int | None = None) -> None:
    """Called by the child first: die with the parent, leave no core file, and meet the memory limit as an exception.

    Without the limit, Linux promises memory that it does not have and later kills some process, perhaps not this one.
    """
    import resource

    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_limit_bytes is not None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))


def send_reply(reply: Mapping[str, Any]) -> None:
    """Called by the child: the reply goes to the descriptor that the last argument names.

    Raises:
        ValueError: a number that JSON has not; nothing was sent.
    """
    line = json.dumps(reply, allow_nan=False).encode() + b"\n"
    while line:
        line = line[os.write(int(sys.argv[-1]), line) :]
