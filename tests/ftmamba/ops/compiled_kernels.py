"""What the compiler makes of the Triton kernels, on any machine: machine code for sm_80, sm_90 and sm_100.

Resources are read from the machine code. Results are computed by running the compiled PTX on the CPU (`ptx_machine`),
through the same launches that a GPU would get, and held against the float64 reference. `test_triton_compile.py` runs
this file; by hand: ``TRITON_INTERPRET=0 pytest tests/ftmamba/ops/compiled_kernels.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import compiled
import pytest
import torch
from test_mamba_layer import inputs as layer_inputs
from test_triton_conv import assert_as_good_as_torch as conv_as_good_as_torch
from test_triton_conv import inputs as conv_inputs
from test_triton_scan import assert_as_good_as_torch, cut, inputs

from ftmamba.ops.causal_conv import triton as conv
from ftmamba.ops.causal_conv import triton_kernels as conv_kernels
from ftmamba.ops.mamba_layer import LayerInputs
from ftmamba.ops.mamba_layer import triton as layer
from ftmamba.ops.mamba_layer import triton_kernels as layer_kernels
from ftmamba.ops.selective_scan import launch, triton_kernels
from ftmamba.ops.selective_scan import triton as scan

CAPABILITIES = (80, 90, 100)
SLOW = pytest.mark.slow
SHARED_BYTES = 99 * 1024  # what a program may have on the smallest GPU since sm_80
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Launches run compiled PTX on CPU tensors; whatever torch leaves uninitialised is NaN."""
    monkeypatch.setattr(scan, "kernels", compiled.intercepted(triton_kernels, compiled.Launch.emulate))
    monkeypatch.setattr(conv, "kernels", compiled.intercepted(conv_kernels, compiled.Launch.emulate))
    monkeypatch.setattr("test_triton_scan.DEVICE", "cpu")
    monkeypatch.setattr("test_triton_conv.DEVICE", "cpu")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


TWO_WARPS = launch.Tile(64, 2, 2, 255)
SCANS = {
    # dtype, batch, n_tokens, d_inner, d_state, last, initial, chunk, tile
    "float32, chunks": (torch.float32, 1, 67, 40, 16, False, True, 32, TWO_WARPS),
    "bfloat16, last of chunks": (torch.bfloat16, 2, 67, 33, 16, True, False, 32, TWO_WARPS),
    "float16, few states": (torch.float16, 2, 33, 40, 4, False, False, 64, TWO_WARPS),
    "states over two warps": (torch.float32, 1, 9, 40, 32, False, True, 32, launch.Tile(32, 2, 2, 255)),
}
MORE_SCANS = {
    "one token": (torch.float32, 1, 1, 5, 16, False, True, 32, TWO_WARPS),
    "one state": (torch.float32, 1, 5, 5, 1, False, True, 32, TWO_WARPS),
    "three states": (torch.bfloat16, 1, 5, 5, 3, False, True, 32, TWO_WARPS),
    "bfloat16, chunks": (torch.bfloat16, 2, 100, 130, 16, False, True, 64, TWO_WARPS),
    "float16, last": (torch.float16, 2, 40, 130, 16, True, True, 64, TWO_WARPS),
    "states over eight warps": (torch.bfloat16, 1, 5, 40, 128, False, True, 32, launch.Tile(32, 8, 2, 255)),
    "states over two warps, last": (torch.float32, 2, 40, 40, 32, True, True, 32, launch.Tile(32, 2, 2, 255)),
    "polynomial": (torch.float32, 2, 40, 40, 16, False, True, 32, launch.Tile(64, 2, 2, 255, polynomial=4)),
}


def run_scan(case: tuple, patch: pytest.MonkeyPatch) -> None:  # type: ignore[type-arg]
    dtype, batch, n_tokens, d_inner, d_state, last, initial, chunk, tile = case
    cut(patch, n_tokens, chunk, tile)
    assert_as_good_as_torch(inputs(batch, n_tokens, d_inner, d_state, last=last, initial=initial), dtype, last=last)


