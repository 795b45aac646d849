"""What users of a live system wait for, at which rate: queue, update, refresh and search, in an open loop.

    python -m bench.stream --mixers mamba --policies state --rates auto,200 --resident-users 1000

Writes ``results/NAME/run.json`` and ``records.jsonl``, prints what they say, and writes ``reports/NAME.html``.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import cli
from bench.command import ERRORS, plan_command

stream = plan_command("stream", __doc__, preset="stream", stem="stream", also=("stream_step",))
main = partial(cli.run, stream, errors=ERRORS)

if __name__ == "__main__":
    sys.exit(main())
