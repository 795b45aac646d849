"""How a live system refreshes a user after an event: ``recompute``, ``state``, ``kv``, ``kv_window:W`` and so on."""

from __future__ import annotations

from typing import NamedTuple

from bench.plan.cell import PARAMS, Cell
from bench.plan.setting import BIGGEST, PlanError, shown
from bench.plan.tower import encoder_spec
from ftmamba.mixers import find, parse, stepping
from ftmamba.spec import EncoderSpec, MixerSpec

RECOMPUTE, WINDOWED, STATE, KV, KV_WINDOW = "recompute", "recompute_window", "state", "kv", "kv_window"
POLICIES = (RECOMPUTE, STATE, KV, f"{KV_WINDOW}:W", f"{WINDOWED}:W")
WHAT = {STATE: "keeps no state of one size", KV: "keeps no keys and values", KV_WINDOW: "takes no window"}


class Policy(NamedTuple):
    """A policy.

    Attributes:
        kind: ``recompute``, ``recompute_window``, ``state``, ``kv`` or ``kv_window``.
        window: of a window, how many events before the last one are seen; else None.
    """

    kind: str
    window: int | None

    @classmethod
    def of(cls, text: str) -> Policy:
        """Read one.

        Raises:
            PlanError: there is none of that name, or its window is no number.
        """
        kind, colon, number = text.partition(":")
        named = kind in (WINDOWED, KV_WINDOW)
        if kind not in (RECOMPUTE, WINDOWED, STATE, KV, KV_WINDOW) or named != bool(colon):
            raise PlanError(f"unknown policy {shown(text)}; choose from {', '.join(POLICIES)}")
        if named and not (number.isdecimal() and 1 <= int(number) <= BIGGEST):
            raise PlanError(f"policy {kind} takes a window of 1 to {BIGGEST:,} events, got {shown(text)}")
        return cls(kind, int(number) if named else None)

    @property
    def keeps(self) -> bool:
        """Whether a state is kept instead of the history."""
        return self.kind not in (RECOMPUTE, WINDOWED)

    def suits(self, mixer: MixerSpec, d_model: int = 64) -> bool:
        """Whether a mixer can be refreshed in this way."""
        if not self.keeps:
            return True
        sizes = [EncoderSpec(mixer=mixer, d_model=d_model, n_layers=mixer.period()).state_bytes(n) for n in (9, 99)]
        if None in sizes or (self.kind == STATE) != (sizes[0] == sizes[1]):
            return False
        return self.kind != KV_WINDOW or "window" in mixer.parameters()

    def refusal(self, cell: Cell) -> str | None:
        """One line on why a cell's mixer cannot be refreshed so, and which can; None where it can."""
        if self.suits(find(cell.mixer)(**cell.params), cell.d_model):
            return None
        able = [text for text in stepping() if self.suits(find((named := parse(text))[0])(**named[1]))]
        return f"{cell.mixer} {WHAT[self.kind]}, so that policy {self.kind} says nothing to it; mixers that do: " + (
            ", ".join(able)
        )


def tower_of(cell: Cell) -> EncoderSpec:
    """The tower of a cell that has a policy: a window of keys and values is the mixer's own.

    Raises:
        ValueError: a tower that cannot be.
    """
    policy = Policy.of(cell.policy)
    own = {"window": policy.window} if policy.kind == KV_WINDOW else {}
    return encoder_spec(cell.but(**{PARAMS: {**cell.params, **own}}))
