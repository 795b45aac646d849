"""Where compiled kernels are kept if neither this package nor the home of the user can be written (containers)."""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from pathlib import Path


@functools.cache
def fallback() -> str | None:
    """A folder of this user's own among temporary files; None where none can be made.

    What lies in it is run as code: a folder that others can write, or made, is not used.
    """
    uid = getattr(os, "getuid", int)()
    try:
        folder = Path(tempfile.gettempdir()) / f"ftmamba-{uid}"
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        ours = stat.S_ISDIR(about.st_mode) and about.st_uid == uid and (os.name == "nt" or not about.st_mode & 0o077)
        return str(folder) if ours else tempfile.mkdtemp(prefix="ftmamba-")
    except OSError:
        return None


def place_triton() -> None:
    """Let Triton keep its code in the fallback where its own place cannot be written; it reads this at each launch."""
    own = os.environ.get("TRITON_CACHE_DIR") or Path(os.environ.get("TRITON_HOME") or "~", ".triton", "cache")
    try:
        Path(own).expanduser().mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=Path(own).expanduser()).close()
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        if folder := fallback():
            os.environ["TRITON_CACHE_DIR"] = str(Path(folder, "triton"))
