"""Text from outside, made fit for one line of a terminal, a file or a page."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line, every character that does not print, or is no character, replaced."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
