"""How cost grows with sequence length: time and memory of every cell of a sweep.

    python -m bench.sweep --lengths 100,1000,10000

Writes ``results/NAME/run.json`` and ``records.jsonl``, prints what they say, and writes ``reports/NAME.html``. Presets
of any task run here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import cli
from bench.command import ERRORS, plan_command

sweep = plan_command("sweep", (__doc__ or "").splitlines()[0], preset="default", stem="local")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(sweep, argv, errors=ERRORS)


if __name__ == "__main__":
    sys.exit(main())
