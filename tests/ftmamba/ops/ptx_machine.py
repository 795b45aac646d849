"""Runs a compiled Triton kernel without a GPU: a vectorised interpreter of the PTX that Triton's compiler wrote.

Triton's own interpreter shows that a kernel's text is right. This shows that what the compiler made of it is right too:
the layout of tiles over threads, inline PTX, shuffles, exchange through shared memory, alignment of vector loads.
All threads of all blocks run in lockstep, each register being one numpy array; where threads disagree on a branch, the
group that is furthest behind runs first. Every address is checked against the tensors that were passed.

Semantics: PTX ISA 8.x, NVIDIA, chapter "Instruction Set". Instructions that our kernels do not use raise KeyError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Array = np.ndarray
UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
TYPES: dict[str, type[np.generic]] = {
    "pred": np.bool_,
    "f32": np.float32,
    "f16": np.float16,
    **{f"{kind}{bits}": np.dtype(f"{code}{bits // 8}").type for kind, code in (("s", "i"), ("u", "u"), ("b", "u"))
       for bits in (8, 16, 32, 64)},
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    predicate: str
    negated: bool
    parts: tuple[str, ...]
    operands: tuple[str, ...]


class Program:
    """Parsed PTX of one kernel."""

    def __init__(self, ptx: str) -> None:
        body = ptx[ptx.index(".entry") :]
        signature, body = body[: body.index("{")], body[body.index("{") :]
        self.parameters = re.findall(r"\.param\s+\S+.*?(\w+)\s*(?=[,)])", signature, re.DOTALL)
        self.threads = int(re.search(r"\.reqntid\s+(\d+)", signature)[1])  # type: ignore[index]
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        body = re.sub(r"//[^\n]*|\.loc[^\n]*|\.reg[^;]*;|\.pragma[^;]*;", "", body.split(".section")[0])
        for line in re.split(r"[;\n]", body):
            self._read(line.strip())

    def _read(self, line: str) -> None:
        label = re.match(r"(\$\w+):\s*(.*)", line)
        if label:
            self.labels[label[1]] = len(self.instructions)
            line = label[2]
        # A lone brace opens or closes a scope of register names; one that holds operands follows an opcode.
        line = re.sub(r"^[{}]\s*|\s*(?<=\s)\}$", "", line) if line.count("{") != line.count("}") else line
        match = re.match(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)$", line.strip("{} ") if line in "{}" else line)
        if not match or not match[3]:
            return
        operands = tuple(o.strip() for o in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", match[4]))
        self.instructions.append(Instruction(match[2] or "", bool(match[1]), tuple(match[3].split(".")), operands))


@dataclass(frozen=True)
class Accessors:
    """Of each access of one instruction: warp, block, and how many barriers its block has met."""

    warp: Array
    block: Array
    epoch: Array


class Bytes:
    """Memory that knows who touched it. Two warps may touch one byte if both read, or with a barrier between them.

    Two blocks share no barrier. Threads of one warp run in step here, and are not told apart.
    """

    NOBODY, SEVERAL = -1, -2

    def __init__(self, content: Array) -> None:
        self.content = content
        self.writer, self.writer_block, self.reader, self.reader_block = (
            np.full(content.size, self.NOBODY, np.int32) for _ in range(4)
        )
        self.written, self.read = np.zeros(content.size, np.int32), np.zeros(content.size, np.int32)

    def load(self, offsets: Array, by: Accessors) -> Array:
        warp, block, epoch = (np.broadcast_to(field[:, None], offsets.shape) for field in (by.warp, by.block, by.epoch))
        self._check(self.writer, self.writer_block, self.written, offsets, warp, block, epoch)
        newer = epoch > self.read[offsets]
        same_warp = (self.reader[offsets] == warp) | (self.reader[offsets] == self.NOBODY)
        same_block = (self.reader_block[offsets] == block) | (self.reader_block[offsets] == self.NOBODY)
        self.reader[offsets] = np.where(same_warp | (newer & same_block), warp, self.SEVERAL)
        self.reader_block[offsets] = np.where(same_block, block, self.SEVERAL)
        self.read[offsets] = np.maximum(self.read[offsets], epoch)
        # Accesses of this very instruction overwrite each other above: those of other warps count as several.
        self.reader[offsets] = np.where(self.reader[offsets] == warp, self.reader[offsets], self.SEVERAL)
        self.reader_block[offsets] = np.where(self.reader_block[offsets] == block, block, self.SEVERAL)
        return self.content[offsets]

    def store(self, offsets: Array, rows: Array, by: Accessors) -> None:
        warp, block, epoch = (np.broadcast_to(field[:, None], offsets.shape) for field in (by.warp, by.block, by.epoch))
        self._check(self.writer, self.writer_block, self.written, offsets, warp, block, epoch)
        self._check(self.reader, self.reader_block, self.read, offsets, warp, block, epoch)
        self.content[offsets] = rows
        self.writer[offsets], self.writer_block[offsets], self.written[offsets] = warp, block, epoch
        if ((self.content[offsets] != rows) & (self.writer[offsets] != warp)).any():
            raise RaceError("two warps write different values to one byte")

    def _check(
        self, other: Array, other_block: Array, when: Array, offsets: Array, warp: Array, block: Array, epoch: Array
    ) -> None:
        strange = (other[offsets] != warp) & (other[offsets] != self.NOBODY)
        ordered = (other_block[offsets] == block) & (when[offsets] < epoch)
        if (strange & ~ordered).any():
            raise RaceError("two warps touch one byte with no barrier between them")


class RaceError(RuntimeError):
    """The result depends on which warp comes first."""


class Memory:
    """The storages of the tensors that a launch was given, by address."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        spans = {t.untyped_storage().data_ptr(): t for t in tensors if t.untyped_storage().nbytes()}
        self.bases = np.array(sorted(spans), dtype=np.uint64)
        self.storages = [Bytes(_bytes_of(spans[base])) for base in sorted(spans)]

    def load(self, addresses: Array, size: int, by: Accessors) -> Array:
        """(len(addresses), size) bytes."""
        rows = np.empty((addresses.size, size), np.uint8)
        for who, storage, offsets in self._places(addresses, size):
            rows[who] = storage.load(offsets, Accessors(by.warp[who], by.block[who], by.epoch[who]))
        return rows

    def store(self, addresses: Array, rows: Array, by: Accessors) -> None:
        for who, storage, offsets in self._places(addresses, rows.shape[1]):
            storage.store(offsets, rows[who], Accessors(by.warp[who], by.block[who], by.epoch[who]))

    def _places(self, addresses: Array, size: int) -> Iterator[tuple[Array, Bytes, Array]]:
        """For each storage that is met: which accesses go there, the storage, and the indices of their bytes."""
        if (addresses % np.uint64(size)).any():
            raise MemoryError(f"address not aligned to {size} bytes")
        holders = np.searchsorted(self.bases, addresses, side="right") - 1
        for holder in np.unique(holders):
            who = holders == holder
            offsets = (addresses[who] - self.bases[holder]).astype(np.int64)
            if holder < 0 or (offsets + size > self.storages[holder].content.size).any():
                raise MemoryError("address in no tensor of this launch")
            yield who, self.storages[holder], offsets[:, None] + np.arange(size)


