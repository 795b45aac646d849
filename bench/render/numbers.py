"""How a number is written for people: digits, units, intervals."""

from __future__ import annotations

import math
import re

from bench.analysis.cells import ENERGY, MEMORY, TIME
from bench.analysis.estimate import Estimate

NONE = "\u2013"
MINUS = "\u2212"
_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTE_UNITS = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_ENERGY_UNITS = ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"))
_TIMES = (TIME, "train_wall_s", "train_step_s", "embed_user_s", "learn_s", "rebuild_s")
STATE = "state_bytes"
SI_UNITS = {MEMORY: "B", STATE: "B", ENERGY: "J", **dict.fromkeys(_TIMES, "s")}
_UNITS = {MEMORY: _BYTE_UNITS, STATE: _BYTE_UNITS, ENERGY: _ENERGY_UNITS, **dict.fromkeys(_TIMES, _TIME_UNITS)}


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """The text without the characters that XML and HTML cannot hold."""
    return _CONTROL.sub("\ufffd", text)


def short(text: str, most: int = 40) -> str:
    """One line of at most ``most`` characters, for labels in a drawing."""
    text = " ".join(printable(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def significant(value: float, digits: int = 3) -> str:
    """Plain decimal notation with thousands separators, never an exponent."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, decimals):,.{decimals}f}".replace("-", MINUS)


def quantity(value: float, metric: str) -> str:
    """A metric's value in the unit that suits its size: ``12.3 ms``, ``1.50 GiB``."""
    scale, unit = unit_of(value, metric)
    return f"{significant(value / scale)} {unit}".rstrip()


def tick(value: float, metric: str) -> str:
    """A round value on an axis: ``10 ms``, ``1 GiB``."""
    scale, unit = unit_of(value * (1 + 1e-9), metric)
    return f"{value / scale:,.10g} {unit}".rstrip()


def interval(estimate: Estimate, metric: str) -> str:
    """Both ends in the unit of the value: ``12.1 to 12.6 ms``."""
    if math.isnan(estimate.low):
        return NONE
    scale, unit = unit_of(estimate.value, metric)
    return f"{significant(estimate.low / scale)} to {significant(estimate.high / scale)} {unit}".rstrip()


def unit_of(value: float, metric: str) -> tuple[float, str]:
    """Scale and name of the unit that suits a value."""
    units = _UNITS.get(metric, ((1.0, ""),))
    return next((unit for unit in units if abs(value) >= unit[0]), units[-1])


def duration(seconds: float) -> str:
    """``40 seconds``, ``12 minutes``, ``3.5 hours``"""
    if seconds < 90:
        return count(round(seconds), "second")
    return count(round(seconds / 60), "minute") if seconds < 5400 else count(round(seconds / 3600, 1), "hour")


def count(n: float, noun: str) -> str:
    """``1 core``, ``2 cores``, ``0.3 cores``"""
    return f"{n:,.3g} {noun}{'s' * (n != 1)}"


def plain(estimate: Estimate, digits: int = 3) -> str:
    """``1.02 (0.98 to 1.06)``"""
    if math.isnan(estimate.low):
        return significant(estimate.value, digits)
    return (
        f"{significant(estimate.value, digits)} "
        f"({significant(estimate.low, digits)} to {significant(estimate.high, digits)})"
    )


def length(n: float) -> str:
    """A sequence length; an interpolated one is rounded to three digits."""
    return f"{n:,}" if isinstance(n, int) else significant(n)


def percent(share: float) -> str:
    """``12%``, ``0.3%``"""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%"


def times(ratio: float) -> str:
    """``3.4x``, ``1.03x``"""
    return f"{significant(ratio, 2 if 1.1 <= ratio < 100 else 3)}x"
