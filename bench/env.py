"""This machine as the benchmark sees it, and every backend: usable here, or why not and what to install.

python -m bench.env
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import click
from rich.markup import escape

from bench import cli
from bench.records.store import RunError
from bench.run import environment


@click.command("env", help=(__doc__ or "").splitlines()[0])
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def env(as_json: bool) -> None:
    facts = environment.probe(backends=True)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    cli.print_table((name, escape(value)) for name, value in flat(facts))
    cli.out.print()
    cli.print_table(map(told, facts["backends"]), ("mixer or op", "backend", "usable", "what it is"))


def told(row: dict[str, Any]) -> tuple[str, ...]:
    """A backend as the row of a table."""
    usable = f"[green]on {', '.join(row['usable_on'])}[/]" if row["usable_on"] else f"no: {escape(row['reason'])}"
    return row["owner"], row["backend"], usable, escape(row["about"])


def flat(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Facts as rows of a table."""
    cpu, torch = facts["cpu"], facts["torch"]
    yield "system", f"{facts['os']}, Python {facts['python']}"
    cores = f"{cpu['usable_cores']} of {cpu['logical_cores']} {'core' if cpu['logical_cores'] == 1 else 'cores'} usable"
    if cpu.get("quota_cores"):
        cores += f", time of {cpu['quota_cores']:g} by quota"
    yield "processor", f"{cpu['model']} ({cpu['capability']}), {cores}"
    yield "memory", f"{facts['memory_bytes'] / 2**30:.1f} GiB"
    for gpu in facts["gpus"]:
        about = f"compute capability {gpu['capability']}, {gpu['memory_bytes'] / 2**30:.0f} GiB"
        yield "GPU", f"{gpu['name']}, {about}, driver {facts['driver']}"
    if not facts["gpus"]:
        yield "GPU", facts.get("gpu_problem") or "none that torch can use"
    yield "torch", f"{torch['version']}, CUDA {torch['cuda'] or 'not built in'}"
    yield "threads", ", ".join(f"{name} {value}" for name, value in facts["threads"].items())
    yield "compiled", facts.get("compile_cache") or "kept nowhere: every process compiles its kernels anew"
    yield "packages", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())


main = partial(cli.run, env, errors=(RunError, environment.MachineError))

if __name__ == "__main__":
    sys.exit(main())
