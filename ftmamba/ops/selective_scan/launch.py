"""How the GPU scan is cut into programs, and the time that its launches can at best take. Free of torch and triton.

The scan is cut along channels (a program owns a block of them) and, when rows and channels alone leave the chip
half empty, along tokens. Cutting tokens costs a second pass over the inputs, so the cut is chosen by the model below:
a kernel's time is that of its scarcest resource (issue slots, special functions, bytes) or, when few programs run,
the walk of one program over its tokens.

Instruction counts are read from the compiled kernels (sm_90); a test holds them against the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

LANES = 32
# Tokens between two checkpoints, which the forward pass leaves and the backward pass starts from.
SEGMENT = 32
MAX_STATES = 256
MAX_STATES_PER_THREAD = 16


@dataclass(frozen=True)
class Chip:
    """Rates of a GPU; the defaults are the H100's (vendor's figures, at its boost clock)."""

    multiprocessors: int = 132
    clock_hz: float = 1.755e9
    bytes_per_s: float = 3.35e12

    # The same on every NVIDIA GPU from sm_80 on, per multiprocessor and clock.
    issue_slots = 4
    special_functions = 16
    registers = 65536
    max_warps = 64


@dataclass(frozen=True)
class Tile:
    """A program's shape.

    Attributes:
        block_d: channels a program.
        warps: warps a program.
        unroll: tokens loaded at once.
        registers: registers a thread is held to; 255 is the hardware's limit.
        polynomial: how many of a channel's exponentials go to the multiply-add pipe.
    """

    block_d: int
    warps: int
    unroll: int
    registers: int
    polynomial: int = 0

    @property
    def channels_per_thread(self) -> int:
        return max(self.block_d // (LANES * self.warps), 1)


@dataclass(frozen=True)
class Launch:
    """One pass (forward or backward) over (batch, n_tokens, d_inner)."""

    tile: Tile
    n_chunks: int
    chunk: int
    kernels: tuple[Bound, ...]

    @property
    def seconds(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels)


@dataclass(frozen=True)
class Bound:
    """What one kernel needs of each resource, in seconds; it takes at least the largest."""

    kernel: str
    issue_s: float
    special_s: float
    bytes_s: float
    walk_s: float
    launch_s: float

    @property
    def resource(self) -> str:
        """Name of the scarcest resource."""
        needs = {"issue": self.issue_s, "special": self.special_s, "bytes": self.bytes_s, "walk": self.walk_s}
        return max(needs, key=needs.__getitem__)

    @property
    def seconds(self) -> float:
        return max(self.issue_s, self.special_s, self.bytes_s, self.walk_s) + self.launch_s


# Instructions a token and channel at 8 and at 16 states, by channels a thread and bytes an input element.
INSTRUCTIONS: dict[tuple[str, int, int], tuple[float, float]] = {
    ("chunk_state", 1, 4): (85, 114),
    ("chunk_state", 2, 4): (74, 105),
    ("chunk_state", 1, 2): (95, 128),
    ("chunk_state", 2, 2): (81, 115),
    ("scan", 1, 4): (115, 147),
    ("scan", 2, 4): (100, 136),
    ("scan", 1, 2): (145, 176),
    ("scan", 2, 2): (117, 156),
    ("chunk_adjoint", 1, 4): (89, 126),
    ("chunk_adjoint", 1, 2): (107, 144),
    ("scan_adjoint", 1, 4): (390, 679),
    ("scan_adjoint", 1, 2): (432, 732),
}
# A launch inside a CUDA graph, and how often a lone warp issues: it waits on its own results.
LAUNCH_S = 2e-6
LONE_WARP_ISSUE = 0.5


def special_functions(kernel: str, d_state: int) -> int:
    """Exponentials and reciprocals a token and channel: softplus and the gate take two each, its slope one more."""
    return {
        "chunk_state": d_state + 2,
        "scan": d_state + 4,
        "chunk_adjoint": d_state + 4,
        "scan_adjoint": 2 * d_state + 7,
    }[kernel]


def bytes_per_token(kernel: str, d_inner: int, d_state: int, element: int, save: bool) -> float:
    """Least bytes a token and row: every input and output once, float32 states and partial sums."""
    vector, states = d_inner * element, d_state * element
    checkpoint = 4 * d_inner * d_state / SEGMENT if save else 0.0
    groups = ceil(d_inner / LANES)
    return {
        "chunk_state": 2 * vector + states,
        "scan": 4 * vector + 2 * states + checkpoint,
        "chunk_adjoint": 3 * vector + states,
        "scan_adjoint": 7 * vector + 2 * states + checkpoint + 4 * groups * 2 * d_state,
    }[kernel]


def _instructions(kernel: str, tile: Tile, d_state: int, element: int) -> float:
    at_8, at_16 = INSTRUCTIONS[kernel, tile.channels_per_thread, element]
    return max(at_8 + (at_16 - at_8) * (d_state - 8) / 8, 1.0)


def _bound(
    kernel: str, tile: Tile, chunk: int, shape: tuple[int, int, int, int], element: int, save: bool, chip: Chip
) -> Bound:
    batch, n_tokens, d_inner, d_state = shape
    n_programs = ceil(d_inner / tile.block_d) * ceil(n_tokens / chunk) * batch
    resident = min(chip.registers // (tile.registers * LANES * tile.warps), chip.max_warps // tile.warps)
    # The last wave of programs takes as long as a full one.
    waves = ceil(n_programs / (resident * chip.multiprocessors))
    walk = _instructions(kernel, tile, d_state, element) * tile.channels_per_thread * min(chunk, n_tokens)
    work = batch * n_tokens * ceil(d_inner / tile.block_d) * tile.block_d
    per_clock = chip.multiprocessors * chip.clock_hz
    return Bound(
        kernel=kernel,
        issue_s=work / LANES * _instructions(kernel, tile, d_state, element) / (chip.issue_slots * per_clock),
        special_s=work * special_functions(kernel, d_state) / (chip.special_functions * per_clock),
        bytes_s=batch * n_tokens * bytes_per_token(kernel, d_inner, d_state, element, save) / chip.bytes_per_s,
        walk_s=waves * walk / (LONE_WARP_ISSUE * chip.clock_hz),
        launch_s=LAUNCH_S,
    )


def _carry_bound(n_chunks: int, shape: tuple[int, int, int, int], chip: Chip) -> Bound:
    batch, _, d_inner, d_state = shape
    moved = 4 * batch * n_chunks * d_inner * (2 * d_state + 1)
    # Eight chunks are fetched at a time, at the latency of the level 2 cache.
    walk = ceil(n_chunks / 8) * 6e-7
    return Bound("carry", 0.0, 0.0, moved / chip.bytes_per_s, walk, LAUNCH_S)


def tiles(kernel: str, d_inner: int, d_state: int) -> tuple[Tile, ...]:
    """The shapes worth trying. States beyond 16 are spread over warps, so that no thread holds more than 16."""
    if d_state > MAX_STATES_PER_THREAD:
        warps = (1 << (d_state - 1).bit_length()) // MAX_STATES_PER_THREAD
        return (Tile(LANES, warps, 1, 255) if kernel == "scan_adjoint" else Tile(LANES, warps, 4, 168),)
    warps = 1
    while warps < 4 and LANES * warps < d_inner:
        warps *= 2
    if kernel == "scan_adjoint":
        # Two tokens' states of 16 each would not fit the registers.
        return (Tile(LANES * warps, warps, 2 if d_state <= 8 else 1, 255),)
    one = Tile(LANES * warps, warps, 4, 168)
    return (one, Tile(2 * one.block_d, warps, 2, 168)) if d_inner > one.block_d else (one,)


def _candidates(n_tokens: int) -> list[int]:
    """Chunk lengths worth trying: all tokens, then halves, in whole segments."""
    chunks = [n_tokens]
    while chunks[-1] > SEGMENT:
        chunks.append(ceil(ceil(chunks[-1] / 2) / SEGMENT) * SEGMENT)
    return chunks


@lru_cache(maxsize=4096)
def forward_launch(shape: tuple[int, int, int, int], element: int, save: bool, chip: Chip) -> Launch:
    """The forward pass that the model expects to be fastest.

    Args:
        shape: batch, n_tokens, d_inner, d_state.
        element: bytes of an element of x.
        save: whether checkpoints are left for a backward pass.
        chip: the GPU.
    """
    return _best("chunk_state", "scan", shape, element, save, chip)


@lru_cache(maxsize=4096)
def backward_launch(shape: tuple[int, int, int, int], element: int, chip: Chip) -> Launch:
    """The backward pass that the model expects to be fastest; arguments as in `forward_launch`."""
    return _best("chunk_adjoint", "scan_adjoint", shape, element, True, chip)


def _best(local: str, full: str, shape: tuple[int, int, int, int], element: int, save: bool, chip: Chip) -> Launch:
    n_tokens = shape[1]
    launches = []
    for tile in tiles(full, shape[2], shape[3]):
        for chunk in _candidates(n_tokens):
            n_chunks = ceil(n_tokens / chunk)
            kernels = [_bound(full, tile, chunk, shape, element, save, chip)]
            if n_chunks > 1:
                kernels = [
                    _bound(local, tile, chunk, shape, element, False, chip),
                    _carry_bound(n_chunks, shape, chip),
                    *kernels,
                ]
            launches.append(Launch(tile, n_chunks, chunk, tuple(kernels)))
    return min(launches, key=lambda launch: launch.seconds)
