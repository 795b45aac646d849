"""How cost grows with sequence length: time and memory of every cell of a sweep.

    python -m bench.sweep --lengths 100,1000,10000

Writes ``results/NAME/run.json`` and ``records.jsonl``, prints what they say, and writes ``reports/NAME.html``. Presets
of any task run here.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import cli
from bench.command import ERRORS, plan_command

sweep = plan_command("sweep", __doc__, preset="default", stem="local")
main = partial(cli.run, sweep, errors=ERRORS)

if __name__ == "__main__":
    sys.exit(main())
