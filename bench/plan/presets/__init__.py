"""Plans as data: one TOML file a preset, its keys the settings of a ``Plan`` and a line ``about``.

A preset names only what differs from the one that it ``extends``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from bench.plan.setting import PlanError

FOLDER = Path(__file__).parent
MOST_BYTES = 2**20  # of a file; beyond, it is no preset, and would take minutes to read


def names() -> list[str]:
    """All presets that ship with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str, base: str = "default", *, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Settings of a preset, or of a TOML file of the user's.

    Args:
        name: one of ``names()``, or a path that ends in ``.toml``.
        base: the preset that one without ``extends`` extends.
        seen: those that extend it already.

    Raises:
        PlanError: no such preset or file, or not valid TOML.
    """
    if name in names():
        path = FOLDER / f"{name}.toml"
    elif name.endswith(".toml"):
        path = Path(name)
    else:
        raise PlanError(
            f"unknown preset {ascii(name)[:80]}; choose from {', '.join(names())}, or give the path of a .toml file"
        )
    settings = _read(path)
    settings.pop("about", None)
    extends = settings.pop("extends", base)
    if not isinstance(extends, str):
        raise PlanError(f"preset {ascii(str(path))[:200]}: extends takes the name of a preset")
    if extends in seen:
        raise PlanError(f"preset {ascii(str(path))[:200]} extends itself, by way of {', '.join(seen)}")
    return settings if extends in (name, "") else {**load(extends, base, seen=(*seen, name)), **settings}


def _read(path: Path) -> dict[str, Any]:
    shown = ascii(str(path))[:200]
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise PlanError(f"preset {shown} has more than {MOST_BYTES:,} bytes, which no preset has")
        return tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise PlanError(f"cannot read preset {shown}: {error.strerror}") from None
    except PlanError:
        raise
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise PlanError(f"preset {shown} is not valid TOML: {reason[:200]}") from None
