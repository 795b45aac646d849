"""The sections of a page, one a file, in reading order. Each builds itself from the findings, or is absent."""

from __future__ import annotations

from collections.abc import Callable

from bench.render.blocks import Section
from bench.render.findings import Findings
from bench.render.sections import (
    answer,
    cells,
    crossover,
    depth,
    environment,
    gaps,
    method,
    peers,
    profile,
    quality,
    reproduce,
    scaling,
    side_by_side,
    winners,
)

SECTIONS: tuple[Callable[[Findings], Section | None], ...] = (
    answer.build,
    peers.build,
    winners.build,
    scaling.build,
    crossover.build,
    depth.build,
    side_by_side.build,
    cells.build,
    quality.build,
    profile.build,
    gaps.build,
    environment.build,
    method.build,
    reproduce.build,
)