@pytest.mark.parametrize("case", SCANS)
def test_compiled_scan_against_the_float64_reference(
    case: str, emulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_scan(SCANS[case], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE_SCANS)
def test_more_compiled_scans(case: str, emulated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run_scan(MORE_SCANS[case], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("d_state", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("save", [False, True])
def test_launch_table_computes_the_same(
    d_state: int, save: bool, emulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every shape of program that the table holds, two channels a thread among them."""
    for d_inner in (24, 60, 300):
        backward = launch.Launch(launch.tiles("scan_adjoint", d_inner, d_state)[0], 2, 32, ())
        for tile in launch.tiles("scan", d_inner, d_state):
            plan = launch.Launch(tile, 2, 32, ())
            monkeypatch.setattr(scan, "forward_launch", lambda *_, plan=plan: plan)
            monkeypatch.setattr(scan, "backward_launch", lambda *_, plan=backward: plan)
            assert_as_good_as_torch(
                inputs(1, 35, d_inner, d_state, last=False, initial=save), torch.float32, last=False
            )


@pytest.mark.parametrize(
    ("dtype", "batch", "n_tokens", "d_inner", "d_conv", "chunk"),
    [(torch.float32, 2, 37, 40, 4, 16), (torch.bfloat16, 1, 21, 5, 4, 32)],
)
def test_compiled_convolution_against_float64(
    dtype: torch.dtype, batch: int, n_tokens: int, d_inner: int, d_conv: int, chunk: int,
    emulated: None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(conv, "_chunk", lambda *_: chunk)
    conv_as_good_as_torch(conv_inputs(batch, n_tokens, d_inner, d_conv), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_conv", [1, 2, 3, 16, 32])
def test_more_compiled_convolutions(
    dtype: torch.dtype, d_conv: int, emulated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "_chunk", lambda *_: 16)
    conv_as_good_as_torch(conv_inputs(2, 37, 130, d_conv), dtype)


def scan_launches(
    dtype: torch.dtype, d_state: int, *, d_inner: int = 256, last: bool = False, initial: bool = False,
    save: bool = True, n_chunks: int = 2, batch: int = 1, tile: launch.Tile | None = None,
) -> list[compiled.Launch]:  # fmt: skip
    """What the backend launches for a forward and, with ``save``, a backward pass."""
    launches: list[compiled.Launch] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "kernels", compiled.intercepted(triton_kernels, launches.append))
        patch.setattr("test_triton_scan.DEVICE", "cpu")
        n_tokens = 32 * n_chunks
        forward = tile or launch.tiles("scan", d_inner, d_state)[-1]
        backward = launch.tiles("scan_adjoint", d_inner, d_state)[0]
        patch.setattr(scan, "forward_launch", lambda *_: launch.Launch(forward, n_chunks, 32, ()))
        patch.setattr(scan, "backward_launch", lambda *_: launch.Launch(backward, n_chunks, 32, ()))
        shapes = inputs(batch, n_tokens, d_inner, d_state, last=last, initial=initial)
        tensors = {name: t.to(torch.float32 if t.dim() < 3 else dtype) for name, t in shapes.items()}
        arguments = [tensors.get(name) for name in ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")]
        y, final, checkpoints = scan._scan(*arguments, last, save)
        if save:
            scan._scan_backward(*arguments[:-1], torch.zeros_like(y), final, final, checkpoints, last)
    return launches


def conv_launches(dtype: torch.dtype, d_conv: int, n_tokens: int = 64) -> list[compiled.Launch]:
    launches: list[compiled.Launch] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "kernels", compiled.intercepted(conv_kernels, launches.append))
        patch.setattr("test_triton_conv.DEVICE", "cpu")
        x, weight, bias = (t.to(dtype) for t in conv_inputs(1, n_tokens, 256, d_conv))
        conv._conv_backward(x, weight, bias, conv._conv(x, weight, bias))
    return launches


def assert_fits(launches: list[compiled.Launch], capability: int) -> None:
    for each in launches:
        built = each.compile(capability)
        found = compiled.resources(built)
        where = f"{each.name} on sm_{capability}: {found}"
        assert found.stack_bytes == 0, where
        assert found.local_accesses == 0, where
        assert found.registers <= each.keywords.get("maxnreg", 255), where
        threads = 32 * each.keywords.get("num_warps", 4)
        assert found.registers * threads <= 65536, where
        assert built.metadata.shared <= SHARED_BYTES, where
        if each.keywords.get("BLOCK_N", 0) <= 16 and each.name in ("scan_kernel", "chunk_state_kernel"):
            assert found.shared_bytes == 0, where


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(capability: int) -> None:
    assert_fits(scan_launches(torch.bfloat16, 16), capability)
    assert_fits(conv_launches(torch.bfloat16, 4), capability)


def layer_launches(
    dtype: torch.dtype, d_model: int, n_tokens: int = 20, batch: int = 1, last_of: torch.Tensor | None = None
) -> list[compiled.Launch]:
    """Of a layer's forward and backward pass, of the last tokens of rows of these lengths if given."""
    launches: list[compiled.Launch] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "kernels", compiled.intercepted(layer_kernels, launches.append))
        exact = layer_inputs(batch, n_tokens, d_model, 2 * d_model, 16, d_model // 16, 4)
        leaves = [t.to(torch.float32 if i in (7, 8) else dtype).requires_grad_() for i, t in enumerate(exact)]
        readout = "all" if last_of is None else "last"
        layer.mamba_layer(LayerInputs(*leaves), readout=readout, lengths=last_of).sum().backward()
    return launches


def test_the_layer_of_the_paper_takes_two_launches_each_way_and_spills_nothing() -> None:
    launches = layer_launches(torch.bfloat16, 64)
    assert len(launches) == 4
    assert_fits(launches, 90)
    (adjoint,) = (each for each in launches if each.name == "layer_adjoint_kernel")
    walk = compiled.resources(adjoint.compile(90)).loops[0]
    assert not [name for name in walk if name.startswith(("LDS", "STS", "BAR"))]  # a thread keeps to its channel


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_model", [64, 96, 128])
def test_no_layer_spills(d_model: int, dtype: torch.dtype, capability: int) -> None:
    for last_of in (None, torch.tensor([20])):
        assert_fits(layer_launches(dtype, d_model, last_of=last_of), capability)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_state", [1, 4, 16, 32, 64])
def test_no_variant_spills(dtype: torch.dtype, d_state: int, capability: int) -> None:
    for last in (False, True):
        for n_chunks in (1, 2):
            assert_fits(scan_launches(dtype, d_state, last=last, initial=n_chunks == 1, n_chunks=n_chunks), capability)
            assert_fits(scan_launches(dtype, d_state, last=last, save=False, n_chunks=n_chunks), capability)
    for d_inner in (32, 64, 256):
        for tile in launch.tiles("scan", d_inner, d_state):
            assert_fits(scan_launches(dtype, d_state, d_inner=d_inner, tile=tile), capability)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_convolution_spills(dtype: torch.dtype, capability: int) -> None:
    for d_conv in (1, 2, 3, 4, 16, 32):
        assert_fits(conv_launches(dtype, d_conv), capability)


def test_no_size_of_the_input_makes_another_variant() -> None:
    """A sweep over L and B compiles each kernel once."""
    seen: dict[str, set[object]] = {}
    for n_chunks in (2, 3, 16):
        for batch in (1, 16, 17):
            for each in scan_launches(torch.bfloat16, 16, n_chunks=n_chunks, batch=batch):
                seen.setdefault(each.name, set()).add(each.variant())
    for n_tokens, batch in ((1, 16), (16, 1), (100, 17)):
        for each in layer_launches(torch.bfloat16, 64, n_tokens=n_tokens, batch=batch):
            seen.setdefault(each.name, set()).add(each.variant())
        for each in conv_launches(torch.bfloat16, 4, n_tokens=n_tokens):
            seen.setdefault(each.name, set()).add(each.variant())
    several = {name: len(variants) for name, variants in seen.items() if len(variants) > 1}
    assert several.keys() <= {"carry_kernel"}  # small: it goes both ways, and its layout follows from its sizes
    assert several.get("carry_kernel", 0) <= 12


def test_states_of_a_channel_stay_in_one_thread() -> None:
    """No shuffle, no shared memory in the loop over tokens; B and C in accesses as wide as their alignment allows."""
    for each in (*scan_launches(torch.bfloat16, 16), *layer_launches(torch.bfloat16, 64)):
        if each.name not in ("scan_kernel", "chunk_state_kernel", "scan_project_kernel"):
            continue
        loop = compiled.resources(each.compile(90)).loops[0]
        assert not [name for name in loop if name.startswith(("SHFL", "LDS", "STS", "BAR"))]
        vectors = 2 if each.name == "chunk_state_kernel" else 4
        assert loop["LDG.E.128"] == vectors * each.keywords["UNROLL"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_launch_model_counts_what_the_compiler_made(dtype: torch.dtype) -> None:
    """Instructions and special functions a token and channel, as the model of launches has them."""
    element = dtype.itemsize
    seen = set()
    for tile in launch.tiles("scan", 256, 16):
        for each in scan_launches(dtype, 16, tile=tile):
            name = each.name.removesuffix("_kernel")
            channels = each.keywords.get("BLOCK_D", 0) // (32 * each.keywords.get("num_warps", 4))
            if (name, channels, element) not in launch.INSTRUCTIONS:
                continue
            seen.add((name, channels))
            # The backward pass walks forward and backward in two loops.
            loops = compiled.resources(each.compile(90)).loops[: 2 if name == "scan_adjoint" else 1]
            share = each.keywords["UNROLL"] * channels
            instructions = sum(sum(loop.values()) for loop in loops) / share
            special = sum(compiled.special_functions(loop) for loop in loops) / share
            assert instructions == pytest.approx(launch.INSTRUCTIONS[name, channels, element][1], rel=0.15), name
            assert special == pytest.approx(launch.special_functions(name, 16), abs=2.5), name
    assert len(seen) == 6
