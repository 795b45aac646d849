"""How well towers rank: trains two-tower models on a data set and ranks its whole catalogue for every test user.

    python -m bench.quality --dataset movielens-100k --mixers mamba,attention --seeds 0,1,2

Writes ``results/NAME/run.json``, ``records.jsonl`` and ``per_user/``, prints what they say, and writes
``reports/NAME.html``.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import cli
from bench.command import ERRORS, plan_command

quality = plan_command("quality", __doc__, preset="quality", stem="quality", also=("rank_history",))
main = partial(cli.run, quality, errors=ERRORS)

if __name__ == "__main__":
    sys.exit(main())