def _bytes_of(tensor: torch.Tensor) -> Array:
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()  # type: ignore[no-any-return]


class Machine:
    """One launch: registers of all threads, shared memory of all blocks."""

    def __init__(self, program: Program, grid: int, arguments: Sequence[torch.Tensor | int], shared_bytes: int) -> None:
        self.program = program
        self.lanes = grid * program.threads
        self.registers: dict[str, Array] = {
            "%tid.x": np.tile(np.arange(program.threads, dtype=np.uint32), grid),
            "%ctaid.x": np.repeat(np.arange(grid, dtype=np.uint32), program.threads),
            "%laneid": np.tile(np.arange(32, dtype=np.uint32), self.lanes // 32),
        }
        self.memory = Memory([a for a in arguments if isinstance(a, torch.Tensor)])
        self.shared_bytes = max(shared_bytes, 16)
        self.shared = Bytes(np.zeros(grid * self.shared_bytes, np.uint8))
        self.epoch = np.zeros(grid, np.int32)
        values = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
        values += [0] * (len(program.parameters) - len(values))  # Triton appends scratch pointers that we do not use
        self.parameters = dict(zip(program.parameters, values, strict=True))
        self.executed = 0

    def run(self) -> None:
        waiting = {0: np.ones(self.lanes, bool)}
        while waiting:
            pc = min(waiting)
            self.active = waiting.pop(pc)
            self.all_active = bool(self.active.all())
            while True:
                if pc in waiting:
                    waiting[pc] |= self.active
                    break
                instruction = self.program.instructions[pc]
                self.executed += 1
                operation = instruction.parts[0]
                if operation == "ret":
                    break
                if operation == "bra":
                    taken = self._guard(instruction)
                    target = self.program.labels[instruction.operands[0]]
                    staying = self.active & ~taken
                    if staying.any():
                        if taken.any():
                            waiting[target] = waiting.get(target, False) | taken
                            waiting[pc + 1] = waiting.get(pc + 1, False) | staying
                            break
                        pc += 1
                    else:
                        pc = target
                        if waiting and min(waiting) <= pc:
                            waiting[pc] = waiting.get(pc, False) | self.active
                            break
                    continue
                HANDLERS[operation](self, instruction)
                pc += 1

    def _guard(self, instruction: Instruction) -> Array:
        if not instruction.predicate:
            return self.active
        predicate = self.registers[instruction.predicate]
        return self.active & (~predicate if instruction.negated else predicate)

    def accessors(self, who: Array) -> Accessors:
        block = who // self.program.threads
        return Accessors(who // 32, block, self.epoch[block])

    def shared_places(self, addresses: Array, who: Array, size: int) -> Array:
        """Indices of the bytes of these accesses in the shared memory of all blocks."""
        if (addresses % size).any() or (addresses + size > self.shared_bytes).any():
            raise MemoryError("address outside shared memory, or not aligned")
        start = addresses.astype(np.int64) + who // self.program.threads * self.shared_bytes
        return start[:, None] + np.arange(size)

    def read(self, operand: str, kind: str) -> Array:
        dtype = TYPES[kind]
        if operand in self.registers:
            value = self.registers[operand]
            if dtype is np.bool_ or value.dtype == dtype:
                return value
            return value.view(dtype) if value.dtype.itemsize == np.dtype(dtype).itemsize else value.astype(dtype)
        if operand == "global_smem":
            return np.zeros(self.lanes, dtype)
        if operand.startswith(("0f", "0F")):
            bits = np.array(int(operand[2:], 16), np.uint32)
            return np.broadcast_to(bits.view(np.float32) if dtype is np.float32 else bits.astype(dtype), (self.lanes,))
        if operand.startswith(("%", "$")) or not re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", operand):
            raise KeyError(f"register {operand} is read before it is written")
        bits_wide = 8 * np.dtype(dtype).itemsize if dtype is not np.bool_ else 8
        number = int(operand.rstrip("U"), 0) & ((1 << bits_wide) - 1)
        if dtype is np.bool_:
            return np.full(self.lanes, bool(number))
        return np.full(self.lanes, number, UNSIGNED[bits_wide]).view(dtype)

    def write(self, register: str, value: Array, where: Array | None = None) -> None:
        if register == "_":
            return
        if value.dtype != np.bool_:
            value = value.view(UNSIGNED[8 * value.dtype.itemsize])
        if where is None and self.all_active:
            self.registers[register] = np.array(value)
            return
        old = self.registers.get(register)
        if old is None or old.dtype != value.dtype:
            old = np.zeros(self.lanes, value.dtype)
        self.registers[register] = np.where(self.active if where is None else where, value, old)


Handler = Callable[[Machine, Instruction], None]


def _elementwise(function: Callable[..., Array]) -> Handler:
    """destination, sources..., all of the type that the opcode ends with."""

    def handle(machine: Machine, instruction: Instruction) -> None:
        kind = instruction.parts[-1]
        destination, *sources = instruction.operands
        with np.errstate(all="ignore"):
            value = function(*(machine.read(source, kind) for source in sources))
        machine.write(destination, value.astype(TYPES[kind], copy=False), _where(machine, instruction))

    return handle


def _where(machine: Machine, instruction: Instruction) -> Array | None:
    return machine._guard(instruction) if instruction.predicate else None


def _multiply(machine: Machine, instruction: Instruction, addend: bool) -> None:
    kind, mode = instruction.parts[-1], instruction.parts[1]
    if kind == "f32":
        _elementwise(np.multiply)(machine, instruction)
        return
    destination, *sources = instruction.operands
    a, b = (machine.read(source, kind) for source in sources[:2])
    bits = 8 * a.dtype.itemsize
    with np.errstate(over="ignore"):
        if mode == "lo":
            value, result_kind = a * b, kind
        else:
            wide = a.astype(np.int64 if kind[0] == "s" else np.uint64) * b.astype(
                np.int64 if kind[0] == "s" else np.uint64
            )
            if mode == "hi":
                assert bits == 32
                value, result_kind = (wide >> type(wide[0])(32)).astype(TYPES[kind]), kind
            else:
                assert bits == 32
                value, result_kind = wide, f"{kind[0]}64"
        if addend:
            value = value + machine.read(sources[2], result_kind)
    machine.write(destination, value, _where(machine, instruction))


def _fused(a: Array, b: Array, c: Array) -> Array:
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _divide(a: Array, b: Array) -> Array:
    quotient = np.abs(a.astype(np.int64)) // np.maximum(np.abs(b.astype(np.int64)), 1)
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def _shift(machine: Machine, instruction: Instruction) -> None:
    kind = instruction.parts[-1]
    destination, source, amount = instruction.operands
    value, count = machine.read(source, kind), machine.read(amount, "u32").astype(np.int64)
    bits = 8 * value.dtype.itemsize
    safe = np.minimum(count, bits - 1).astype(value.dtype)
    if instruction.parts[0] == "shl":
        result = np.where(count < bits, value << safe, 0)
    elif kind[0] == "s":
        result = value >> safe
    else:
        result = np.where(count < bits, value >> safe, 0)
    machine.write(destination, result.astype(value.dtype), _where(machine, instruction))


COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _compare(machine: Machine, instruction: Instruction) -> None:
    kind = instruction.parts[-1]
    destination, a, b = instruction.operands
    value = COMPARISONS[instruction.parts[1]](machine.read(a, kind), machine.read(b, kind))
    machine.write(destination, value, _where(machine, instruction))


def _select(machine: Machine, instruction: Instruction) -> None:
    kind = instruction.parts[-1]
    destination, a, b, predicate = instruction.operands
    value = np.where(machine.registers[predicate], machine.read(a, kind), machine.read(b, kind))
    machine.write(destination, value, _where(machine, instruction))


def _move(machine: Machine, instruction: Instruction) -> None:
    kind = instruction.parts[-1]
    destination, source = instruction.operands
    where = _where(machine, instruction)
    if destination.startswith("{"):
        names = [name.strip() for name in destination.strip("{}").split(",")]
        value = machine.read(source, f"u{kind[1:]}")
        bits = 8 * value.dtype.itemsize // len(names)
        for i, name in enumerate(names):
            machine.write(name, (value >> value.dtype.type(i * bits)).astype(UNSIGNED[bits]), where)
    elif source.startswith("{"):
        names = [name.strip() for name in source.strip("{}").split(",")]
        bits = int(kind[1:]) // len(names)
        value = np.zeros(machine.lanes, UNSIGNED[int(kind[1:])])
        for i, name in enumerate(names):
            value |= machine.read(name, f"u{bits}").astype(value.dtype) << value.dtype.type(i * bits)
        machine.write(destination, value, where)
    else:
        machine.write(destination, machine.read(source, kind), where)


def _to_bfloat16(value: Array) -> Array:
    bits = value.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(value), 0x7FFF, rounded).astype(np.uint16)


def _convert(machine: Machine, instruction: Instruction) -> None:
    target, source_kind = instruction.parts[-2:]
    destination, *sources = instruction.operands
    where = _where(machine, instruction)
    with np.errstate(all="ignore"):
        if target == "bf16x2":
            high, low = (_to_bfloat16(machine.read(source, "f32")).astype(np.uint32) for source in sources)
            value = (high << np.uint32(16)) | low
        elif target == "f16x2":
            high, low = (
                machine.read(source, "f32").astype(np.float16).view(np.uint16).astype(np.uint32) for source in sources
            )
            value = (high << np.uint32(16)) | low
        elif target == "bf16":
            value = _to_bfloat16(machine.read(sources[0], "f32"))
        elif source_kind == "bf16":
            value = (machine.read(sources[0], "u16").astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            value = machine.read(sources[0], source_kind).astype(TYPES[target])
    machine.write(destination, value, where)


def _address(machine: Machine, operand: str) -> Array:
    base, _, offset = operand.strip("[] ").partition("+")
    kind = "u32" if "smem" in base or machine.registers[base.strip()].dtype == np.uint32 else "u64"
    address = machine.read(base.strip(), kind)
    return address + address.dtype.type(int(offset or "0") & ((1 << 64) - 1 if kind == "u64" else (1 << 32) - 1))


def _vector(instruction: Instruction) -> tuple[int, int]:
    """Bytes of an element, and how many one access moves."""
    count = next((int(part[1:]) for part in instruction.parts if re.fullmatch(r"v[248]", part)), 1)
    return int(instruction.parts[-1][1:]) // 8, count


def _load(machine: Machine, instruction: Instruction) -> None:
    destination, source = instruction.operands
    if instruction.parts[1] == "param":
        # A register may be wider than what is loaded; signed types fill it with their sign.
        bits = 64 if destination.startswith("%rd") else int(instruction.parts[-1][1:])
        number = machine.parameters[source.strip("[] ")] & ((1 << bits) - 1)
        machine.write(destination, np.full(machine.lanes, number, UNSIGNED[bits]))
        return
    size, count = _vector(instruction)
    who = np.flatnonzero(machine._guard(instruction))
    names = [name.strip() for name in destination.strip("{}").split(",")]
    assert len(names) == count
    if who.size:
        addresses = _address(machine, source)[who]
        if instruction.parts[1] == "shared":
            places = machine.shared_places(addresses, who, size * count)
            rows = machine.shared.load(places, machine.accessors(who))
        else:
            rows = machine.memory.load(addresses, size * count, machine.accessors(who))
        values = np.ascontiguousarray(rows).view(UNSIGNED[8 * size])
    for i, name in enumerate(names):
        old = machine.registers.get(name)
        register = np.zeros(machine.lanes, UNSIGNED[8 * size]) if old is None or old.itemsize != size else old.copy()
        if who.size:
            register[who] = values[:, i]
        machine.registers[name] = register


def _store(machine: Machine, instruction: Instruction) -> None:
    target, source = instruction.operands
    size, count = _vector(instruction)
    who = np.flatnonzero(machine._guard(instruction))
    if not who.size:
        return
    names = [name.strip() for name in source.strip("{}").split(",")]
    assert len(names) == count
    values = np.stack([machine.read(name, f"u{8 * size}")[who] for name in names], 1)
    rows = np.ascontiguousarray(values).view(np.uint8)
    addresses = _address(machine, target)[who]
    if instruction.parts[1] == "shared":
        places = machine.shared_places(addresses, who, size * count)
        machine.shared.store(places, rows, machine.accessors(who))
    else:
        machine.memory.store(addresses, rows, machine.accessors(who))


def _load_matrix(machine: Machine, instruction: Instruction) -> None:
    """ldmatrix: 8 x 8 matrices of 16 bits; lane 8 i + r gives the address of row r of matrix i."""
    destination, source = instruction.operands
    names = [name.strip() for name in destination.strip("{}").split(",")]
    assert not instruction.predicate
    assert "trans" not in instruction.parts
    addresses = _address(machine, source)
    lanes = np.flatnonzero(machine.active)
    for i, name in enumerate(names):
        row_lane = lanes // 32 * 32 + 8 * i + lanes % 32 // 4
        places = machine.shared_places(addresses[row_lane] + (lanes % 4 * 4).astype(addresses.dtype), lanes, 4)
        rows = machine.shared.load(places, machine.accessors(lanes))
        register = np.zeros(machine.lanes, np.uint32)
        register[lanes] = np.ascontiguousarray(rows).view(np.uint32)[:, 0]
        machine.write(name, register)


def _shuffle(machine: Machine, instruction: Instruction) -> None:
    assert instruction.parts[:3] == ("shfl", "sync", "bfly")
    destination, source, lane_mask, *_ = instruction.operands
    warps = machine._guard(instruction).reshape(-1, 32)
    assert (warps.all(1) | ~warps.any(1)).all(), "a shuffle needs all lanes of its warp"
    partner = np.arange(machine.lanes) ^ int(lane_mask, 0)
    machine.write(destination, machine.read(source, "u32")[partner], _where(machine, instruction))


def _barrier(machine: Machine, instruction: Instruction) -> None:
    blocks = machine.active.reshape(-1, machine.program.threads)
    assert (blocks.all(1) | ~blocks.any(1)).all(), "a barrier needs all threads of its block"
    machine.epoch += blocks.all(1)


def _bit_field(machine: Machine, instruction: Instruction) -> None:
    destination, source, position, length = instruction.operands
    width = int(length, 0)
    value = (machine.read(source, "u32") >> np.uint32(int(position, 0))) & np.uint32((1 << width) - 1)
    if instruction.parts[-1] == "s32":  # the field's highest bit is its sign
        unused = np.uint32(32 - width)
        value = ((value << unused).view(np.int32) >> np.int32(32 - width)).view(np.uint32)
    machine.write(destination, value, _where(machine, instruction))


def _funnel_shift(machine: Machine, instruction: Instruction) -> None:
    """shf: the high (l) or low (r) half of two registers, taken as one of 64 bits, after a shift."""
    destination, low, high, amount = instruction.operands
    count = machine.read(amount, "u32").astype(np.uint64)
    count = count % np.uint64(32) if "wrap" in instruction.parts else np.minimum(count, np.uint64(32))
    both = (machine.read(high, "u32").astype(np.uint64) << np.uint64(32)) | machine.read(low, "u32").astype(np.uint64)
    value = both << count >> np.uint64(32) if "l" in instruction.parts else both >> count
    machine.write(destination, value.astype(np.uint32), _where(machine, instruction))


HANDLERS: dict[str, Handler] = {
    "abs": _elementwise(np.abs),
    "add": _elementwise(np.add),
    "and": _elementwise(np.bitwise_and),
    "bar": _barrier,
    "barrier": _barrier,
    "bfe": _bit_field,
    "cvt": _convert,
    "div": _elementwise(_divide),
    "ex2": _elementwise(lambda v: np.exp2(v.astype(np.float64)).astype(np.float32)),
    "fma": _elementwise(_fused),
    "ld": _load,
    "ldmatrix": _load_matrix,
    "mad": lambda machine, instruction: _multiply(machine, instruction, addend=True),
    "max": _elementwise(np.fmax),
    "min": _elementwise(np.fmin),
    "mov": _move,
    "mul": lambda machine, instruction: _multiply(machine, instruction, addend=False),
    "neg": _elementwise(np.negative),
    "not": _elementwise(np.invert),
    "or": _elementwise(np.bitwise_or),
    "rcp": _elementwise(lambda v: np.float32(1) / v),
    "rem": _elementwise(lambda a, b: a - _divide(a, b) * b),
    "selp": _select,
    "setp": _compare,
    "shf": _funnel_shift,
    "shfl": _shuffle,
    "shl": _shift,
    "shr": _shift,
    "st": _store,
    "sub": _elementwise(np.subtract),
    "xor": _elementwise(np.bitwise_xor),
}
