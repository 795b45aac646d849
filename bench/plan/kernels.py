"""What `bench.gpu_check` runs: single operators on the GPU, as cells of their own kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

from bench.plan.cell import fingerprint

SCAN, CONV, ATTENTION, BLOCK, ROOF = "selective_scan", "causal_conv", "attention", "mamba_block", "roof"
PARTS = ("correctness", "kernels", "blocks")
DTYPES = ("bfloat16", "float16", "float32")
# Peers that a machine lacks become skipped cells with the reason.
BACKENDS = {
    SCAN: ("triton", "mamba_ssm"),
    CONV: ("triton", "mamba_ssm"),
    ATTENTION: ("sdpa_flash", "sdpa_cudnn", "sdpa_efficient"),
    BLOCK: ("mamba:triton", "mamba:mamba_ssm", "mamba_ssm:fused"),
    ROOF: ("this machine",),
}
LENGTHS = (30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
BATCH_SIZES = (1, 32, 256)
MOST_TOKENS = 3_200_000  # a step; beyond, nothing new is learned and minutes are lost
HEAD = 32  # channels a head


@dataclass(frozen=True, kw_only=True)
class KernelCell:
    """One operator at one size.

    Attributes:
        task: ``correctness`` (outputs and gradients against the float64 reference) or ``time``.
        op: the operator, or ``mamba_block`` for the whole layer, or ``roof`` for the machine's own rates.
        backend: exact name; for blocks ``mixer:backend``.
        direction: ``forward``, or ``train`` for forward and backward.
        readout: of the scan.
        n_tokens: sequence length L.
        batch_size: rows.
        width: channels of the operator: d_inner of scan and convolution, d_model of attention and block.
        d_state: states a channel.
        d_conv: taps of the convolution.
        initial_state: whether the scan is given one.
        dtype: of the inputs.
        execution: ``eager`` or ``graph``.
        device: ``cuda``; ``cpu`` in a rehearsal.
        seed: of the inputs.
    """

    task: str
    op: str
    backend: str
    direction: str = "forward"
    readout: str = "all"
    n_tokens: int = 1
    batch_size: int = 1
    width: int = 1
    d_state: int = 16
    d_conv: int = 4
    initial_state: bool = False
    dtype: str = "float32"
    execution: str = "eager"
    device: str = "cuda"
    seed: int = 0

    @property
    def id(self) -> str:
        label = f"{self.task}-{self.op}-{self.backend}-{self.direction}-L{self.n_tokens}-B{self.batch_size}"
        return f"{label}-{fingerprint(asdict(self))}".replace(" ", "_").replace(":", "_")


def cells(part: str, *, rehearse: bool = False) -> list[KernelCell]:
    """All cells of a part, the dearest last. A rehearsal has few and tiny ones, on the CPU."""
    made = {"correctness": _correctness, "kernels": _kernels, "blocks": _blocks}[part](rehearse)
    if rehearse:
        return [replace(cell, device="cpu", execution="eager") for cell in made]
    return sorted(made, key=lambda cell: (cell.op != ROOF, cell.batch_size * cell.n_tokens * cell.width))


def _correctness(rehearse: bool) -> list[KernelCell]:
    lengths = (5,) if rehearse else (1, 33, 257, 4000)
    sizes = ((1, 8),) if rehearse else ((2, 40), (1, 128), (3, 300))
    states = (4,) if rehearse else (16, 4, 32)
    found = []
    for dtype, length, (batch, width), n_states, readout in product(DTYPES, lengths, sizes, states, ("all", "last")):
        if (width > 128 or n_states != 16) and length > 257:
            continue
        found.append(
            KernelCell(
                task="correctness",
                op=SCAN,
                backend="triton",
                direction="train",
                readout=readout,
                n_tokens=length,
                batch_size=batch,
                width=width,
                d_state=n_states,
                initial_state=width == 40,
                dtype=dtype,
            )
        )
    for dtype, length, (batch, width), taps in product(DTYPES, lengths, sizes, (4, 16)):
        found.append(
            KernelCell(
                task="correctness",
                op=CONV,
                backend="triton",
                direction="train",
                n_tokens=length,
                batch_size=batch,
                width=width,
                d_conv=taps,
                dtype=dtype,
            )
        )
    # The same through a CUDA graph, which must not change a bit.
    graphed = [replace(cell, execution="graph") for cell in found if cell.n_tokens == 257 and cell.width == 128]
    return [*found, *graphed]


def _kernels(rehearse: bool) -> list[KernelCell]:
    dtypes = ("float32",) if rehearse else ("bfloat16", "float32")
    found = [KernelCell(task="time", op=ROOF, backend=BACKENDS[ROOF][0], dtype=dtype) for dtype in dtypes]
    for op, dtype, direction in product((SCAN, CONV, ATTENTION), dtypes, ("forward", "train")):
        backends = ("triton", "reference") if rehearse and op != ATTENTION else BACKENDS[op]
        backends = ("sdpa_math", "reference") if rehearse and op == ATTENTION else backends
        if op == ATTENTION and dtype == "float32" and not rehearse:
            continue  # these kernels take half precision alone
        for length, batch, width in _shapes(rehearse, op):
            for backend in backends:
                shape = KernelCell(
                    task="time",
                    op=op,
                    backend=backend,
                    direction=direction,
                    n_tokens=length,
                    batch_size=batch,
                    width=width,
                    dtype=dtype,
                    execution="graph",
                )
                found.append(shape)
                if op == SCAN and backend == "triton":
                    found.append(replace(shape, readout="last"))
    return found


def _shapes(rehearse: bool, op: str) -> Iterator[tuple[int, int, int]]:
    if rehearse:
        yield 5, 1, HEAD
        return
    for length, batch, width in product(LENGTHS, BATCH_SIZES, (128, 256)):
        if length * batch > MOST_TOKENS:
            continue
        if op == ATTENTION and (length > 30_000 or width > 128):
            continue
        yield length, batch, width


def _blocks(rehearse: bool) -> list[KernelCell]:
    dtypes = ("float32",) if rehearse else ("bfloat16", "float32")
    executions = ("eager",) if rehearse else ("eager", "graph")
    backends = ("mamba:reference",) if rehearse else BACKENDS[BLOCK]
    shapes = [(length, batch, width) for length, batch, width in _shapes(rehearse, BLOCK) if width <= 128]
    return [
        KernelCell(
            task="time",
            op=BLOCK,
            backend=backend,
            direction=direction,
            n_tokens=length,
            batch_size=batch,
            width=width // 2,
            dtype=dtype,
            execution=execution,
        )
        for dtype, direction, execution in product(dtypes, ("forward", "train"), executions)
        for (length, batch, width), backend in product(shapes, backends)
    ]
