"""Who may import whom. Data goes one way: ftmamba; plan -> run -> records -> analysis -> render."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each stage may import of the benchmark, beside itself. Commands (bench/*.py) may import every stage.
ALLOWED = {
    "plan": {"data", "baselines"},  # which data sets and baselines there are
    "baselines": {"data"},
    "records": {"plan"},  # a cell's identity
    "data": set(),
    "metrics": set(),
    "training": {"plan", "data", "metrics", "baselines"},
    "run": {"plan", "records", "data", "metrics", "training", "baselines"},
    "analysis": {"plan", "records", "baselines"},
    "render": {"plan", "records", "analysis"},
    "truth": {"plan", "records", "run", "analysis"},
}
COMMANDS_WITHOUT_TORCH = (
    "bench.sweep",
    "bench.profile",
    "bench.quality",
    "bench.datasets",
    "bench.decide",
    "bench.stream",
    "bench.env",
    "bench.__main__",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in ("ftmamba", "bench") for path in (ROOT / package).rglob("*.py")}


def imports(name: str, *, at_import_time: bool) -> Iterator[str]:
    """Modules that ``name`` imports; with ``at_import_time`` those alone that come with importing it."""
    todo: list[ast.AST] = [ast.parse(MODULES[name].read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if at_import_time and (isinstance(node, (ast.FunctionDef, ast.Lambda)) or is_type_checking(node)):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import; the project uses absolute ones"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module
        todo.extend(ast.iter_child_nodes(node))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("ftmamba")])
def test_the_model_core_does_not_know_the_benchmark(name: str) -> None:
    assert [found for found in imports(name, at_import_time=False) if found.split(".")[0] == "bench"] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") > 1 and name.startswith("bench.")])
def test_a_stage_imports_earlier_stages_alone(name: str) -> None:
    stage = name.split(".")[1]
    allowed = {stage, *ALLOWED[stage]}
    found = {each for each in imports(name, at_import_time=False) if each.split(".")[0] == "bench"}
    assert {each for each in found if [*each.split("."), ""][1] not in allowed} == set()


@pytest.mark.parametrize("command", COMMANDS_WITHOUT_TORCH)
def test_parents_do_not_import_torch(command: str) -> None:
    reached, todo = {command: ""}, [command]
    while todo:
        name = todo.pop()
        for found in imports(name, at_import_time=True):
            for each in with_parents(found):
                if each not in reached:
                    reached[each] = name
                    todo += [each] if each in MODULES else []
    assert "torch" not in reached, f"{command} reaches torch through {reached['torch']}"


def test_listing_a_sweep_loads_no_torch() -> None:
    program = (
        "import sys; from bench.sweep import main; code = main(['--list', '--device', 'cpu']);"
        "assert code == 0 and 'torch' not in sys.modules and 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("mixer", "backend"), [("mamba", "numba"), ("attention", "sdpa")])
def test_a_first_training_step_does_not_load_the_compiler(mixer: str, backend: str) -> None:
    """torch._dynamo takes about as long to import as all of torch, and every measured process would pay for it."""
    cell = f"'train_step', mixer='{mixer}', backend='{backend}', n_tokens=5, batch_size=2, n_layers=1, d_model=16"
    program = (
        "import sys; from bench.plan.cell import Cell; from bench.run.measure import build;"
        f"build(Cell(task={cell}))(); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
