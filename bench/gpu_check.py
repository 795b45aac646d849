"""Our GPU kernels on this machine: right, and how fast beside their peers and the machine's own roof.

    python -m bench.gpu_check --parts correctness,kernels,blocks --out results/NAME

Each part ends after --seconds, with what is left to do; run it again with --resume. Without a GPU, --rehearse runs the
same code on tiny sizes under Triton's interpreter, to show that the command works; its times mean nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.table import Table

from bench import cli
from bench.plan.kernels import PARTS, ROOF, KernelCell, cells
from bench.records.record import Record
from bench.records.store import RunError, load_run, run_name
from bench.records.writer import RunWriter
from bench.run import environment, provenance

BUDGET_S = 0.1  # of timed iterations a cell
REHEARSAL_BUDGET_S = 0.01


@click.command("gpu_check", help=(__doc__ or "").splitlines()[0])
@click.option("--parts", type=cli.CommaList(), default=",".join(PARTS), show_default=True, help="Which to run.")
@click.option("--seconds", type=float, default=540.0, show_default=True, help="End each part after this long.")
@click.option("--out", type=cli.PathType(), show_default="results/gpu-TIME", help="Results folder.")
@click.option("--resume", is_flag=True, help="Run only what is missing in --out.")
@click.option("--rehearse", is_flag=True, help="Tiny sizes on the CPU, interpreted.")
@click.option("--list", "listing", is_flag=True, help="Show the cells and run nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Records as JSON on standard output.")
def gpu_check(
    parts: list[str], seconds: float, out: Path | None, resume: bool, rehearse: bool, listing: bool, quiet: bool,
    as_json: bool,
) -> int:  # fmt: skip
    for part in parts:
        if part not in PARTS:
            raise click.UsageError(f"there is no part {ascii(part)[:80]}; choose from {', '.join(PARTS)}")
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder to continue")
    if listing:
        for part in parts:
            for cell in cells(part, rehearse=rehearse):
                print(part, cell.id)
        return 0
    if rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
    machine = environment.probe()
    if not rehearse:
        environment.resolve_device("cuda", machine)
    folder = out or Path("results") / datetime.now(UTC).strftime("gpu-%Y%m%d-%H%M%S")
    with open_run(folder, resume, rehearse, machine) as writer:
        complete = [run_part(part, seconds, rehearse, writer, quiet) for part in parts]
        if all(complete):
            writer.update_meta(ended_at=provenance.utc_now())
    return conclude(folder, as_json=as_json)


def open_run(folder: Path, resume: bool, rehearse: bool, machine: dict[str, Any]) -> RunWriter:
    if not resume:
        spec = {"rehearse": rehearse, "budget_s": REHEARSAL_BUDGET_S if rehearse else BUDGET_S}
        meta = provenance.run_meta("gpu_check", run_name(folder), sys.orig_argv[1:], spec, machine)
        return RunWriter.create(folder, meta)
    writer = RunWriter.resume(folder)
    gpus = [gpu["name"] for gpu in machine["gpus"]]
    try:
        begun_on = [gpu["name"] for gpu in writer.meta["machine"]["gpus"]]
    except (KeyError, TypeError):
        begun_on = None
    if writer.meta.get("kind") != "gpu_check" or begun_on != gpus:
        writer.close()
        raise RunError(f"{folder} does not hold a gpu_check of this machine's GPUs ({', '.join(gpus) or 'none'})")
    return writer


def run_part(part: str, seconds: float, rehearse: bool, writer: RunWriter, quiet: bool) -> bool:
    """Run what is missing of a part; whether it is complete."""
    from bench.run import kernels

    kernels.load_first()
    end = time.monotonic() + seconds
    done = {record.cell_id: record for record in writer.records}
    todo = [cell for cell in cells(part, rehearse=rehearse) if cell.id not in done]
    roofs = {record.cell["dtype"]: record.values for record in done.values() if record.cell["op"] == ROOF}
    for left, cell in zip(range(len(todo), 0, -1), todo, strict=True):
        if time.monotonic() > end:
            cli.err.print(f"{part}: time is up, {left} cells left; continue with --resume --out {writer.folder}")
            return False
        budget_s = REHEARSAL_BUDGET_S if rehearse else BUDGET_S
        record = kernels.run(cell, writer.name, budget_s, roofs.get(cell.dtype, {}))
        writer.append(record)
        if cell.op == ROOF:
            roofs[cell.dtype] = record.values
        if not quiet:
            cli.err.print(f"{left:5} {line(record)}", markup=False, soft_wrap=True)
        if record.env.get("poisoned"):
            raise RunError(f"the GPU stopped working at {cell.id}; continue with --resume --out {writer.folder}")
    return True


def line(record: Record) -> str:
    """One record in a line."""
    if record.status != "ok":
        return f"{record.cell_id}: {record.status}, {record.reason}"
    if "wall_s" in record.samples:
        share = record.values.get("roof_share")
        told = f"{median(record.samples['wall_s']) * 1e6:.1f} us"
        return f"{record.cell_id}: {told}" + (f", {share:.0%} of the roof" if share else "")
    if record.cell["op"] == ROOF:
        return f"{record.cell_id}: " + ", ".join(f"{name} {rate:.3g}" for name, rate in record.values.items() if rate)
    worst = max(
        (error or 0.0) / (record.values[name.replace("error:", "allowed:")] or 1.0)
        for name, error in record.values.items()
        if name.startswith("error:")
    )
    return f"{record.cell_id}: largest error {worst:.2f} of what is allowed"


def conclude(folder: Path, *, as_json: bool) -> int:
    """Print what was found; exit code 1 if any kernel is wrong or broken."""
    records = load_run(folder).records
    if as_json:
        print(json.dumps([record.to_dict() for record in records], indent=1))
    else:
        table = ratios(records)
        if table.row_count:
            cli.out.print(table)
        checked = [record for record in records if record.cell["task"] == "correctness"]
        right = sum(record.status == "ok" for record in checked)
        cli.out.print(f"{right} of {len(checked)} correctness cells right; records: {folder}", markup=False)
    return cli.exit_code(records)


def ratios(records: Sequence[Record]) -> Table:
    """Ours beside each peer at the same size: medians, share of the roof, and how many times faster."""
    table = Table(title="medians; ratio = peer / ours")
    for name in ("op", "size", "ours", "of roof", "expected", "peer", "its time", "ratio"):
        table.add_column(name, justify="left" if name in ("op", "size", "peer") else "right")
    timed = {cell_of(record): record for record in records if record.status == "ok" and "wall_s" in record.samples}
    for cell, record in timed.items():
        if "triton" not in cell.backend:
            continue
        own = median(record.samples["wall_s"])
        share, expected = record.values.get("roof_share"), record.values.get("expected_s")
        size = f"L{cell.n_tokens} B{cell.batch_size} D{cell.width} {cell.dtype} {cell.direction} {cell.execution}"
        if cell.readout == "last":
            size += " last"
        shown = [
            cell.op,
            size,
            f"{own * 1e6:.1f} us",
            f"{share:.0%}" if share else "",
            f"{expected * 1e6:.1f} us" if expected else "",
        ]
        peers = [other for other in timed if same_size(other, cell) and other.backend != cell.backend]
        for peer in peers:
            seconds = median(timed[peer].samples["wall_s"])
            table.add_row(*shown, peer.backend, f"{seconds * 1e6:.1f} us", f"{seconds / own:.2f}")
            shown = [""] * len(shown)
        if not peers:
            table.add_row(*shown, "", "", "")
    return table


def cell_of(record: Record) -> KernelCell:
    return KernelCell(**record.cell)


def same_size(a: KernelCell, b: KernelCell) -> bool:
    return {**vars(a), "backend": ""} == {**vars(b), "backend": ""}


def main(argv: Sequence[str] | None = None) -> int:
    errors = (RunError, environment.MachineError)
    return cli.run(gpu_check, argv, errors=errors)


if __name__ == "__main__":
    sys.exit(main())
