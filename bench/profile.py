"""Where the time and the memory of one cell go: by region of the step, by op, against the machine's roof.

    python -m bench.profile --mixer mamba --length 1000

Writes ``results/NAME/`` with a trace for Perfetto, prints one table a cell, and writes ``reports/NAME.html``. Steps run
eagerly: compiled ones have no regions left.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import cli
from bench.command import ERRORS, plan_command

profile = plan_command(
    "profile", __doc__, preset="profile", stem="local-profile",
    flags={"profiled": ("--tasks", "--task")},
)  # fmt: skip
main = partial(cli.run, profile, errors=ERRORS)

if __name__ == "__main__":
    sys.exit(main())
