"""Compiles the kernels as the backends launch them, for a GPU that need not be there."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton
from ptx_machine import Machine, Program
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
OPTIONS = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")


@dataclass(frozen=True)
class Launch:
    """One kernel with the arguments that a backend gave it."""

    kernel: Any
    grid: int
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    def variant(self) -> tuple[object, ...]:
        """What decides whether Triton compiles a kernel anew."""
        known = {name: self.keywords[name] for name in OPTIONS if name in self.keywords}
        return self.name, *map(str, (*self._specialised(), known))

    def compile(self, capability: int = 90) -> Any:
        """What Triton would compile for this launch."""
        signature, constants, attributes = self._specialised()
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes)
        options = {key: self.keywords[key] for key in OPTIONS if key in self.keywords}
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

    def _specialised(self) -> tuple[dict[str, str], dict[tuple[int, ...], Any], dict[tuple[int, ...], Any]]:
        """As Triton does it on ones, sixteens and alignment."""
        signature: dict[str, str] = {}
        constants: dict[tuple[int, ...], Any] = {}
        attributes: dict[tuple[int, ...], list[list[Any]]] = {}
        for i, (parameter, value) in enumerate(zip(self.kernel.params, self._values(), strict=True)):
            hidden = parameter.do_not_specialize
            if isinstance(value, torch.Tensor):
                signature[parameter.name] = POINTERS[value.dtype]
                aligned = value.data_ptr() % 16 == 0
            elif parameter.is_constexpr or (value == 1 and not hidden):
                signature[parameter.name] = "constexpr"
                constants[(i,)] = value
                continue
            else:
                signature[parameter.name] = "i32"
                aligned = value % 16 == 0 and not hidden
            if aligned:
                attributes[(i,)] = [["tt.divisibility", 16]]
        return signature, constants, attributes

    def _values(self) -> list[Any]:
        names = [parameter.name for parameter in self.kernel.params]
        positional = dict(zip(names, self.arguments, strict=False))
        return [positional[name] if name in positional else self.keywords[name] for name in names]

    def emulate(self) -> int:
        """Run the compiled kernel on its CPU tensors; the count of instructions, those of all threads together one."""
        compiled = self.compile()
        passed = [
            value
            for parameter, value in zip(self.kernel.params, self._values(), strict=True)
            if not parameter.is_constexpr
            and (parameter.do_not_specialize or isinstance(value, torch.Tensor) or value != 1)
        ]
        machine = Machine(Program(compiled.asm["ptx"]), self.grid, passed, compiled.metadata.shared)
        machine.run()
        return machine.executed


class Intercepted:
    """Stands in for a kernel: hands each launch to a function."""

    def __init__(self, kernel: Any, receive: Callable[[Launch], object]) -> None:
        self.kernel, self.receive = kernel, receive

    def __getitem__(self, grid: tuple[int]) -> Callable[..., object]:
        return lambda *arguments, **keywords: self.receive(Launch(self.kernel, grid[0], arguments, keywords))


def intercepted(kernels: ModuleType, receive: Callable[[Launch], object]) -> SimpleNamespace:
    """The module, but that each launch of its kernels goes to ``receive``."""
    replaced = {name: Intercepted(value, receive) for name, value in vars(kernels).items() if name.endswith("_kernel")}
    return SimpleNamespace(**{**vars(kernels), **replaced})


@dataclass(frozen=True)
class Resources:
    """Of one compiled kernel, read from its machine code.

    ``loops`` counts the instructions of every innermost loop, those with most special functions first.
    """

    registers: int
    stack_bytes: int
    shared_bytes: int
    local_accesses: int
    loops: tuple[dict[str, int], ...]


def resources(compiled: Any) -> Resources:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _tool("cuobjdump", "--dump-resource-usage", cubin)
        assembly = _tool("nvdisasm", "-c", cubin)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    assert found is not None, usage
    instructions, loops = _loops(assembly)
    local = sum(count for name, count in instructions.items() if name.startswith(("LDL", "STL")))
    by_special = sorted(loops, key=special_functions, reverse=True)
    return Resources(*(int(number) for number in found.groups()), local, tuple(by_special))


def special_functions(loop: dict[str, int]) -> int:
    return sum(count for name, count in loop.items() if name.startswith("MUFU"))


def _tool(name: str, *arguments: object) -> str:
    command = [str(TOOLS / name), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ}).stdout


def _loops(assembly: str) -> tuple[Counter[str], list[dict[str, int]]]:
    """Counts of all instructions, and of those of each innermost loop: between a label and a branch back to it."""
    names: list[str] = []
    labels: dict[str, int] = {}
    spans: list[tuple[int, int]] = []
    for line in assembly.splitlines():
        label = re.match(r"\s*(\.L_x_\d+):", line)
        if label:
            labels[label[1]] = len(names)
        instruction = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?(\S+)(.*?);", line)
        if instruction:
            names.append(instruction[1])
            target = re.search(r"`\((\.L_x_\d+)\)", instruction[2])
            if instruction[1].startswith("BRA") and target and target[1] in labels:
                spans.append((labels[target[1]], len(names)))
    inner = [a for a in spans if not any(a[0] <= b[0] and b[1] <= a[1] and a != b for b in spans)]
    return Counter(names), [dict(Counter(names[start:stop])) for start, stop in inner]
